"""The shard owner over the log's twin: commits, doubts, losses, recovery."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest

from crm.adapters.memory import MemoryEventLog, MemoryFiles
from crm.domain.appending import Group
from crm.domain.errors import (
    BrandNotFound,
    CommitUnknown,
    DatabaseAway,
    LogGap,
    ShardsWarming,
)
from crm.domain.events import LoggedEvent
from crm.domain.own_measures import OwnMeasure
from crm.domain.ports import Appended
from crm.domain.shards import SHARDS
from crm.services import shard_owner, shard_snapshots
from crm.services.shard_owner import ShardOwner, Stores
from crm.services.shard_snapshots import ShardSnapshot
from tests.support.builders import NOON, a_brand, a_door, a_logged_event, an_event
from tests.support.clock import Clock
from tests.support.own_measures import OWN
from tests.support.owners import an_owner, features_of_all
from tests.support.wait import wait_for_async


class WatchedLog(MemoryEventLog):
    """The twin that lets a test hold a commit, lose several, and see what each one held."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[list[str]] = []
        self.held: asyncio.Event | None = None
        self.faults: list[str] = []  # what becomes of the next appends

    async def append(self, epochs: Mapping[int, int], groups: Sequence[Group]) -> Appended:
        if self.held:
            await self.held.wait()
        fault = self.faults.pop(0) if self.faults else "none"
        if fault == "unforeseen":
            raise KeyError("a bug")
        if fault == "cut":
            raise DatabaseAway("cut")
        if fault in ("before", "after"):
            self.lose_commit = fault
        appended = await super().append(epochs, groups)
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


def _events(count: int, start: int = 0) -> list[LoggedEvent]:
    return [
        a_logged_event(event_id=f"e{n}", player_id=f"p{n % 3}") for n in range(start, start + count)
    ]


def _append(owner: ShardOwner, *events: LoggedEvent) -> asyncio.Task[list[list[str]]]:
    async def append() -> list[list[str]]:
        return [list(verdicts) for verdicts in await owner.append([[event] for event in events])]

    return asyncio.create_task(append())


async def _settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def _bets(owner: ShardOwner) -> dict[str, int]:
    found = await features_of_all(owner)
    return {player: values["bet_count_lifetime"] for player, values in found.items()}


# --- group commit -------------------------------------------------------------------------------


async def test_callers_that_wait_share_one_commit_in_the_order_they_came(
    log: WatchedLog, noon: Clock
) -> None:
    async with an_owner(log, noon) as owner:
        log.held = asyncio.Event()
        callers = [_append(owner, event) for event in _events(5)]
        await _settled()
        callers += [_append(owner, event) for event in _events(5, start=5)]
        await _settled()
        log.held.set()
        assert await asyncio.gather(*callers) == [[["accepted"]]] * 10
    assert log.commits == [[f"e{n}" for n in range(5)], [f"e{n}" for n in range(5, 10)]]


async def test_a_commit_holds_a_bounded_number_of_events(log: WatchedLog, noon: Clock) -> None:
    async with an_owner(log, noon) as owner:
        callers = [_append(owner, *_events(1_500, start)) for start in (0, 1_500, 3_000)]
        await asyncio.gather(*callers)
    assert [len(commit) for commit in log.commits] == [3_000, 1_500]


async def test_without_coalescing_each_caller_has_a_commit(log: WatchedLog, noon: Clock) -> None:
    async with an_owner(log, noon) as owner:
        owner.max_batch = 1
        log.held = asyncio.Event()
        callers = [_append(owner, *_events(2, start)) for start in (0, 2, 4)]
        await _settled()
        log.held.set()
        await asyncio.gather(*callers)
    assert [len(commit) for commit in log.commits] == [2, 2, 2]


async def test_features_change_only_after_the_commit(log: WatchedLog, noon: Clock) -> None:
    async with an_owner(log, noon) as owner:
        log.held = asyncio.Event()
        caller = _append(owner, *_events(3))
        await _settled()
        assert not caller.done()
        assert await _bets(owner) == {}
        log.held.set()
        await caller
        assert await _bets(owner) == {"p0": 1, "p1": 1, "p2": 1}


async def test_a_full_queue_refuses_and_what_waits_is_stored(
    log: WatchedLog, noon: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_owner, "MAX_WAITING", 3)
    async with an_owner(log, noon) as owner:
        log.held = asyncio.Event()
        writing = _append(owner, *_events(1))
        await _settled()
        waiting = _append(owner, *_events(4, start=1))
        await _settled()
        with pytest.raises(ShardsWarming, match="queue is full"):
            await owner.append([_events(1, start=9)])
        log.held.set()
        await asyncio.gather(writing, waiting)
        assert await _append(owner, *_events(1, start=9)) == [["accepted"]]


