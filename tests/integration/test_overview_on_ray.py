"""The dashboard's numbers over two owners on Ray are those of SQL, and survive a killed owner."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import date, timedelta
from pathlib import Path

import msgspec
import pytest

from actors.gateway import ShardGateway
from crm.adapters import clock
from crm.services.overview import overview
from tests.support.builders import a_logged_event
from tests.support.overview import by_sql, in_minor_units
from tests.support.ray_shards import BRAND, a_gateway, a_spec, running_shards

pytestmark = pytest.mark.one_server


async def _hold(gateway: ShardGateway, dsn: str, first: date, last: date) -> None:
    """Hold each day and each week against SQL."""
    found = await overview(gateway, BRAND, first, last)
    periods = [(day.date, day.date, msgspec.to_builtins(day)) for day in found.days]
    periods += [(w.first, w.last, msgspec.to_builtins(w)) for w in (*found.weeks, found.total)]
    for start, end, figures in periods:
        expected = await by_sql(dsn, BRAND, found.as_of, start, end)
        assert in_minor_units(figures, BRAND) == expected, (start, end)
    assert found.total.active_players == 20  # the others were only paid out, or given something


async def test_two_owners_say_what_sql_says_before_and_after_one_is_killed(
    ray_cluster: None, dsn: str, tmp_path: Path
) -> None:
    now = clock.now()
    types = ("bet.placed", "bet.settled", "deposit.completed", "bonus.granted")
    events = [
        a_logged_event(
            received_at=now, event_id=f"e{n}", player_id=f"p{n % 40}", type=types[n % 4],
            occurred_at=now - timedelta(hours=n * 7), backfill=True,
            properties={"result": "won"} if n % 4 == 1 else {},
        )
        for n in range(400)
    ]  # fmt: skip
    today = BRAND.local_day(now)
    with running_shards(a_spec(dsn, tmp_path, owners=2)):
        async with a_gateway(dsn) as gateway:
            await gateway.append([[event] for event in events[:300]])
            await _hold(gateway, dsn, today - timedelta(days=40), today)
            await gateway.append([[event] for event in events[300:]])
            await _hold(gateway, dsn, today - timedelta(days=88), today)
            os.kill((await gateway.routes()).slots[0].state.pid, signal.SIGKILL)
            await asyncio.sleep(0)
            await _hold(gateway, dsn, today - timedelta(days=88), today)
