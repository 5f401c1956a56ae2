"""Laws of new measures: an owner that learns of one late knows what it would have known always."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm.adapters.memory import MemoryEventLog, MemoryFiles, MemoryWatched
from crm.domain.brands import Brand
from crm.domain.errors import DatabaseAway, LogGap
from crm.domain.event_columns import EventColumns
from crm.domain.events import LoggedEvent
from crm.domain.feature_list import features_of
from crm.domain.feature_table import FeatureTable, TableSlice
from crm.domain.own_measures import OwnMeasure
from crm.domain.shards import SHARDS
from crm.domain.times import to_us
from crm.services import measure_backfill
from crm.services.measure_backfill import MeasureBackfill
from crm.services.shard_owner import ShardOwner, Stores
from crm.services.shard_snapshots import ShardSnapshot
from crm.services.shard_tables import ShardTables
from tests.support.builders import NOON, a_brand, a_logged_event
from tests.support.clock import Clock
from tests.support.histories import ENDS, brands, histories
from tests.support.own_measures import OWN

Part = tuple[Sequence[LoggedEvent], float]  # events, and seconds that pass after them


@dataclass(frozen=True)
class Case:
    """A brand that gets other measures; what happens before, while they are counted, and after."""

    brand: Brand
    then: tuple[OwnMeasure, ...]
    now: tuple[OwnMeasure, ...]
    begin: datetime
    parts: tuple[Part, Part, Part]
    prepared: bool
    stumbles: bool  # the database goes away once while the past is read


@st.composite
def _cases(draw: st.DrawFn) -> Case:
    brand, end = draw(brands()), draw(st.sampled_from(ENDS))
    events = draw(histories(brand, end, max_size=30))
    cuts = sorted(draw(st.lists(st.integers(0, len(events)), min_size=2, max_size=2)))
    pause = st.sampled_from([0.0, 1.0, 200.0, 3_600.0, 90_000.0])
    parts = (events[: cuts[0]], events[cuts[0] : cuts[1]], events[cuts[1] :])
    measures = st.lists(st.sampled_from(OWN), unique=True).map(tuple)
    return Case(
        brand=brand,
        then=draw(measures),
        now=draw(measures),
        begin=end - timedelta(seconds=draw(st.sampled_from([0, 300, 86_400]))),
        parts=tuple((part, draw(pause)) for part in parts),  # type: ignore[arg-type]  # three of three
        prepared=draw(st.booleans()),
        stumbles=draw(st.booleans()),
    )


class Stumbling:
    """A log whose past cannot be read to its end the first time."""

    def __init__(self, log: MemoryEventLog) -> None:
        self._log = log
        self._fails = True

    async def read_after(
        self, after: Mapping[int, int]
    ) -> AsyncIterator[list[tuple[int, LoggedEvent]]]:
        """Yield the first chunk, then fail; all of them from the second time on."""
        async for chunk in self._log.read_after(after):
            yield chunk
            if self._fails:
                self._fails = False
                raise DatabaseAway("the store is away")


@st.composite
def _near_the_clock(draw: st.DrawFn) -> Case:
    """A few events around the moment of the snapshots, some of them ahead of it."""
    seconds, pause = st.integers(-300, 290), st.sampled_from([0.0, 1.0, 100.0, 600.0])
    events = [
        a_logged_event(
            NOON, event_id=f"e{number}", type="custom.spin", amount=None, currency=None,
            player_id=f"p{number % 2}", properties={"x": 1, "tag": "1"},
            occurred_at=NOON + timedelta(seconds=draw(seconds)),
        )
        for number in range(6)
    ]  # fmt: skip
    parts = tuple((events[start : start + 2], draw(pause)) for start in (0, 2, 4))
    return Case(
        brand=a_brand(), then=(), now=OWN, begin=NOON,
        parts=parts,  # type: ignore[arg-type]  # three of three
        prepared=draw(st.booleans()), stumbles=draw(st.booleans()),
    )  # fmt: skip


async def _no_pause(_s: float) -> None:
    """Nobody of these tests is misled by a former owner."""


def _owner(
    case: Case, measures: tuple[OwnMeasure, ...], stores: Stores, clock: Clock
) -> ShardOwner:
    brand = replace(case.brand, measures=measures)
    return ShardOwner("owner", {brand.id: brand}, stores, clock, _no_pause)


async def _play(case: Case) -> tuple[dict[int, TableSlice], datetime]:
    """One owner with the measures of then hands its shards to one with those of now."""
    log, files, clock = MemoryEventLog(), MemoryFiles(), Clock(case.begin)
    stores = Stores(log, log, log, log, files, MemoryWatched())
    before = _owner(case, case.then, stores, clock)
    past = Stumbling(log) if case.stumbles else log
    after = _owner(case, case.now, replace(stores, past=past), clock)
    first, second, third = case.parts
    shards = sorted({event.shard for events, _ in case.parts for event in events}) or [0]
    await before.adopt(shards)
    writing = asyncio.create_task(before.write_forever())
    await _append(before, first, clock)
    for shard in shards:
        await before.snapshot(shard)
    if case.prepared:
        with suppress(DatabaseAway):
            await after.prepare(shards)
    await _append(before, second, clock)
    await before.release(shards)
    writing.cancel()
    with suppress(DatabaseAway):
        await after.adopt(shards, released=True)
    await after.adopt(shards, released=True)
    writing = asyncio.create_task(after.write_forever())
    await _append(after, third, clock)
    table = await after.table(case.brand.id)
    writing.cancel()
    return {shard: table.export(shard) for shard in shards}, clock()


async def _append(owner: ShardOwner, part: Part, clock: Clock) -> None:
    events, pause_s = part
    for event in events:
        assert await owner.append([[event]]) == [["accepted"]]
    clock.move(seconds=pause_s)


def _always(case: Case, at: datetime) -> FeatureTable:
    brand = replace(case.brand, measures=case.now)
    table = FeatureTable(brand.zone, to_us(at), features_of(brand))
    events = [event for events, _ in case.parts for event in events]
    table.apply(EventColumns.of(events, table.features))
    return table


@given(st.one_of(_cases(), _near_the_clock()))
def test_measures_that_come_later_are_what_they_would_have_been_from_the_first_event(
    case: Case,
) -> None:
    found, at = asyncio.run(_play(case))
    always = _always(case, at)
    assert found == {shard: always.export(shard) for shard in found}


async def test_an_event_that_a_quiet_shards_snapshot_keeps_for_later_counts_once() -> None:
    ahead = a_logged_event(occurred_at=NOON + timedelta(minutes=3), properties={"x": 1})
    measures = tuple(own for own in OWN if own.name == "spin_x")
    parts: tuple[Part, Part, Part] = (([ahead], 0.0), ([], 600.0), ([], 0.0))
    for prepared in (True, False):
        case = Case(a_brand(), (), measures, NOON, parts, prepared, stumbles=False)
        found, at = await _play(case)
        always = _always(case, at)
        assert found == {shard: always.export(shard) for shard in found}


async def test_a_past_that_lacks_an_event_is_never_counted_in_silence() -> None:
    brand = a_brand()
    log, files, clock = MemoryEventLog(), MemoryFiles(), Clock(NOON)
    stores = Stores(log, log, log, log, files, MemoryWatched())
    case = Case(brand, (), OWN[:1], NOON, (([], 0), ([], 0), ([], 0)), False, False)
    before, after = (_owner(case, measures, stores, clock) for measures in ((), OWN[:1]))
    await before.adopt(range(SHARDS))
    writing = asyncio.create_task(before.write_forever())
    events = [a_logged_event(event_id=f"e{n}", type="bet.settled",
                             properties={"result": "won", "x": 1.5}) for n in range(5)]  # fmt: skip
    await _append(before, (events, 0), clock)
    await before.release(range(SHARDS))
    writing.cancel()
    del log.events[events[0].shard][2]
    with pytest.raises(LogGap):
        await after.adopt(range(SHARDS), released=True)


def _forgets_those_that_waited(patch: pytest.MonkeyPatch) -> None:
    whole = MeasureBackfill.load

    def load(self: MeasureBackfill, snapshot: ShardSnapshot, tables: ShardTables) -> None:
        self._waiting[snapshot.shard].clear()
        whole(self, snapshot, tables)

    patch.setattr(MeasureBackfill, "load", load)


def _counts_what_the_snapshot_keeps_for_later(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(measure_backfill, "_kept_for_later", lambda _snapshots: set())


def _waits_for_its_own_clock_only(patch: pytest.MonkeyPatch) -> None:
    whole = MeasureBackfill._begin_or_go_on

    def begin(self: MeasureBackfill, snapshot: ShardSnapshot) -> None:
        whole(self, snapshot)
        self._clocks[snapshot.shard] = to_us(ENDS[-1]) * 2

    patch.setattr(MeasureBackfill, "_begin_or_go_on", begin)
    patch.setattr(measure_backfill, "_kept_for_later", lambda _snapshots: set())


def _begins_again_what_was_prepared(patch: pytest.MonkeyPatch) -> None:
    whole = MeasureBackfill.count

    async def count(self: MeasureBackfill, *args: Any) -> None:
        self._seqs = dict.fromkeys(self._seqs, 0)
        await whole(self, *args)

    patch.setattr(MeasureBackfill, "count", count)


def _goes_on_after_a_failure(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MeasureBackfill, "_forget", lambda _self, _shard: None)


@pytest.mark.parametrize(
    "plant",
    [_forgets_those_that_waited, _counts_what_the_snapshot_keeps_for_later,
     _waits_for_its_own_clock_only, _begins_again_what_was_prepared, _goes_on_after_a_failure],
    ids=lambda plant: plant.__name__.strip("_"),
)  # fmt: skip
def test_a_planted_bug_is_found(plant: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from hypothesis import HealthCheck, Phase, settings

    assert callable(plant)
    plant(monkeypatch)

    @settings(
        max_examples=300, phases=[Phase.generate], suppress_health_check=list(HealthCheck),
        deadline=None, database=None, derandomize=True,
    )  # fmt: skip
    @given(_near_the_clock())
    def check(case: Case) -> None:
        found, at = asyncio.run(_play(case))
        always = _always(case, at)
        assert found == {shard: always.export(shard) for shard in found}

    with pytest.raises((AssertionError, ExceptionGroup)):
        check()