async def test_a_caller_that_gives_up_does_not_stop_the_writer(
    log: WatchedLog, noon: Clock
) -> None:
    async with an_owner(log, noon) as owner:
        log.held = asyncio.Event()
        gone, stays = _append(owner, *_events(1)), _append(owner, *_events(1, start=1))
        await _settled()
        gone.cancel()
        log.held.set()
        assert await stays == [["accepted"]]
        assert await _bets(owner) == {"p0": 1, "p1": 1}


# --- a commit of unknown outcome ----------------------------------------------------------------


@pytest.mark.parametrize("faults", [["before"], ["after"]])
async def test_a_commit_of_unknown_outcome_is_read_back_and_counts_once(
    log: WatchedLog, noon: Clock, faults: list[str]
) -> None:
    async with an_owner(log, noon) as owner:
        log.faults = faults
        assert await _append(owner, *_events(6)) == [["accepted"]] * 6
        assert await _bets(owner) == {"p0": 2, "p1": 2, "p2": 2}
        assert await _append(owner, *_events(6)) == [["duplicate"]] * 6


@pytest.mark.parametrize("faults", [["after", "after"], ["before", "after"], ["after", "before"]])
async def test_a_second_unknown_outcome_in_a_row_loses_no_event_from_the_features(
    log: WatchedLog, noon: Clock, faults: list[str]
) -> None:
    async with an_owner(log, noon) as owner:
        log.faults = [*faults]
        with pytest.raises(CommitUnknown):
            await _append(owner, *_events(6))
        assert await _append(owner, *_events(3, start=6)) == [["accepted"]] * 3
        again = await _append(owner, *_events(6))
        assert {verdict for (verdict,) in again} <= {"accepted", "duplicate"}
        assert await _bets(owner) == {"p0": 3, "p1": 3, "p2": 3}


async def test_after_an_unknown_outcome_only_the_new_is_told_as_accepted(
    log: WatchedLog, noon: Clock
) -> None:
    first, other = a_logged_event(), a_logged_event(type="custom.other")
    async with an_owner(log, noon) as owner:
        log.faults = ["after"]
        verdicts = await _append(owner, first, first, other)
    assert verdicts == [["accepted"], ["duplicate"], ["conflict"]]


async def test_nothing_is_answered_while_a_commit_is_in_doubt_and_nobody_need_write_to_settle_it(
    log: WatchedLog, noon: Clock
) -> None:
    async with an_owner(log, noon) as owner:
        log.faults = ["after", "after"]
        with pytest.raises(CommitUnknown):
            await _append(owner, *_events(3))
        log.away = True
        with pytest.raises(ShardsWarming, match="read back"):
            await owner.table("demo")
        log.away = False

        async def bets() -> dict[str, int]:
            with suppress(ShardsWarming):
                return await _bets(owner)
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
            await _append(owner, *_events(3))
        log.away = False
        assert await _append(owner, *_events(3)) == [["accepted"]] * 3
        assert await _bets(owner) == {"p0": 1, "p1": 1, "p2": 1}


async def test_a_connection_that_was_cut_before_the_commit_costs_no_caller_anything(
    log: WatchedLog, noon: Clock
) -> None:
    async with an_owner(log, noon) as owner:
        log.faults = ["cut"]
        assert await _append(owner, *_events(3)) == [["accepted"]] * 3
        assert await _bets(owner) == {"p0": 1, "p1": 1, "p2": 1}


async def test_an_unforeseen_error_ends_the_ownership_and_no_caller_hangs(
    log: WatchedLog, noon: Clock
) -> None:
    async with an_owner(log, noon) as owner:
        log.faults = ["unforeseen"]
        with pytest.raises(ShardsWarming):
            await _append(owner, *_events(3))
        assert owner.lost_all.is_set()
        assert await _append(owner, *_events(3)) == [["moved"]] * 3
    async with an_owner(log, noon, name="successor") as successor:
        assert await _append(successor, *_events(3)) == [["accepted"]] * 3


# --- a successor --------------------------------------------------------------------------------


async def test_a_former_owner_writes_nothing_and_every_refusal_is_counted(
    log: WatchedLog, noon: Clock
) -> None:
    event = a_logged_event()
    async with an_owner(log, noon, name="former") as former:
        await log.claim([event.shard], "successor")
        assert await _append(former, event) == [["moved"]]
        assert log.stale_refusals == 1
        assert not former.owns(event.shard)
        # it knows by now, so the log sees no epoch to refuse: the write is counted all the same
        assert await _append(former, event) == [["moved"]]
        assert log.stale_refusals == 2
    assert log.commits == [[], []]


