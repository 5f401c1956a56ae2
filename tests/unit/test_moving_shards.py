"""Shards come to an owner and go from it while it serves others, over the log's twin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress

import pytest

from crm.adapters.memory import MemoryEventLog, MemoryFiles, MemoryWatched
from crm.domain.appending import Group
from crm.domain.errors import DatabaseAway, ShardsWarming
from crm.domain.events import LoggedEvent
from crm.domain.ports import Appended, Claim
from crm.domain.shards import SHARDS
from crm.domain.telling import SILENCE, Telling
from crm.services import shard_owner
from crm.services.shard_owner import ShardOwner, Stores
from tests.support.builders import NOON, a_brand, a_logged_event
from tests.support.clock import Clock
from tests.support.owners import an_owner, features_of_all

ALL = set(range(SHARDS))
HERE = set(range(128))
THERE = ALL - HERE
PLAYERS = 60


class SlowLog(MemoryEventLog):
    """The twin with a hand on its history, and a look at what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = asyncio.Event()
        self.released = asyncio.Event()
        self.released.set()
        self.replayed = 0
        self.history_away = False

    async def read_after(
        self, after: Mapping[int, int]
    ) -> AsyncIterator[list[tuple[int, LoggedEvent]]]:
        self.reading.set()
        await self.released.wait()
        if self.history_away:
            raise DatabaseAway("away")
        async for chunk in super().read_after(after):
            self.replayed += len(chunk)
            yield chunk

    def hold(self) -> None:
        """Let the next reader wait."""
        self.reading.clear()
        self.released.clear()


@pytest.fixture
def log() -> SlowLog:
    """An empty log."""
    return SlowLog()


@pytest.fixture
def noon() -> Clock:
    """A clock that stands at noon."""
    return Clock(NOON)


def _events(count: int, start: int = 0) -> list[LoggedEvent]:
    return [
        a_logged_event(event_id=f"e{n}", player_id=f"p{n % PLAYERS}")
        for n in range(start, start + count)
    ]


async def _append(owner: ShardOwner, events: Sequence[LoggedEvent]) -> list[str]:
    return [verdict for (verdict,) in await owner.append([[event] for event in events])]


async def _bets(owner: ShardOwner) -> dict[str, int]:
    found = await features_of_all(owner)
    return {player: values["bet_count_lifetime"] for player, values in found.items()}


def _within(events: Sequence[LoggedEvent], shards: set[int]) -> list[LoggedEvent]:
    return [event for event in events if event.shard in shards]


async def test_an_owner_serves_its_shards_while_others_arrive(log: SlowLog, noon: Clock) -> None:
    async with an_owner(log, noon, name="former") as former:
        await _append(former, _events(2 * PLAYERS))
    async with an_owner(log, noon, shards=HERE) as owner:
        log.hold()
        adopting = asyncio.create_task(owner.adopt(THERE))
        await log.reading.wait()
        more = _events(PLAYERS, start=2 * PLAYERS)
        assert set(await _append(owner, _within(more, HERE))) == {"accepted"}
        assert set(await _append(owner, _within(more, THERE))) == {"moved"}
        assert set((await _bets(owner)).values()) == {3}
        assert set(owner.epochs) == HERE
        log.released.set()
        await adopting
        assert set(owner.epochs) == ALL
        assert set(await _append(owner, _within(more, THERE))) == {"accepted"}
        assert await _bets(owner) == {f"p{n}": 3 for n in range(PLAYERS)}


async def test_an_adoption_keeps_off_the_writers_connection(log: SlowLog, noon: Clock) -> None:
    class Writer(MemoryEventLog):
        async def claim(self, shards: Sequence[int], owner: str) -> dict[int, Claim]:
            raise AssertionError("the writer would wait")

        async def read_after(
            self, after: Mapping[int, int]
        ) -> AsyncIterator[list[tuple[int, LoggedEvent]]]:
            raise AssertionError("the writer would wait")
            yield []

    async with an_owner(log, noon, name="former") as former:
        await _append(former, _events(PLAYERS))
    stores = Stores(Writer(), Writer(), log, log, MemoryFiles(), MemoryWatched())
    owner = ShardOwner("owner", {"demo": a_brand()}, stores, noon)
    await owner.adopt(ALL, released=True)
    assert await _bets(owner) == {f"p{n}": 1 for n in range(PLAYERS)}


