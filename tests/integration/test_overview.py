"""The dashboard's numbers equal hand-written SQL over the raw tables."""

from __future__ import annotations

import asyncio
import random
from datetime import date, datetime, timedelta

import asyncpg
import msgspec
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from crm.adapters.memory import MemoryFiles
from crm.adapters.postgres.events import PostgresEventLog
from crm.domain.brands import Brand
from crm.domain.events import LoggedEvent
from crm.services.overview import Figures, overview
from tests.support.clock import Clock
from tests.support.histories import ENDS, brands, histories
from tests.support.local_shards import LocalShards
from tests.support.overview import by_sql, in_minor_units
from tests.support.owners import an_owner


async def _run(dsn: str, brand: Brand, end: datetime, events: list[LoggedEvent], seed: int) -> None:
    """Shuffled, in random batches, the clock moving on and a restart between them."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "TRUNCATE event_ids, user_transactions, user_sessions, shard_snapshots;"
        "UPDATE virtual_shards SET seq = 0"
    )
    await connection.close()
    rng = random.Random(seed)
    rng.shuffle(events)
    clock, files = Clock(end - timedelta(days=rng.choice([0, 1, 20]))), MemoryFiles()
    for part in (events[: len(events) // 2], events[len(events) // 2 :]):
        log = PostgresEventLog(dsn, clock)
        async with an_owner(log, clock, files=files, brands={brand.id: brand}) as owner:
            shards = LocalShards(owner, {brand.id: brand})
            await _compare(dsn, shards, brand, clock, rng)  # so that something is remembered
            for event in part:
                await owner.append([[event]])
            await owner.snapshot(rng.randrange(256))
            await _compare(dsn, shards, brand, clock, rng)
        await log.close()
        clock.set(end)


async def _compare(
    dsn: str, shards: LocalShards, brand: Brand, clock: Clock, rng: random.Random
) -> None:
    last = brand.local_day(clock()) - timedelta(days=rng.choice([0, 0, 3, 40]))
    first = last - timedelta(days=rng.choice([0, 6, 20, 49]))
    found = await overview(shards, brand, first, last)
    periods: list[tuple[date, date, Figures]] = [(day.date, day.date, day) for day in found.days]
    periods += [(week.first, week.last, week) for week in (*found.weeks, found.total)]
    assert sum((week.last - week.first).days + 1 for week in found.weeks) == len(found.days)
    assert {week.first.weekday() for week in found.weeks[1:]} <= {0}
    for start, end, figures in periods:
        expected = await by_sql(dsn, brand, found.as_of, start, end)
        assert in_minor_units(msgspec.to_builtins(figures), brand) == expected, (start, end)


@st.composite
def _cases(draw: st.DrawFn) -> tuple[Brand, datetime, list[LoggedEvent]]:
    brand, end = draw(brands()), draw(st.sampled_from(ENDS))
    return brand, end, draw(histories(brand, end, max_size=40))


def test_every_number_of_every_day_and_week_is_what_sql_says(dsn: str) -> None:
    @settings(max_examples=12, phases=[Phase.explicit, Phase.generate])  # shrinking takes minutes
    @given(_cases(), st.integers(0, 2**32))
    def check(case: tuple[Brand, datetime, list[LoggedEvent]], seed: int) -> None:
        asyncio.run(_run(dsn, *case, seed))

    check()
