"""The shard owner over the log's twin: commits, doubts, losses."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta

import pytest

from crm.adapters.memory import MemoryEventLog, MemoryFiles, MemoryWatched
from crm.domain.appending import Group
from crm.domain.errors import (
    BrandNotFound,
    CommitUnknown,
    DatabaseAway,
    ShardsWarming,
)
from crm.domain.ports import Appended
from crm.domain.shards import SHARDS
from crm.domain.telling import SILENCE, Telling
from crm.services import shard_owner
from crm.services.shard_owner import ShardOwner, Stores
from tests.support.builders import NOON, a_brand, a_door, a_logged_event, an_event
from tests.support.clock import Clock
from tests.support.owners import an_owner, appending, bets_of, some_bets
from tests.support.wait import wait_for_async


class WatchedLog(MemoryEventLog):
    """The twin that lets a test hold a commit, lose several, and see what each one held."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[list[str]] = []
        self.held: asyncio.Event | None = None
        self.faults: list[str] = []  # what becomes of the next appends

    async def append(
        self, epochs: Mapping[int, int], groups: Sequence[Group], telling: Telling = SILENCE
    ) -> Appended:
        if self.held:
            await self.held.wait()
        fault = self.faults.pop(0) if self.faults else "none"
        if fault == "unforeseen":
            raise KeyError("a bug")
        if fault == "cut":
            raise DatabaseAway("cut")
        if fault in ("before", "after"):
            self.lose_commit = fault
        appended = await super().append(epochs, groups, telling)
        self.commits.append([event.event_id for event in appended.new])
        return appended


@pytest.fixture
def log() -> WatchedLog:
    """An empty log."""
    return WatchedLog()


@pytest.fixture
def noon() -> Clock:
    """A clock that stands at noon."""
    return Clock(NOON)


async def _settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


# --- group commit -------------------------------------------------------------------------------


async def test_callers_that_wait_share_one_commit_in_the_order_they_came(
    log: WatchedLog, noon: Clock
) -> None:
    async with an_owner(log, noon) as owner:
        log.held = asyncio.Event()
        callers = [appending(owner, event) for event in some_bets(5)]
        await _settled()
        callers += [appending(owner, event) for event in some_bets(5, start=5)]
        await _settled()
        log.held.set()
        assert await asyncio.gather(*callers) == [[["accepted"]]] * 10
    assert log.commits == [[f"e{n}" for n in range(5)], [f"e{n}" for n in range(5, 10)]]


async def test_a_commit_holds_a_bounded_number_of_events(log: WatchedLog, noon: Clock) -> None:
    async with an_owner(log, noon) as owner:
        callers = [appending(owner, *some_bets(1_500, start)) for start in (0, 1_500, 3_000)]
        await asyncio.gather(*callers)
    assert [len(commit) for commit in log.commits] == [3_000, 1_500]


async def test_without_coalescing_each_caller_has_a_commit(log: WatchedLog, noon: Clock) -> None:
    async with an_owner(log, noon) as owner:
        owner.max_batch = 1
        log.held = asyncio.Event()
        callers = [appending(owner, *some_bets(2, start)) for start in (0, 2, 4)]
        await _settled()
        log.held.set()
        await asyncio.gather(*callers)
    assert [len(commit) for commit in log.commits] == [2, 2, 2]


async def test_features_change_only_after_the_commit(log: WatchedLog, noon: Clock) -> None:
    async with an_owner(log, noon) as owner:
        log.held = asyncio.Event()
        caller = appending(owner, *some_bets(3))
        await _settled()
        assert not caller.done()
        assert await bets_of(owner) == {}
        log.held.set()
        await caller
        assert await bets_of(owner) == {"p0": 1, "p1": 1, "p2": 1}


async def test_a_full_queue_refuses_and_what_waits_is_stored(
    log: WatchedLog, noon: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_owner, "MAX_WAITING", 3)
    async with an_owner(log, noon) as owner:
        log.held = asyncio.Event()
        writing = appending(owner, *some_bets(1))
        await _settled()
        waiting = appending(owner, *some_bets(4, start=1))
        await _settled()
        with pytest.raises(ShardsWarming, match="queue is full"):
            await owner.append([some_bets(1, start=9)])
        log.held.set()
        await asyncio.gather(writing, waiting)
        assert await appending(owner, *some_bets(1, start=9)) == [["accepted"]]


async def test_a_caller_that_gives_up_does_not_stop_the_writer(
    log: WatchedLog, noon: Clock
) -> None:
    async with an_owner(log, noon) as owner:
        log.held = asyncio.Event()
        gone, stays = appending(owner, *some_bets(1)), appending(owner, *some_bets(1, start=1))
        await _settled()
        gone.cancel()
        log.held.set()
        assert await stays == [["accepted"]]
        assert await bets_of(owner) == {"p0": 1, "p1": 1}


# --- a commit of unknown outcome ----------------------------------------------------------------


