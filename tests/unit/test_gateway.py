"""The gateway over fake owners: what it believes, and what it asks again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from actors import gateway as module
from actors.gateway import ShardGateway
from actors.owners import Routes, Slot
from actors.processes import Handle
from actors.wire import (
    AppendCall,
    CountPart,
    FeaturesOf,
    KnownPart,
    MembersPart,
    OwnerState,
    PlayersPart,
    TotalsPart,
    decode_count_call,
    encode,
)
from crm.adapters.memory import MemoryEventLog
from crm.domain.day_totals import SUMMED, Days, DayTotals
from crm.domain.errors import CrmError, PlayerNotFound, ShardsWarming
from crm.domain.ports import ClusterCount, Explained, PlayerFeatures, TermCount
from crm.domain.rules import Exists
from crm.domain.saved_segments import Why
from crm.domain.shards import SHARDS, shards_of_slot
from crm.domain.times import from_us, to_us
from tests.support.builders import NOON, a_brand, a_logged_event

BRAND = a_brand()
RULE = Exists("first_bet_at")


@dataclass(frozen=True)
class _Method:
    """What of an actor's method the gateway uses."""

    call: Callable[..., Awaitable[Any]]

    def remote(self, *args: Any) -> Awaitable[Any]:
        """Call it."""
        return self.call(*args)


@dataclass
class FakeOwner:
    """An owner's answers; `ahead_us` is how far its clock is past the moment asked for, once."""

    slot: int
    epoch: int = 1
    ahead_us: int = 0
    reached_us: int = 0  # where its clock is whatever it is asked
    moved: bool = False
    of_former_times: bool = False  # answers features as of the epoch before
    asked_us: list[int] = field(default_factory=list)
    shards: list[int] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)  # groups of each append
    reads: list[int] = field(default_factory=list)  # players of each call for features
    taken: int = 0

    def __post_init__(self) -> None:
        self.shards = list(shards_of_slot(self.slot, 2))

    @property
    def epochs(self) -> dict[int, int]:
        """What it says that it owns."""
        return dict.fromkeys(self.shards, self.epoch)

    @property
    def count(self) -> _Method:
        """Count one player, at the later of the moment asked for and its own."""

        async def count(call: bytes) -> bytes:
            as_of_us = decode_count_call(call).as_of_us
            self.asked_us.append(as_of_us)
            ahead, self.ahead_us = self.ahead_us, 0
            terms = [TermCount(1, 9 + self.slot)]
            at_us = max(as_of_us + ahead, self.reached_us)
            clusters = [ClusterCount(1, 1)]
            part = CountPart(at_us, self.epochs, 1, 10, [f"p{self.slot}"], terms, clusters)
            return encode(part)

        return _Method(count)

    @property
    def members(self) -> _Method:
        """Return its first players: even ones are the first owner's, odd ones the other's."""

        async def members(
            _brand: object, _rule: str, after: str, limit: int, as_of_us: int
        ) -> MembersPart:
            mine = [f"p{n}" for n in range(10) if n % 2 == self.slot and f"p{n}" > after]
            return MembersPart(as_of_us, self.epochs, mine[:limit])

        return _Method(members)

    @property
    def known(self) -> _Method:
        """Know one player of those asked for."""

        async def known(_brand: str, player_ids: Sequence[str], as_of_us: int) -> KnownPart:
            return KnownPart(as_of_us, self.epochs, f"p{self.slot}" in player_ids)

        return _Method(known)

    @property
    def explain(self) -> _Method:
        """Explain in its own epoch."""

        async def explain(_brand: object, _rule: str, player: str, shard: int) -> Explained:
            epoch = self.epoch - self.of_former_times
            if not player.startswith("p"):
                raise PlayerNotFound("no such player")
            return Explained(shard, epoch, NOON, Why("list", holds=True))

        return _Method(explain)

    @property
    def day_totals(self) -> _Method:
        """One player was active, and bet so many times as the slot's number and one."""

        async def day_totals(
            _brand: object, asked: Days, spans: Sequence[Days], as_of_us: int
        ) -> TotalsPart:
            by_day = [self.slot + 1] * len(asked.days)
            totals = DayTotals(dict.fromkeys(SUMMED, by_day), by_day, by_day, [1] * len(spans))
            return TotalsPart(as_of_us, self.epochs, totals)

        return _Method(day_totals)

    @property
    def features(self) -> _Method:
        """Answer in its own epoch."""

        async def features(asked: Sequence[FeaturesOf]) -> list[PlayerFeatures | CrmError]:
            self.reads.append(len(asked))
            epoch = self.epoch - self.of_former_times
            return [
                PlayerFeatures(one.brand, one.player_id, one.shard, epoch, NOON, {})
                if one.player_id.startswith("p")
                else PlayerNotFound("no such player")
                for one in asked
            ]

        return _Method(features)

    @property
    def of_players(self) -> _Method:
        """Tell each player's number, of players with one, at the moment asked for or its own."""

        async def of_players(
            _brand: str, asked: Sequence[FeaturesOf], names: Sequence[str], as_of_us: int | None
        ) -> PlayersPart:
            self.asked_us.append(as_of_us or 0)
            self.reads.append(len(asked))
            ahead, self.ahead_us = self.ahead_us, 0
            at_us = to_us(NOON) if as_of_us is None else max(as_of_us + ahead, self.reached_us)
            numbers = [int(one.player_id[1:]) for one in asked if one.player_id.startswith("p")]
            known = np.array([one.player_id.startswith("p") for one in asked])
            epochs = {one.shard: self.epoch - self.of_former_times for one in asked}
            values = np.array([numbers] * len(names), np.int64)
            return PlayersPart(at_us, epochs, known, values, values == 7)

        return _Method(of_players)

    @property
    def append(self) -> _Method:
        """Take everything, or nothing once it has lost its shards."""

        async def append(call: bytes) -> bytes:
            groups = msgspec.msgpack.decode(call, type=AppendCall).groups
            self.calls.append(len(groups))
            self.taken += 0 if self.moved else len(groups)
            return encode([["moved" if self.moved else "accepted"]] * len(groups))

        return _Method(append)


