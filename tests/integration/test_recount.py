"""The live features of an owner equal a hand-written SQL recount over the raw tables."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import datetime

import asyncpg
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from crm.adapters.memory import MemoryFiles
from crm.adapters.postgres.events import PostgresEventLog
from crm.domain.brands import Brand
from crm.domain.events import LoggedEvent
from crm.domain.times import from_us
from tests.support.clock import Clock
from tests.support.histories import ENDS, brands, histories
from tests.support.owners import an_owner, features_of_all
from tests.support.recount import differences, recount


async def _run(dsn: str, brand: Brand, end: datetime, events: list[LoggedEvent], seed: int) -> None:
    """Shuffled, repeated, in random batches, with a restart in the middle: then recounted."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "TRUNCATE event_ids, user_transactions, user_sessions, shard_snapshots;"
        "UPDATE virtual_shards SET seq = 0"
    )
    await connection.close()
    rng = random.Random(seed)
    sent = events + rng.choices(events, k=len(events) // 2) if events else []
    rng.shuffle(sent)
    half = len(sent) // 2
    clock, files = Clock(end), MemoryFiles()
    for part in (sent[:half], sent[half:]):
        log = PostgresEventLog(dsn, clock)
        async with an_owner(log, clock, files=files, brands={brand.id: brand}) as owner:
            await _append_in_batches(owner.append, part, rng)
            for shard in rng.sample(range(256), 20):
                await owner.snapshot(shard)
            found = await features_of_all(owner, brand.id)
            as_of = from_us((await owner.table(brand.id)).now_us)
        await log.close()
    assert differences(found, await recount(dsn, brand, as_of)) == []


async def _append_in_batches(
    append: object, events: Sequence[LoggedEvent], rng: random.Random
) -> None:
    assert callable(append)
    while events:
        size = rng.randint(1, len(events))
        await append([[event] for event in events[:size]])
        events = events[size:]


@st.composite
def _cases(draw: st.DrawFn) -> tuple[Brand, datetime, list[LoggedEvent]]:
    brand, end = draw(brands()), draw(st.sampled_from(ENDS))
    return brand, end, draw(histories(brand, end, max_size=60))


def test_any_shuffle_split_and_repetition_gives_the_same_features_as_a_sql_recount(
    dsn: str,
) -> None:
    @settings(max_examples=25, phases=[Phase.explicit, Phase.generate])  # shrinking takes minutes
    @given(_cases(), st.integers(0, 2**32))
    def check(case: tuple[Brand, datetime, list[LoggedEvent]], seed: int) -> None:
        asyncio.run(_run(dsn, *case, seed))

    check()