async def test_a_lost_shard_is_not_counted_and_the_others_go_on(
    log: WatchedLog, noon: Clock
) -> None:
    lost, kept = a_logged_event(event_id="a"), a_logged_event(event_id="b", player_id="p2")
    assert lost.shard != kept.shard
    async with an_owner(log, noon, name="former") as former:
        await _append(former, lost, kept)
        await log.claim([lost.shard], "successor")
        again = [
            a_logged_event(event_id=e.event_id * 2, player_id=e.player_id) for e in (lost, kept)
        ]
        assert await _append(former, *again) == [["moved"], ["accepted"]]
        assert await _bets(former) == {"p2": 2}


async def test_a_shard_lost_while_its_commit_was_on_its_way_is_not_counted(
    log: WatchedLog, noon: Clock
) -> None:
    class SlowLog(WatchedLog):
        async def append(self, epochs: Mapping[int, int], groups: Sequence[Group]) -> Appended:
            appended = await super().append(epochs, groups)
            await self.claim(range(SHARDS), "successor")  # right after the commit
            await former._verify()  # as the beat does, before the answer is here
            return appended

    slow = SlowLog()
    async with an_owner(slow, noon, name="former") as former:
        assert await _append(former, *_events(3)) == [["accepted"]] * 3  # they are stored
        assert former.players == 0
        assert former.heads == {}


async def test_a_former_owner_is_not_believed_after_a_pause_of_its_clock(
    log: WatchedLog, noon: Clock
) -> None:
    async with an_owner(log, noon, name="former") as former:
        await _append(former, *_events(3))
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
        await _append(owner, *_events(3))
        log.away = True
        assert await _bets(owner) == {"p0": 1, "p1": 1, "p2": 1}  # no pause: it is believed
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

    stores = Stores(log, log, log, log, MemoryFiles())
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
        assert await _append(owner, *_events(1)) == [["accepted"]]


# --- recovery -----------------------------------------------------------------------------------


async def _with_snapshots(log: WatchedLog, noon: Clock, files: MemoryFiles) -> dict[str, int]:
    """Two snapshots of each shard with events and a tail after them; returns the bets."""
    async with an_owner(log, noon, files=files, name="former") as former:
        for start in (0, 30, 60):
            await _append(former, *_events(30, start))
            if start < 60:
                for shard in {event.shard for event in _events(3)}:
                    await former.snapshot(shard)
        return await _bets(former)


class CountedLog(WatchedLog):
    """Counts what a replay reads."""

    replayed = 0

    async def read_after(
        self, after: Mapping[int, int]
    ) -> AsyncIterator[list[tuple[int, LoggedEvent]]]:
        async for chunk in super().read_after(after):
            self.replayed += len(chunk)
            yield chunk


async def test_snapshot_and_replay_give_what_was_never_stopped(noon: Clock) -> None:
    log, files = CountedLog(), MemoryFiles()
    before = await _with_snapshots(log, noon, files)
    async with an_owner(log, noon, files=files, name="successor") as successor:
        assert await _bets(successor) == before == {"p0": 30, "p1": 30, "p2": 30}
        assert log.replayed == 30  # above the newest snapshots only