class Supervised:
    """Two owners and their routes; `successor` replaces one of them at the next question."""

    def __init__(self) -> None:
        self.owners = [FakeOwner(0), FakeOwner(1)]
        self.successors: dict[int, FakeOwner] = {}
        self.log = MemoryEventLog()
        self.asked = 0
        self.later: Routes | None = None  # what the second question finds instead
        self.slot_of = tuple(shard % 2 for shard in range(SHARDS))

    async def routes(self) -> Routes:
        """Return who owns what; the second question finds the successors."""
        self.asked += 1
        if self.asked > 1:
            for slot, owner in self.successors.items():
                self.owners[slot] = owner
            if self.later is not None:
                return self.later
        slots = {number: _slot(owner) for number, owner in enumerate(self.owners)}
        return Routes(slots, self.slot_of)


def _slot(owner: FakeOwner) -> Slot:
    name = f"owner-{owner.slot}-{owner.epoch}"
    state = OwnerState(True, owner.epochs, 1)
    return Slot(name, cast("Handle", owner), state, frozenset(owner.shards))


@pytest.fixture
async def system(monkeypatch: pytest.MonkeyPatch) -> Supervised:
    """Two owners that hold the epochs of the log."""
    monkeypatch.setattr(module, "WAIT_S", 0.3)
    monkeypatch.setattr(module, "PAUSE_S", 0.01)
    supervised = Supervised()
    await supervised.log.claim(range(SHARDS), "owners")
    return supervised


def _gateway(system: Supervised) -> ShardGateway:
    return ShardGateway({BRAND.id: BRAND}, system.log, system.routes)


async def test_totals_by_day_are_the_sums_of_owners_that_hold_every_shard(
    system: Supervised,
) -> None:
    asked = Days(700_000, 700_001)
    _, found = await _gateway(system).day_totals(BRAND.id, asked, [asked])
    assert found.sums == {name: [3, 3] for name in SUMMED}
    assert (found.new, found.churned, found.active) == ([3, 3], [3, 3], [2])
    system.owners[1].epoch = 0
    with pytest.raises(ShardsWarming):
        await _gateway(system).day_totals(BRAND.id, asked, [asked])


async def test_a_count_is_the_sum_of_owners_that_hold_every_shard_in_its_epoch(
    system: Supervised,
) -> None:
    found = await _gateway(system).count(BRAND.id, RULE)
    assert (found.count, found.total, found.sample) == (2, 20, ["p0", "p1"])
    assert found.terms == [TermCount(2, 19)]
    assert found.clusters == [ClusterCount(1, 2)]


@pytest.mark.parametrize("fault", ["former epoch", "a shard short", "a shard twice"])
async def test_a_count_that_does_not_hold_every_shard_once_is_not_believed(
    system: Supervised, fault: str
) -> None:
    if fault == "former epoch":
        await system.log.claim([7], "a successor that nobody told of")
    elif fault == "a shard short":
        system.owners[0].shards.pop()
    else:
        system.owners[0].shards.append(1)
    with pytest.raises(ShardsWarming, match="not every shard"):
        await _gateway(system).count(BRAND.id, RULE)


async def test_owners_that_are_past_the_moment_are_asked_again_at_a_later_one(
    system: Supervised,
) -> None:
    system.owners[1].ahead_us = 5_000_000
    found = await _gateway(system).count(BRAND.id, RULE)
    first, second = system.owners[0].asked_us
    assert system.owners[1].asked_us == [first, second]
    assert second > first + 5_000_000
    assert found.as_of == from_us(second)