async def test_no_read_sees_a_part_of_a_shard_that_arrives(log: SlowLog, noon: Clock) -> None:
    events = _events(5 * PLAYERS)
    shard_of = {event.player_id: event.shard for event in events}
    async with an_owner(log, noon, name="former") as former:
        await _append(former, events)
    async with an_owner(log, noon, shards=HERE) as owner:
        adopting = asyncio.create_task(owner.adopt(THERE))
        seen = set()
        while not adopting.done():
            bets = await _bets(owner)
            assert bets == {p: 5 for p, shard in shard_of.items() if owner.owns(shard)}
            seen.add(len(bets))
            await asyncio.sleep(0)
        await adopting
        assert len(seen) > 10  # they did come one by one


async def test_a_release_leaves_a_fresh_snapshot_and_is_no_stale_write(
    log: SlowLog, noon: Clock
) -> None:
    files, events = MemoryFiles(), _events(2 * PLAYERS)
    async with (
        an_owner(log, noon, files=files, name="former") as former,
        an_owner(log, noon, files=files, name="other", shards=()) as other,
    ):
        await _append(former, events)
        released = await former.release(THERE)
        assert set(released) == THERE
        assert set(former.epochs) == HERE
        more = _events(PLAYERS, start=2 * PLAYERS)
        assert set(await _append(former, _within(more, THERE))) == {"moved"}
        assert log.stale_refusals == 0
        log.replayed = 0
        await other.adopt(released, released=True)
        assert log.replayed == 0
        assert await _append(other, _within(events, THERE)) == ["duplicate"] * len(
            _within(events, THERE)
        )
        assert await _bets(former) == {e.player_id: 2 for e in _within(events, HERE)}
        assert await _bets(other) == {e.player_id: 2 for e in _within(events, THERE)}


async def test_a_release_tells_only_what_was_owned_until_then(log: SlowLog, noon: Clock) -> None:
    async with an_owner(log, noon, shards={1, 2, 3}) as owner:
        await log.claim([2], "another")
        assert await owner.release([1, 2, 4]) == [1]
        assert set(owner.epochs) == {3}


async def test_a_shard_whose_owner_has_let_go_is_not_waited_for(log: SlowLog, noon: Clock) -> None:
    waits: list[float] = []

    async def wait(wait_s: float) -> None:
        waits.append(wait_s)

    await log.claim(sorted(ALL), "former")
    stores = Stores(log, log, log, log, MemoryFiles(), MemoryWatched())
    owner = ShardOwner("owner", {"demo": a_brand()}, stores, noon, wait)
    await owner.adopt(HERE, released=True)
    assert waits == []
    await owner.adopt(THERE)
    assert len(waits) == 1
    assert shard_owner.LEASE_S / 2 < waits[0] <= shard_owner.LEASE_S


async def test_a_commit_under_way_at_the_release_is_not_lost(noon: Clock) -> None:
    class Held(SlowLog):
        async def append(
            self, epochs: Mapping[int, int], groups: Sequence[Group], telling: Telling = SILENCE
        ) -> Appended:
            appended = await super().append(epochs, groups, telling)
            held.set()
            await go_on.wait()  # committed, and the owner does not know yet
            return appended

    log, held, go_on, event = Held(), asyncio.Event(), asyncio.Event(), a_logged_event()
    async with (
        an_owner(log, noon, name="former") as former,
        an_owner(log, noon, name="other", shards=()) as other,
    ):
        caller = asyncio.create_task(_append(former, [event]))
        await held.wait()
        await other.adopt(await former.release([event.shard]), released=True)
        go_on.set()
        assert await caller == ["accepted"]
        assert await _bets(former) == {}
        assert await _bets(other) == {"p1": 1}


async def test_a_shard_that_went_and_came_back_during_its_commit_counts_it_once(
    noon: Clock,
) -> None:
    class Slow(SlowLog):
        async def append(
            self, epochs: Mapping[int, int], groups: Sequence[Group], telling: Telling = SILENCE
        ) -> Appended:
            appended = await super().append(epochs, groups, telling)
            await owner.release([event.shard])
            await owner.adopt([event.shard])  # replays what was just committed
            return appended

    log, event = Slow(), a_logged_event()
    async with an_owner(log, noon) as owner:
        assert await _append(owner, [event]) == ["accepted"]
        assert await _bets(owner) == {"p1": 1}
        assert owner.heads[event.shard] == 1


