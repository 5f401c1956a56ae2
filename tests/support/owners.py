"""Shard owners for tests, over any log, with a clock of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime

from crm.adapters.memory import MemoryFiles, MemoryWatched
from crm.domain.brands import Brand
from crm.domain.events import LoggedEvent
from crm.domain.ports import EventLog, Files, Past
from crm.domain.shards import SHARDS
from crm.services.shard_members import ModelSource, SegmentSource
from crm.services.shard_owner import ShardOwner, Stores
from crm.services.watched_models import NoModels
from tests.support.builders import a_brand, a_logged_event


async def _no_pause(_s: float) -> None:
    """A former owner of these tests answers nobody who could be misled."""


@asynccontextmanager
async def an_owner(  # noqa: PLR0913 - what a test says of an owner, all but two with a default
    log: EventLog,
    now: Callable[[], datetime],
    *,
    side: EventLog | None = None,
    past: Past | None = None,
    files: Files | None = None,
    brands: Mapping[str, Brand] | None = None,
    segments: SegmentSource | None = None,
    models: ModelSource | None = None,
    shards: Iterable[int] = range(SHARDS),
    name: str = "owner",
) -> AsyncIterator[ShardOwner]:
    """An owner that has started and writes; ends as if its process had been killed."""
    source = segments or MemoryWatched()
    stores = Stores(
        log, side or log, log, past or log, files or MemoryFiles(), source, models or NoModels()
    )
    owner = ShardOwner(name, brands or {"demo": a_brand()}, stores, now, _no_pause)
    async with running(owner, shards):
        yield owner


@asynccontextmanager
async def running(owner: ShardOwner, shards: Iterable[int]) -> AsyncIterator[None]:
    """Let an owner adopt shards and write; at the end it is as if its process had been killed."""
    await owner.adopt(shards)
    writing = asyncio.create_task(owner.write_forever())
    try:
        yield
    finally:
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing


async def features_of_all(owner: ShardOwner, brand: str = "demo") -> dict[str, dict[str, int]]:
    """Every feature that is not missing, by player: raw integers."""
    table = await owner.table(brand)
    found: dict[str, dict[str, int]] = {player: {} for player in table.player_ids}
    for name in table.features.features:
        values, missing = table.column(name)
        for row, player in enumerate(table.player_ids):
            if missing is None or not missing[row]:
                found[player][name] = int(values[row])
    return found


def some_bets(count: int, start: int = 0) -> list[LoggedEvent]:
    """Bets of three players."""
    return [
        a_logged_event(event_id=f"e{n}", player_id=f"p{n % 3}") for n in range(start, start + count)
    ]


def appending(owner: ShardOwner, *events: LoggedEvent) -> asyncio.Task[list[list[str]]]:
    """Append each event alone, in one call: await it for the verdicts."""

    async def append() -> list[list[str]]:
        return [list(verdicts) for verdicts in await owner.append([[event] for event in events])]

    return asyncio.create_task(append())


async def bets_of(owner: ShardOwner) -> dict[str, int]:
    """How many bets each player has placed."""
    found = await features_of_all(owner)
    return {player: values["bet_count_lifetime"] for player, values in found.items()}