@pytest.mark.parametrize(
    ("damaged", "replayed"), [("newest", 60), ("all", 90), ("missing", 90), ("flipped bit", 90)]
)
async def test_a_damaged_snapshot_falls_back_to_an_older_one_or_to_the_log(
    noon: Clock, damaged: str, replayed: int
) -> None:
    log, files = CountedLog(), MemoryFiles()
    before = await _with_snapshots(log, noon, files)
    for name, data in list(files.files.items()):
        seq = int(name.partition("-")[2].partition(".")[0])
        if damaged == "missing":
            files.delete(name)
        elif damaged == "flipped bit":
            files.write(name, data[:-6] + bytes([data[-6] ^ 1]) + data[-5:])
        elif damaged == "all" or seq == 20:
            files.write(name, data[: len(data) // 2])
    async with an_owner(log, noon, files=files, name="successor") as successor:
        assert await _bets(successor) == before
        assert log.replayed == replayed


async def test_a_snapshot_of_another_list_of_features_is_replaced_by_the_log(
    noon: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, files = CountedLog(), MemoryFiles()
    before = await _with_snapshots(log, noon, files)
    monkeypatch.setattr(shard_snapshots, "_MAGIC", b"crmshard2 of a later list")
    async with an_owner(log, noon, files=files, name="successor") as successor:
        assert await _bets(successor) == before
        assert log.replayed == 90


def _cashouts(count: int) -> list[LoggedEvent]:
    return [
        a_logged_event(
            event_id=f"won{n}",
            type="bet.settled",
            player_id=f"p{n % 3}",
            properties={"result": "won", "x": 1.5},
        )
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("before", "after", "replayed"),
    [
        (OWN[:1], OWN[:1], 3),
        (OWN[:2], OWN[:1], 3),  # one is gone: the others stay readable
        (OWN[:2], (), 3),
        ((OWN[1], OWN[0]), OWN[:2], 3),
        # one is new: it alone is counted over all 9, and no zero is served for what was before
        ((), OWN[:1], 12),
        (OWN[:1], (OWN[1], OWN[0]), 12),
        ((replace(OWN[0], decimals=1),), OWN[:1], 12),  # the name alone is not enough
    ],
)
async def test_a_snapshot_is_read_whatever_measures_it_has(
    noon: Clock,
    before: tuple[OwnMeasure, ...],
    after: tuple[OwnMeasure, ...],
    replayed: int,
) -> None:
    log, files = CountedLog(), MemoryFiles()
    events = _cashouts(9)
    then, now = ({"demo": a_brand(measures=measures)} for measures in (before, after))
    async with an_owner(log, noon, files=files, brands=then) as former:
        await _append(former, *events[:6])
        for shard in {event.shard for event in events}:
            await former.snapshot(shard)
        await _append(former, *events[6:])
    async with an_owner(log, noon, files=files, brands=now) as successor:
        found = await features_of_all(successor)
        assert log.replayed == replayed
        for player in ("p0", "p1", "p2"):
            assert found[player]["win_count_lifetime"] == 3
            if after:
                assert found[player]["mean_cashout_lifetime"] == 150
            if len(after) == 2:
                assert found[player]["spin_x_sum_lifetime"] == 0


async def test_a_former_owners_snapshot_is_not_believed(noon: Clock) -> None:
    log, files = CountedLog(), MemoryFiles()
    async with an_owner(log, noon, files=files, name="former") as former:
        await _append(former, *_events(3))
        await log.claim(range(SHARDS), "other")
        for shard in list(former.epochs):
            await former.snapshot(shard)
    async with an_owner(log, noon, files=files, name="successor"):
        assert log.replayed == 3


async def test_an_event_that_the_log_lost_is_a_gap_at_the_start(
    log: WatchedLog, noon: Clock
) -> None:
    events = [a_logged_event(event_id=f"e{n}") for n in range(3)]
    async with an_owner(log, noon) as owner:
        await _append(owner, *events)

    class Forgetful(WatchedLog):
        lost = 2

        async def read_after(
            self, after: Mapping[int, int]
        ) -> AsyncIterator[list[tuple[int, LoggedEvent]]]:
            async for chunk in log.read_after(after):
                yield [(seq, event) for seq, event in chunk if seq != self.lost]

    for lost in (1, 2, 3):  # the first, one in the middle, the last that was acknowledged
        forgetful = Forgetful()
        forgetful.events, forgetful.lost = log.events, lost
        with pytest.raises(LogGap):
            async with an_owner(forgetful, noon):
                pass


async def test_an_event_that_the_log_has_twice_is_refused_at_the_start(
    log: WatchedLog, noon: Clock
) -> None:
    async with an_owner(log, noon) as owner:
        await _append(owner, *[a_logged_event(event_id=f"e{n}") for n in range(4)])

    class Stuttering(WatchedLog):
        async def read_after(
            self, after: Mapping[int, int]
        ) -> AsyncIterator[list[tuple[int, LoggedEvent]]]:
            async for chunk in log.read_after(after):
                events = [event for _, event in chunk]
                yield list(zip((1, 1, 4, 4), events, strict=True))  # as many, and of the same sum

    stuttering = Stuttering()
    stuttering.events = log.events
    with pytest.raises(LogGap, match="twice"):
        async with an_owner(stuttering, noon):
            pass


async def test_a_flipped_bit_of_a_snapshot_never_changes_what_it_says(
    log: WatchedLog, noon: Clock
) -> None:
    files = MemoryFiles()
    await _with_snapshots(log, noon, files)
    (data, *_) = files.files.values()
    for place in range(len(data)):
        damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with suppress(ValueError):  # else the bit meant nothing
            assert ShardSnapshot.decode(damaged) == ShardSnapshot.decode(data)


async def test_a_snapshot_keeps_an_event_ahead_of_the_clock_whose_player_did_nothing_yet(
    noon: Clock,
) -> None:
    log, files = MemoryEventLog(), MemoryFiles()
    event = a_logged_event(occurred_at=NOON + timedelta(minutes=4))
    async with an_owner(log, noon, files=files) as owner:
        await owner.append([[event]])
        await owner.snapshot(event.shard)
        assert await features_of_all(owner) == {}
    noon.move(minutes=5)
    async with an_owner(log, noon, files=files) as successor:
        assert (await features_of_all(successor))["p1"]["bet_count_lifetime"] == 1
