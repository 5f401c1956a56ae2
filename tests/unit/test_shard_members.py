"""Owners tell who enters and leaves: once, whatever becomes of them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from crm.adapters.memory import MemoryEventLog, MemoryFiles, MemoryWatched
from crm.domain.membership import Watched, WatchedSegment
from crm.domain.rule_text import parse
from crm.domain.shards import SHARDS, shard_of
from crm.domain.times import to_us
from crm.services.shard_owner import ShardOwner
from tests.support.builders import NOON, a_brand, a_logged_event
from tests.support.clock import Clock
from tests.support.owners import an_owner

BRAND = a_brand()
DAY = timedelta(days=1)
SHARD = shard_of(BRAND.id, "p1")


def _watched(rule: str, version: int = 1) -> Watched:
    return Watched({BRAND.id: [WatchedSegment("s", version, parse(rule, BRAND))]})


@pytest.fixture
def noon() -> Clock:
    """A clock that stands at noon."""
    return Clock(NOON)


@pytest.fixture
def idle() -> MemoryWatched:
    """One segment: whoever has not bet for a day."""
    return MemoryWatched(_watched("days_since_last_bet >= 1"))


async def _bet(owner: ShardOwner, clock: Clock, event_id: str = "e") -> None:
    event = a_logged_event(event_id=event_id, occurred_at=clock(), received_at=clock())
    assert await owner.append([[event]]) == [["accepted"]]


def _told(log: MemoryEventLog) -> list[tuple[bool, int | None]]:
    return [(one.entered, one.seq) for one in log.transitions.values()]


async def _tell(owner: ShardOwner, clock: Clock) -> None:
    await owner._tell_until(to_us(clock()))


async def test_what_a_dead_owner_has_told_is_not_told_again(
    noon: Clock, idle: MemoryWatched
) -> None:
    log, files = MemoryEventLog(), MemoryFiles()
    async with an_owner(log, noon, files=files, segments=idle, name="a") as owner:
        await _bet(owner, noon)
        noon.move(hours=24)
        await _tell(owner, noon)
    assert _told(log) == [(True, None)]
    async with an_owner(log, noon, files=files, segments=idle, name="b") as owner:
        await _tell(owner, noon)
        assert _told(log) == [(True, None)]
        await _bet(owner, noon, "again")
        assert _told(log) == [(True, None), (False, 2)]


async def test_what_a_dead_owner_had_not_told_its_successor_tells(
    noon: Clock, idle: MemoryWatched
) -> None:
    log = MemoryEventLog()
    async with an_owner(log, noon, segments=idle, name="a") as owner:
        await _bet(owner, noon)
        noon.move(hours=30)
        await owner.table(BRAND.id)  # the clock of the features goes on, and nothing is told yet
    async with an_owner(log, noon, segments=idle, name="b") as owner:
        await _tell(owner, noon)
    (one,) = log.transitions.values()
    assert (one.entered, one.seq, one.at) == (True, None, NOON + DAY)


async def test_a_snapshot_is_never_ahead_of_what_is_told(noon: Clock, idle: MemoryWatched) -> None:
    log, files = MemoryEventLog(), MemoryFiles()
    async with an_owner(log, noon, files=files, segments=idle, name="a") as owner:
        await _bet(owner, noon)
        noon.move(hours=30)
        await owner.table(BRAND.id)
        await owner.snapshot(SHARD)
    async with an_owner(log, noon, files=files, segments=idle, name="b") as owner:
        await _tell(owner, noon)
    assert _told(log) == [(True, None)]


@pytest.mark.parametrize("lost", ["before", "after"])
async def test_a_commit_of_unknown_outcome_tells_once(
    noon: Clock, idle: MemoryWatched, lost: str
) -> None:
    log = MemoryEventLog()
    async with an_owner(log, noon, segments=idle) as owner:
        await _bet(owner, noon)
        noon.move(hours=24)
        log.lose_commit = lost
        await _tell(owner, noon)
        assert _told(log) == [(True, None)]
        log.lose_commit = lost
        await _bet(owner, noon, "again")
        assert _told(log) == [(True, None), (False, 2)]
        noon.move(hours=24)
        await _tell(owner, noon)
    assert _told(log) == [(True, None), (False, 2), (True, None)]


async def test_a_shard_that_moves_takes_its_members_along(noon: Clock, idle: MemoryWatched) -> None:
    log, files = MemoryEventLog(), MemoryFiles()
    async with (
        an_owner(log, noon, files=files, segments=idle, name="giving") as giving,
        an_owner(log, noon, files=files, segments=idle, name="taking", shards=[0]) as taking,
    ):
        await _bet(giving, noon)
        noon.move(hours=24)
        await _tell(giving, noon)
        await taking.adopt(await giving.release([SHARD]), released=True)
        await _bet(taking, noon, "again")
        assert _told(log) == [(True, None), (False, 2)]
        noon.move(hours=24)
        await _tell(giving, noon)
        await _tell(taking, noon)
    assert _told(log) == [(True, None), (False, 2), (True, None)]


async def test_a_former_owner_tells_nothing(noon: Clock, idle: MemoryWatched) -> None:
    log = MemoryEventLog()
    async with an_owner(log, noon, segments=idle, name="former") as former:
        await _bet(former, noon)
        async with an_owner(log, noon, segments=idle, name="owner") as owner:
            noon.move(hours=24)
            refused = log.stale_refusals
            await _tell(former, noon)
            assert log.transitions == {}
            assert log.stale_refusals > refused
            await _tell(owner, noon)
    assert _told(log) == [(True, None)]


async def test_an_edit_changes_members_and_tells_nothing(noon: Clock, idle: MemoryWatched) -> None:
    log = MemoryEventLog()
    async with an_owner(log, noon, segments=idle) as owner:
        await _bet(owner, noon)
        idle.set(_watched("bet_count_lifetime >= 1", 2))
        await owner._learn_segments()
        await _tell(owner, noon)
        await _bet(owner, noon, "again")
        assert log.transitions == {}
        idle.set(_watched("bet_count_lifetime >= 3", 3))
        await owner._learn_segments()
        await _bet(owner, noon, "third")
    assert _told(log) == [(True, 3)]


async def test_an_edit_swallows_nothing_that_is_due_elsewhere(
    noon: Clock, idle: MemoryWatched
) -> None:
    log = MemoryEventLog()
    async with an_owner(log, noon, segments=idle) as owner:
        noon.move(minutes=30)
        await _bet(owner, noon)
        noon.move(hours=23, minutes=50)
        await _tell(owner, noon)
        noon.move(minutes=10)  # no hour and no day ends: the wheel alone knows
        await owner.table(BRAND.id)  # the clock of the features has gone on
        other = WatchedSegment("other", 1, parse("bet_count_lifetime >= 1", BRAND))
        idle.set(
            Watched({BRAND.id: [*_watched("days_since_last_bet >= 1").segments[BRAND.id], other]})
        )
        await owner._learn_segments()
        await _tell(owner, noon)
    assert [(one.segment, one.entered) for one in log.transitions.values()] == [("s", True)]


async def test_without_live_segments_nothing_is_noted(noon: Clock, idle: MemoryWatched) -> None:
    async with an_owner(MemoryEventLog(), noon, segments=idle) as owner:
        await _bet(owner, noon)
        idle.set(Watched())
        await owner._learn_segments()
        await _bet(owner, noon, "again")
        assert (await owner.table(BRAND.id)).moved is None


async def test_a_table_without_its_dead_rows_has_the_same_members(
    noon: Clock, idle: MemoryWatched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crm.services.shard_tables.MANY_DEAD", -1)
    log, files = MemoryEventLog(), MemoryFiles()
    async with an_owner(log, noon, files=files, segments=idle) as owner:
        for number in range(20):
            event = a_logged_event(event_id=f"e{number}", player_id=f"p{number}")
            await owner.append([[event]])
        noon.move(hours=24)
        await _tell(owner, noon)
        await owner.release([s for s in range(SHARDS) if s != SHARD])
        while owner._tables.tidy():
            pass
        assert owner._tables.of(BRAND.id).dead_rows == 0
        await _bet(owner, noon, "again")
        noon.move(hours=24)
        await _tell(owner, noon)
        told = [one for one in log.transitions.values() if one.player_id == "p1"]
    assert [(one.entered, one.seq) for one in told] == [(True, None), (False, 2), (True, None)]
