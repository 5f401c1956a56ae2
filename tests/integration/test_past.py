"""The whole past of the log: from the lake and PostgreSQL, each event once, whatever one lacks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from crm.adapters.lake import Lake
from crm.adapters.lake_events import LakeEventFiles
from crm.adapters.past import Past
from crm.adapters.postgres.events import PostgresEventLog
from crm.adapters.postgres.lake import PostgresManifest
from crm.adapters.postgres.pool import Pool
from crm.domain.events import LoggedEvent
from crm.domain.shards import SHARDS
from crm.services.lake_writing import LakeWriter
from tests.support.builders import NOON, a_logged_event

ALL = range(SHARDS)
Events = dict[tuple[int, int], LoggedEvent]


@dataclass
class _Log:
    log: PostgresEventLog
    manifest: PostgresManifest
    lake: Lake

    def __post_init__(self) -> None:
        self.past = Past(self.log, self.manifest, self.lake)
        self.writer = LakeWriter(self.manifest, LakeEventFiles(self.lake), lambda: NOON)

    async def append(self, events: list[LoggedEvent]) -> None:
        epochs = {s: claim.epoch for s, claim in (await self.log.claim(ALL, "a")).items()}
        await self.log.append(epochs, [[event] for event in events])


@pytest.fixture
async def system(dsn: str, tmp_path: Path) -> AsyncIterator[_Log]:
    pool, log = Pool(dsn), PostgresEventLog(dsn, lambda: NOON)
    yield _Log(log, PostgresManifest(pool), Lake(str(tmp_path)))
    await pool.close()
    await log.close()


async def _read(source: Past | PostgresEventLog, after: int = 0) -> Events:
    found: Events = {}
    async for chunk in source.read_after(dict.fromkeys(ALL, after)):
        for seq, event in chunk:
            assert (event.shard, seq) not in found, "an event came twice"
            found[event.shard, seq] = event
    return found


def _events(start: int, end: int) -> list[LoggedEvent]:
    kinds = ("bet.placed", "session.started", "bet.settled", "deposit.completed")
    return [
        a_logged_event(
            event_id=f"e{n}",
            player_id=f"p{n % 7}",
            type=kinds[n % 4],
            amount=None if n % 4 == 1 else Decimal(n),
            currency=None,
            occurred_at=NOON - timedelta(days=n),
            properties={"result": "won", "product": "live", "n": n},
        )
        for n in range(start, end)
    ]


async def test_the_past_is_what_the_log_says_wherever_the_lake_ends(system: _Log) -> None:
    await system.append(_events(0, 200))
    assert await _same(system)
    await system.writer.catch_up()
    await system.append(_events(200, 300))
    assert await _same(system)
    assert await _same(system, after=7)


async def _same(system: _Log, after: int = 0) -> bool:
    """Whether both tell the same; properties are equal as JSON."""
    past, log = await _read(system.past, after), await _read(system.log, after)
    return len(past) > 0 and {k: _as_json(e) for k, e in past.items()} == {
        k: _as_json(e) for k, e in log.items()
    }


def _as_json(event: LoggedEvent) -> object:
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    return fields | {"properties": msgspec.json.decode(event.properties)}


async def test_sessions_that_left_postgresql_are_in_the_past_still(system: _Log) -> None:
    await system.append(_events(0, 300))
    whole = await _read(system.log)
    await system.writer.catch_up()
    assert await system.writer.drop_sessions(kept_days=90) != []
    assert len(await _read(system.log)) < len(whole)
    assert (await _read(system.past)).keys() == whole.keys()


async def test_a_lake_that_cannot_be_read_is_done_without(system: _Log) -> None:
    await system.append(_events(0, 300))
    await system.writer.catch_up()
    for file in (await system.manifest.files(ALL))[3:]:
        system.lake.delete(file.name)
    assert await _same(system)
