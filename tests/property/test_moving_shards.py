"""Laws of moving: whoever owned a shard, and however it came there, its features are the same."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm.adapters.memory import MemoryEventLog, MemoryFiles, MemoryWatched
from crm.domain.brands import Brand
from crm.domain.event_columns import EventColumns
from crm.domain.events import LoggedEvent
from crm.domain.feature_list import features_of
from crm.domain.feature_table import FeatureTable, TableSlice
from crm.domain.shards import SHARDS
from crm.domain.times import to_us
from crm.services import shard_tables
from crm.services.shard_owner import ShardOwner, Stores
from crm.services.shard_tables import ShardTables
from tests.support.clock import Clock
from tests.support.histories import ENDS, brands, histories

OWNERS = 3


@pytest.fixture(autouse=True, scope="module")
def _tidy_at_once() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_tables, "MANY_DEAD", 0)
        yield


@st.composite
def _cases(draw: st.DrawFn) -> tuple[Brand, datetime, list[LoggedEvent]]:
    brand = draw(brands())
    end = draw(st.sampled_from(ENDS))
    return brand, end, draw(histories(brand, end, max_size=25))


async def _no_pause(_s: float) -> None:
    """Nobody of these tests is misled by a former owner."""


class Crew:
    """Owners of one log, and which of them should own each shard."""

    def __init__(self, brand: Brand, clock: Clock) -> None:
        self._log, self._files, self._clock = MemoryEventLog(), MemoryFiles(), clock
        self._brand = brand
        self.owners = [self._owner(number) for number in range(OWNERS)]
        self.slot_of = [shard % OWNERS for shard in range(SHARDS)]
        self._writers: list[asyncio.Task[None]] = []

    def _owner(self, number: int) -> ShardOwner:
        stores = Stores(self._log, self._log, self._log, self._log, self._files, MemoryWatched())
        brands_ = {self._brand.id: self._brand}
        return ShardOwner(f"owner-{number}", brands_, stores, self._clock, _no_pause)

    async def start(self) -> None:
        """Have every owner adopt its shards, and write."""
        for number in range(OWNERS):
            await self._run(number)

    async def _run(self, number: int) -> None:
        await self.owners[number].adopt([s for s in range(SHARDS) if self.slot_of[s] == number])
        self._writers.append(asyncio.create_task(self.owners[number].write_forever()))

    async def append(self, event: LoggedEvent) -> None:
        """Store an event at its owner."""
        owner = self.owners[self.slot_of[event.shard]]
        assert await owner.append([[event]]) == [["accepted"]]

    async def move(self, shards: Sequence[int], target: int, *, planned: bool) -> None:
        """Hand shards over: after a release, or behind their owners' backs."""
        leaving = [shard for shard in shards if self.slot_of[shard] != target]
        if planned:
            for owner in self.owners:
                await owner.release(leaving)
        await self.owners[target].adopt(leaving, released=planned)
        for owner in self.owners:
            await owner._verify()
        for shard in leaving:
            self.slot_of[shard] = target

    async def succeed(self, number: int) -> None:
        """Have a new owner take an owner's place."""
        self.owners[number] = self._owner(number)
        await self._run(number)

    def exports(self) -> dict[int, TableSlice]:
        """What the owners know of each shard; every shard has one owner."""
        owned = [(shard, owner) for owner in self.owners for shard in owner.epochs]
        assert sorted(shard for shard, _ in owned) == list(range(SHARDS))
        for owner in self.owners:
            owner._tables.of(self._brand.id).advance(to_us(self._clock()))
        known = {o: o._tables.of(self._brand.id).shards() for o in self.owners}
        return {s: o._tables.of(self._brand.id).export(s) for s, o in owned if s in known[o]}

    def stop(self) -> None:
        """End the writers."""
        for writer in self._writers:
            writer.cancel()


@given(_cases(), st.data())
def test_moves_at_any_point_leave_the_bytes_of_a_table_that_never_moved(
    case: tuple[Brand, datetime, list[LoggedEvent]], data: st.DataObject
) -> None:
    brand, end, events = case
    clock = Clock(end - timedelta(days=1))
    busy = sorted({event.shard for event in events}) or [0]
    steps = st.sampled_from(["event", "event", "move", "loss", "death", "clock", "tidy"])

    async def play(crew: Crew) -> None:
        await crew.start()
        left = list(events)
        while left:
            match data.draw(steps):
                case "move" | "loss" as how:
                    shards = data.draw(st.lists(st.sampled_from(busy), min_size=1, unique=True))
                    target = data.draw(st.integers(0, OWNERS - 1))
                    await crew.move(shards, target, planned=how == "move")
                case "death":
                    await crew.succeed(data.draw(st.integers(0, OWNERS - 1)))
                case "clock":
                    clock.move(seconds=data.draw(st.integers(0, 10_000)))
                case "tidy":
                    for owner in crew.owners:
                        owner._tables.tidy()
                case _:
                    await crew.append(left.pop())

    async def run() -> dict[int, TableSlice]:
        crew = Crew(brand, clock)
        try:
            await play(crew)
            clock.move(seconds=max(0.0, (end - clock()).total_seconds()))
            return crew.exports()
        finally:
            crew.stop()

    found = asyncio.run(run())
    still = FeatureTable(brand.zone, to_us(clock()), features_of(brand))
    still.apply(EventColumns.of(events, still.features))
    assert found == {shard: still.export(shard) for shard in still.shards()}


@given(_cases(), st.data())
def test_tidying_beside_events_and_moves_changes_nothing(
    case: tuple[Brand, datetime, list[LoggedEvent]], data: st.DataObject
) -> None:
    brand, end, events = case
    clock = Clock(end)
    busy = sorted({event.shard for event in events}) or [0]
    tables, elsewhere = (ShardTables({brand.id: brand}, clock) for _ in range(2))
    gone: set[int] = set()
    for event in events:
        for shard in data.draw(st.sets(st.sampled_from(busy))):
            here, there = (elsewhere, tables) if shard in gone else (tables, elsewhere)
            there.take(shard, here)
            here.drop([shard])
            gone ^= {shard}
        for _ in range(data.draw(st.integers(0, 4))):
            tables.tidy()
        clock.move(seconds=data.draw(st.sampled_from([0, 1, 4_000, 90_000])))
        (elsewhere if event.shard in gone else tables).apply([event])
    while tables.tidy():
        pass
    for one in (tables, elsewhere):
        one.of(brand.id)
        one.advance()
    whole = FeatureTable(brand.zone, to_us(clock()), features_of(brand))
    whole.apply(EventColumns.of(events, whole.features))
    found = {
        shard: (elsewhere if shard in gone else tables).of(brand.id).export(shard) for shard in busy
    }
    assert found == {shard: whole.export(shard) for shard in busy}
    table = tables.of(brand.id)
    assert table.dead_rows <= len(table)