async def test_shards_that_arrive_while_a_commit_is_in_doubt_disturb_nothing(noon: Clock) -> None:
    class Slow(SlowLog):
        settling = False

        async def read_after(
            self, after: Mapping[int, int]
        ) -> AsyncIterator[list[tuple[int, LoggedEvent]]]:
            if self.settling:
                self.settling = False
                await owner.adopt(THERE)
                await owner.release(some)
            async for chunk in super().read_after(after):
                yield chunk

    log, events = Slow(), _within(_events(PLAYERS), HERE)
    some = {events[0].shard}
    async with an_owner(log, noon, shards=HERE) as owner:
        log.lose_commit, log.settling = "after", True
        verdicts = await _append(owner, events)
        assert verdicts == ["moved" if event.shard in some else "accepted" for event in events]
        assert set(owner.epochs) == ALL - some
        assert await _bets(owner) == {e.player_id: 1 for e in events if e.shard not in some}


async def test_a_shard_that_another_claims_while_it_arrives_is_not_served(
    log: SlowLog, noon: Clock
) -> None:
    events = _events(PLAYERS)
    async with an_owner(log, noon, name="former") as former:
        await _append(former, events)
    async with an_owner(log, noon, shards=HERE) as owner:
        log.hold()
        adopting = asyncio.create_task(owner.adopt(THERE))
        await log.reading.wait()
        lost = {event.shard for event in _within(events, THERE)}
        await log.claim(sorted(lost), "another")
        await owner._verify()  # as the beat does
        log.released.set()
        await adopting
        assert set(owner.epochs) == ALL - lost
        assert await _bets(owner) == {event.player_id: 1 for event in _within(events, HERE)}


async def test_first_shards_that_another_claims_while_they_arrive_are_not_served(
    log: SlowLog, noon: Clock
) -> None:
    async with an_owner(log, noon, name="former") as former:
        await _append(former, _events(PLAYERS))
    async with an_owner(log, noon, shards=()) as owner:
        log.hold()
        adopting = asyncio.create_task(owner.adopt(ALL))
        await log.reading.wait()
        await log.claim(sorted(THERE), "another")
        await owner._verify()
        log.released.set()
        await adopting
        assert set(owner.epochs) == HERE
        assert await _bets(owner) == {e.player_id: 1 for e in _within(_events(PLAYERS), HERE)}


async def test_an_answer_from_before_the_claim_loses_no_shard(noon: Clock) -> None:
    class Late(SlowLog):
        async def epochs(self) -> dict[int, int]:
            """Answer what was true before the latest claim."""
            return {shard: epoch - 1 for shard, epoch in (await super().epochs()).items()}

    async with an_owner(Late(), noon) as owner:
        await owner._verify()
        assert set(owner.epochs) == ALL


async def test_an_adoption_that_fails_takes_nothing_away_and_may_be_tried_again(
    log: SlowLog, noon: Clock
) -> None:
    async with an_owner(log, noon, shards=HERE) as owner:
        await _append(owner, _within(_events(PLAYERS), HERE))
        before = await _bets(owner)
        log.history_away = True
        with pytest.raises(DatabaseAway):
            await owner.adopt(THERE)
        assert (await _bets(owner), set(owner.epochs)) == (before, HERE)
        log.history_away = False
        await owner.adopt(ALL)
        assert (await _bets(owner), set(owner.epochs)) == (before, ALL)
        assert {owner.epochs[shard] for shard in HERE} == {1}  # what it had, it kept


async def test_an_owner_that_has_lost_all_adopts_nothing(log: SlowLog, noon: Clock) -> None:
    async with an_owner(log, noon) as owner:
        owner.give_up()
        with pytest.raises(ShardsWarming, match="about to leave"):
            await owner.adopt({1})


async def test_an_owner_without_shards_answers_nothing_and_stays(log: SlowLog, noon: Clock) -> None:
    async with an_owner(log, noon, shards=(1,)) as owner:
        await owner.release([1])
        with pytest.raises(ShardsWarming):
            await owner.table("demo")
        assert not owner.lost_all.is_set()
        await owner.adopt({2})
        with suppress(TimeoutError):
            await asyncio.wait_for(owner.beat_forever(), 0.01)
        assert set(owner.epochs) == {2}