async def test_an_answer_of_a_former_epoch_is_dropped_and_asked_again(system: Supervised) -> None:
    system.owners[0].of_former_times = True
    system.successors = {0: FakeOwner(0, epoch=2)}
    player = next(f"p{n}" for n in range(99) if a_logged_event(player_id=f"p{n}").shard % 2 == 0)
    assert (await _gateway(system).features(BRAND.id, player)).epoch == 2


NUMBERED = [f"p{n}" for n in range(20)]


async def test_many_players_features_come_in_their_order_at_one_moment(system: Supervised) -> None:
    system.owners[1].ahead_us = 5_000_000
    asked = ["nobody", *NUMBERED, "p3"]
    found = await _gateway(system).of_players(BRAND.id, asked, ["a", "b"])
    assert found.known.tolist() == [False, *[True] * 21]
    for name in ("a", "b"):
        assert found.values[name].tolist() == [0, *range(20), 3]
        assert np.flatnonzero(found.missing[name]).tolist() == [8]
    first, second = system.owners[0].asked_us
    assert system.owners[1].asked_us == [first, second]  # it was past the first moment
    assert second > first + 5_000_000
    assert found.as_of == from_us(second)
    assert sum(system.owners[n].reads[-1] for n in (0, 1)) == len(asked)


async def test_players_of_one_owner_are_read_at_its_own_now(system: Supervised) -> None:
    mine = [p for p in NUMBERED if a_logged_event(player_id=p).shard % 2 == 0]
    found = await _gateway(system).of_players(BRAND.id, mine, ["a"])
    assert found.values["a"].tolist() == [int(player[1:]) for player in mine]
    assert system.owners[0].asked_us == [0]
    assert system.owners[1].asked_us == []
    nobody = await _gateway(system).of_players(BRAND.id, [], ["a"])
    assert nobody.values["a"].tolist() == nobody.known.tolist() == []


async def test_many_players_of_a_former_epoch_are_dropped_and_asked_for_again(
    system: Supervised,
) -> None:
    system.owners[0].of_former_times = True
    with pytest.raises(ShardsWarming, match="former owner"):
        await _gateway(system).of_players(BRAND.id, NUMBERED, ["a"])
    system.successors = {0: FakeOwner(0, epoch=2)}
    found = await _gateway(system).of_players(BRAND.id, NUMBERED, ["a"])
    assert found.values["a"].tolist() == list(range(20))
    assert system.owners[0].epoch == 2


async def test_reads_that_wait_share_a_call_and_one_unknown_player_spoils_no_other(
    system: Supervised,
) -> None:
    gateway = _gateway(system)
    asked = [gateway.features(BRAND.id, player) for player in ("p1", "nobody", "p2", "p3", "p4")]
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(found.pop(1), PlayerNotFound)
    assert [isinstance(one, PlayerFeatures) and one.player_id for one in found] == [
        "p1", "p2", "p3", "p4",
    ]  # fmt: skip
    reads = system.owners[0].reads + system.owners[1].reads
    assert sum(reads) == 5
    assert len(reads) < 5


async def test_what_is_moved_goes_to_the_successor(system: Supervised) -> None:
    system.owners[0].moved = system.owners[1].moved = True
    system.successors = {0: FakeOwner(0, epoch=2), 1: FakeOwner(1, epoch=2)}
    events = [a_logged_event(event_id=f"e{n}", player_id=f"p{n}") for n in range(8)]
    verdicts = await _gateway(system).append([[event] for event in events])
    assert verdicts == [["accepted"]] * 8


@pytest.mark.parametrize(("coalesce", "calls"), [(True, [1, 4]), (False, [1] * 5)])
async def test_requests_share_calls_unless_coalescing_is_off(
    system: Supervised, coalesce: bool, calls: list[int]
) -> None:
    gateway = ShardGateway({BRAND.id: BRAND}, system.log, system.routes, coalesce=coalesce)
    events = [a_logged_event(event_id=f"e{n}") for n in range(5)]
    await asyncio.gather(*[gateway.append([[event]]) for event in events])
    owner = system.owners[events[0].shard % 2]
    assert owner.calls == calls


async def test_what_stays_moved_is_told_as_warming(system: Supervised) -> None:
    system.owners[0].moved = system.owners[1].moved = True
    with pytest.raises(ShardsWarming):
        await _gateway(system).append([[a_logged_event()]])