@pytest.mark.parametrize("faults", [["before"], ["after"]])
async def test_a_commit_of_unknown_outcome_is_read_back_and_counts_once(
    log: WatchedLog, noon: Clock, faults: list[str]
) -> None:
    async with an_owner(log, noon) as owner:
        log.faults = faults
        assert await appending(owner, *some_bets(6)) == [["accepted"]] * 6
        assert await bets_of(owner) == {"p0": 2, "p1": 2, "p2": 2}
        assert await appending(owner, *some_bets(6)) == [["duplicate"]] * 6


@pytest.mark.parametrize("faults", [["after", "after"], ["before", "after"], ["after", "before"]])
async def test_a_second_unknown_outcome_in_a_row_loses_no_event_from_the_features(
    log: WatchedLog, noon: Clock, faults: list[str]
) -> None:
    async with an_owner(log, noon) as owner:
        log.faults = [*faults]
        with pytest.raises(CommitUnknown):
            await appending(owner, *some_bets(6))
        assert await appending(owner, *some_bets(3, start=6)) == [["accepted"]] * 3
        again = await appending(owner, *some_bets(6))
        assert {verdict for (verdict,) in again} <= {"accepted", "duplicate"}
        assert await bets_of(owner) == {"p0": 3, "p1": 3, "p2": 3}


async def test_after_an_unknown_outcome_only_the_new_is_told_as_accepted(
    log: WatchedLog, noon: Clock
) -> None:
    first, other = a_logged_event(), a_logged_event(type="custom.other")
    async with an_owner(log, noon) as owner:
        log.faults = ["after"]
        verdicts = await appending(owner, first, first, other)
    assert verdicts == [["accepted"], ["duplicate"], ["conflict"]]


async def test_nothing_is_answered_while_a_commit_is_in_doubt_and_nobody_need_write_to_settle_it(
    log: WatchedLog, noon: Clock
) -> None:
    async with an_owner(log, noon) as owner:
        log.faults = ["after", "after"]
        with pytest.raises(CommitUnknown):
            await appending(owner, *some_bets(3))
        log.away = True
        with pytest.raises(ShardsWarming, match="read back"):
            await owner.table("demo")
        log.away = False

        async def bets() -> dict[str, int]:
            with suppress(ShardsWarming):
                return await bets_of(owner)
            return {}

        found = await wait_for_async(bets, "the doubt is settled")
        assert found == {"p0": 1, "p1": 1, "p2": 1}


# --- a database that is away --------------------------------------------------------------------


async def test_a_database_that_is_away_fails_the_callers_and_later_appends_go_on(
    log: WatchedLog, noon: Clock
) -> None:
    async with an_owner(log, noon) as owner:
        log.away = True
        with pytest.raises(DatabaseAway):
            await appending(owner, *some_bets(3))
        log.away = False
        assert await appending(owner, *some_bets(3)) == [["accepted"]] * 3
        assert await bets_of(owner) == {"p0": 1, "p1": 1, "p2": 1}


async def test_a_connection_that_was_cut_before_the_commit_costs_no_caller_anything(
    log: WatchedLog, noon: Clock
) -> None:
    async with an_owner(log, noon) as owner:
        log.faults = ["cut"]
        assert await appending(owner, *some_bets(3)) == [["accepted"]] * 3
        assert await bets_of(owner) == {"p0": 1, "p1": 1, "p2": 1}


async def test_an_unforeseen_error_ends_the_ownership_and_no_caller_hangs(
    log: WatchedLog, noon: Clock
) -> None:
    async with an_owner(log, noon) as owner:
        log.faults = ["unforeseen"]
        with pytest.raises(ShardsWarming):
            await appending(owner, *some_bets(3))
        assert owner.lost_all.is_set()
        assert await appending(owner, *some_bets(3)) == [["moved"]] * 3
    async with an_owner(log, noon, name="successor") as successor:
        assert await appending(successor, *some_bets(3)) == [["accepted"]] * 3


# --- a successor --------------------------------------------------------------------------------


async def test_a_former_owner_writes_nothing_and_every_refusal_is_counted(
    log: WatchedLog, noon: Clock
) -> None:
    event = a_logged_event()
    async with an_owner(log, noon, name="former") as former:
        await log.claim([event.shard], "successor")
        assert await appending(former, event) == [["moved"]]
        assert log.stale_refusals == 1
        assert not former.owns(event.shard)
        # it knows by now, so the log sees no epoch to refuse: the write is counted all the same
        assert await appending(former, event) == [["moved"]]
        assert log.stale_refusals == 2
    assert log.commits == [[], []]