async def test_what_is_moved_goes_to_the_slot_that_the_map_says_by_then(
    system: Supervised,
) -> None:
    system.owners[0].moved = True
    third = FakeOwner(2, epoch=2)
    slots = {1: _slot(system.owners[1]), 2: _slot(third)}
    system.later = Routes(slots, tuple(2 - shard % 2 for shard in range(SHARDS)))
    events = [a_logged_event(event_id=f"e{n}", player_id=f"p{n}") for n in range(8)]
    assert {event.shard % 2 for event in events} == {0, 1}
    verdicts = await _gateway(system).append([[event] for event in events])
    assert verdicts == [["accepted"]] * 8
    assert third.taken == sum(event.shard % 2 == 0 for event in events)
    assert system.owners[1].taken == sum(event.shard % 2 for event in events)  # none of them twice


async def test_a_slot_that_was_given_up_is_not_asked_and_the_next_is(system: Supervised) -> None:
    gateway = _gateway(system)
    await gateway.routes()
    system.later = Routes({1: _slot(system.owners[1])}, (1,) * SHARDS)
    await gateway.routes()
    with pytest.raises(ShardsWarming, match="another owner"):
        await gateway._ask(0, lambda owner: owner.features.remote([]))
    player = next(f"p{n}" for n in range(99) if a_logged_event(player_id=f"p{n}").shard % 2 == 0)
    assert (await gateway.features(BRAND.id, player)).epoch == 1


async def test_a_count_asks_no_owner_to_which_no_shard_belongs(system: Supervised) -> None:
    class Idle(FakeOwner):
        @property
        def count(self) -> _Method:
            """Refuse, as an owner without shards does."""

            async def refuse(*_: object) -> CountPart:
                raise ShardsWarming("these shards may have another owner; try again")

            return _Method(refuse)

    slots = {0: _slot(system.owners[0]), 1: _slot(system.owners[1]), 2: _slot(Idle(2))}
    system.asked, system.later = 1, Routes(slots, system.slot_of)
    assert (await _gateway(system).count(BRAND.id, RULE)).count == 2


async def test_a_page_of_members_is_merged_in_order_from_what_each_owner_has(
    system: Supervised,
) -> None:
    gateway = _gateway(system)
    found = await gateway.members(BRAND.id, "exists first_bet_at", "p1", 3)
    assert found.player_ids == ["p2", "p3", "p4"]
    found = await gateway.members(BRAND.id, "exists first_bet_at", "", 99)
    assert found.player_ids == [f"p{n}" for n in range(10)]
    assert await gateway.known(BRAND.id, ["p0", "p1", "p2"]) == 2
    assert await gateway.known(BRAND.id, ["p1", "x"]) == 1


async def test_members_of_a_former_epoch_are_not_believed(system: Supervised) -> None:
    await system.log.claim([7], "a successor that nobody told of")
    with pytest.raises(ShardsWarming, match="not every shard"):
        await _gateway(system).members(BRAND.id, "exists first_bet_at", "", 3)
    with pytest.raises(ShardsWarming, match="not every shard"):
        await _gateway(system).known(BRAND.id, ["p1"])


async def test_an_explanation_of_a_former_epoch_is_dropped_and_asked_again(
    system: Supervised,
) -> None:
    system.owners[0].of_former_times = True
    system.successors = {0: FakeOwner(0, epoch=2)}
    player = next(f"p{n}" for n in range(99) if a_logged_event(player_id=f"p{n}").shard % 2 == 0)
    gateway = _gateway(system)
    assert (await gateway.explain(BRAND.id, "exists first_bet_at", player)).epoch == 2
    with pytest.raises(PlayerNotFound):
        await gateway.explain(BRAND.id, "exists first_bet_at", "nobody")


async def test_counts_that_overlap_propose_one_moment(system: Supervised) -> None:
    times = [NOON + timedelta(microseconds=later) for later in (0, 1, module.LEAD_US - 1)]
    gateway = ShardGateway({BRAND.id: BRAND}, system.log, system.routes, now=iter(times).__next__)
    for at in times:
        await gateway.count(BRAND.id, RULE)
        assert system.owners[0].asked_us[-1] > to_us(at) + module.LEAD_US
    assert len(set(system.owners[0].asked_us)) == 1


async def test_after_a_moment_that_was_past_already_the_next_are_further_ahead(
    system: Supervised,
) -> None:
    gateway = ShardGateway({BRAND.id: BRAND}, system.log, system.routes, now=lambda: NOON)
    owner = system.owners[1]
    owner.reached_us = to_us(NOON) + 5 * module.LEAD_US  # when the question has come to it
    for _ in range(2):
        assert (await gateway.count(BRAND.id, RULE)).as_of >= from_us(owner.reached_us)
    first, second, third = owner.asked_us  # one was in vain
    assert first < owner.reached_us < min(second, third)
    owner.reached_us = 0
    for _ in range(20):
        await gateway.count(BRAND.id, RULE)
    assert owner.asked_us[-1] == first