async def test_a_lost_shard_is_not_counted_and_the_others_go_on(
    log: WatchedLog, noon: Clock
) -> None:
    lost, kept = a_logged_event(event_id="a"), a_logged_event(event_id="b", player_id="p2")
    assert lost.shard != kept.shard
    async with an_owner(log, noon, name="former") as former:
        await appending(former, lost, kept)
        await log.claim([lost.shard], "successor")
        again = [
            a_logged_event(event_id=e.event_id * 2, player_id=e.player_id) for e in (lost, kept)
        ]
        assert await appending(former, *again) == [["moved"], ["accepted"]]
        assert await bets_of(former) == {"p2": 2}


async def test_a_shard_lost_while_its_commit_was_on_its_way_is_not_counted(
    log: WatchedLog, noon: Clock
) -> None:
    class SlowLog(WatchedLog):
        async def append(
            self, epochs: Mapping[int, int], groups: Sequence[Group], telling: Telling = SILENCE
        ) -> Appended:
            appended = await super().append(epochs, groups, telling)
            await self.claim(range(SHARDS), "successor")  # right after the commit
            await former._verify()  # as the beat does, before the answer is here
            return appended

    slow = SlowLog()
    async with an_owner(slow, noon, name="former") as former:
        assert await appending(former, *some_bets(3)) == [["accepted"]] * 3  # they are stored
        assert former.players == 0
        assert former.heads == {}


async def test_a_former_owner_is_not_believed_after_a_pause_of_its_clock(
    log: WatchedLog, noon: Clock
) -> None:
    async with an_owner(log, noon, name="former") as former:
        await appending(former, *some_bets(3))
        await log.claim(range(SHARDS), "successor")
        former._verified -= shard_owner.LEASE_S + 1  # what a SIGSTOP does
        with pytest.raises(ShardsWarming, match="another owner"):
            await former.table("demo")
        assert former.lost_all.is_set()


async def test_an_owner_that_nobody_calls_notices_that_it_lost_its_shards(
    log: WatchedLog, noon: Clock
) -> None:
    async with an_owner(log, noon, name="former") as former:
        await log.claim(range(SHARDS), "successor")
        await asyncio.wait_for(former.beat_forever(), 30)
        assert former.lost_all.is_set()


async def test_a_pause_while_the_database_is_away_answers_nothing(
    log: WatchedLog, noon: Clock
) -> None:
    async with an_owner(log, noon) as owner:
        await appending(owner, *some_bets(3))
        log.away = True
        assert await bets_of(owner) == {"p0": 1, "p1": 1, "p2": 1}  # no pause: it is believed
        owner._verified -= shard_owner.LEASE_S + 1
        with pytest.raises(DatabaseAway):
            await owner.table("demo")


async def test_a_question_from_the_future_is_refused(log: WatchedLog, noon: Clock) -> None:
    async with an_owner(log, noon) as owner:
        with pytest.raises(ShardsWarming, match="clock is ahead"):
            await owner.table("demo", NOON + timedelta(minutes=1))


async def test_a_successor_waits_until_no_former_owner_believes_itself(
    log: WatchedLog, noon: Clock
) -> None:
    waits: list[float] = []

    async def wait(wait_s: float) -> None:
        waits.append(wait_s)
        with pytest.raises(ShardsWarming):
            await owner.table("demo")

    stores = Stores(log, log, log, log, MemoryFiles(), MemoryWatched())
    for name in ("first", "successor"):
        owner = ShardOwner(name, {"demo": a_brand()}, stores, noon, wait)
        await owner.adopt(range(SHARDS))
    (waited_s,) = waits  # the first had nobody to wait for
    assert shard_owner.LEASE_S / 2 < waited_s <= shard_owner.LEASE_S


async def test_events_of_a_brand_that_the_owner_does_not_know_are_refused_before_the_log(
    log: WatchedLog, noon: Clock
) -> None:
    async with an_owner(log, noon) as owner:
        later = a_brand(id="made-later")
        stranger = a_door(later).accept(an_event(brand=later.id), NOON)
        with pytest.raises(BrandNotFound, match="made-later"):
            await owner.append([[a_logged_event()], [stranger]])
        assert log.commits == []
        assert await appending(owner, *some_bets(1)) == [["accepted"]]


async def test_who_stops_during_a_commit_vouches_for_nothing(noon: Clock) -> None:
    class HeldLog(WatchedLog):
        async def append(
            self, epochs: Mapping[int, int], groups: Sequence[Group], telling: Telling = SILENCE
        ) -> Appended:
            appended = await super().append(epochs, groups, telling)
            committed.set()
            await asyncio.Event().wait()  # the answer never comes
            return appended

    log, committed, (event,) = HeldLog(), asyncio.Event(), some_bets(1)
    stores = Stores(log, log, log, log, MemoryFiles(), MemoryWatched())
    owner = ShardOwner("owner", {"demo": a_brand()}, stores, noon)
    await owner.adopt(range(SHARDS), released=True)
    writing, waiting = asyncio.create_task(owner.write_forever()), appending(owner, event)
    await committed.wait()
    for task in (writing, waiting):
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await owner.snapshot(event.shard)
    assert await log.snapshots(range(SHARDS)) == []
