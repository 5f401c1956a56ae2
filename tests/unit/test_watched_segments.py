"""What owners load of saved segments: of each list their own shards' players, once a version."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from crm.adapters.memory import MemoryEventLog, MemoryFiles
from crm.adapters.memory_segments import MemorySegments
from crm.domain.saved_segments import ListReport, SavedSegment
from crm.domain.shards import SHARDS, shard_of
from crm.domain.times import to_us
from crm.services.shard_owner import ShardOwner
from crm.services.watched_segments import WatchedSegments
from tests.support.builders import NOON, a_brand, a_logged_event
from tests.support.clock import Clock
from tests.support.owners import an_owner

BRAND = a_brand()
PLAYERS = [f"p{n}" for n in range(40)]
SHARD = shard_of(BRAND.id, "p1")
OTHERS = [shard for shard in range(SHARDS) if shard != SHARD]


class CountedSegments(MemorySegments):
    """Notes what is read of lists: (list, shards)."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[tuple[str, set[int]]] = []

    async def players_of(self, segment: str, shards: Sequence[int]) -> dict[int, list[str]]:
        self.read.append((segment, set(shards)))
        return await super().players_of(segment, shards)


async def _add(store: MemorySegments, name: str, rule: str | None = None) -> None:
    kind = "list" if rule is None else "rule"
    await store.create(
        SavedSegment(name, BRAND.id, name, kind, 1, rule, NOON, NOON),  # type: ignore[arg-type]  # text
        PLAYERS if rule is None else (),
    )


async def _put(store: MemorySegments, name: str, players: Sequence[str]) -> None:
    report = ListReport(len(players), len(players), 0, 0, [], 0)
    await store.put_players(name, None, players, "replace", report, at=NOON)


def _source(store: MemorySegments) -> WatchedSegments:
    return WatchedSegments(store, {BRAND.id: BRAND})


async def test_an_owner_loads_the_players_of_its_own_shards() -> None:
    store = CountedSegments()
    await _add(store, "vip")
    live = await _source(store).live([SHARD])
    of_shard = {player for player in PLAYERS if shard_of(BRAND.id, player) == SHARD}
    assert live.lists[BRAND.id]["vip"] == of_shard
    assert store.read == [("vip", {SHARD})]


async def test_a_list_is_read_again_only_when_it_has_changed() -> None:
    store = CountedSegments()
    source = _source(store)
    await _add(store, "vip")
    await _add(store, "others")
    await source.live([SHARD])
    store.read.clear()
    await _add(store, "busy", "bet_count_7d > 1")
    first = await source.live([SHARD])
    assert store.read == []
    await _put(store, "vip", ["p1"])
    second = await source.live([SHARD])
    assert store.read == [("vip", {SHARD})]
    assert second.lists[BRAND.id]["vip"] == {"p1"}
    assert second.lists[BRAND.id]["others"] == first.lists[BRAND.id]["others"]


async def test_shards_that_arrive_bring_their_own_players_alone() -> None:
    store = CountedSegments()
    source = _source(store)
    await _add(store, "vip")
    await source.live(OTHERS)
    live = await source.live(range(SHARDS))
    assert store.read == [("vip", set(OTHERS)), ("vip", {SHARD})]
    assert live.lists[BRAND.id]["vip"] == set(PLAYERS)


async def test_an_archived_list_is_forgotten() -> None:
    store = CountedSegments()
    source = _source(store)
    await _add(store, "vip")
    await source.live([SHARD])
    await store.archive("vip", None, NOON)
    assert (await source.live([SHARD])).lists == {}
    assert source._loaded == {}


# --- owners -------------------------------------------------------------------------------------


async def _bet(owner: ShardOwner, clock: Clock, event_id: str, player: str = "p1") -> None:
    event = a_logged_event(
        event_id=event_id, player_id=player, occurred_at=clock(), received_at=clock()
    )
    assert await owner.append([[event]]) == [["accepted"]]


async def _tell(owner: ShardOwner, clock: Clock) -> None:
    await owner._tell_until(to_us(clock()))


async def test_a_shard_that_arrives_is_on_its_lists_before_anything_is_told_of_it() -> None:
    clock, store, log, files = Clock(NOON), CountedSegments(), MemoryEventLog(), MemoryFiles()
    await _add(store, "vip")
    await _add(store, "idle vip", 'list "vip" and days_since_last_bet >= 1')
    async with (
        an_owner(log, clock, files=files, segments=_source(store), name="giving") as giving,
        an_owner(
            log, clock, files=files, segments=_source(store), name="taking", shards=OTHERS[:9]
        ) as taking,
    ):
        await giving.release(OTHERS[:9])
        await _bet(giving, clock, "1")
        clock.move(hours=24)
        await _tell(giving, clock)
        read = len(store.read)
        await taking.adopt(await giving.release([SHARD]), released=True)
        assert store.read[read:] == [("vip", {SHARD})]
        await _tell(taking, clock)
        assert [one.entered for one in log.transitions.values()] == [True]
        await _bet(taking, clock, "2")
        clock.move(hours=24)
        await _tell(taking, clock)
    told = [(one.entered, one.seq) for one in log.transitions.values()]
    assert told == [(True, None), (False, 2), (True, None)]


async def test_segments_learned_for_fewer_shards_never_take_the_place_of_those_for_more() -> None:
    clock, store, log = Clock(NOON), CountedSegments(), MemoryEventLog()
    await _add(store, "vip")
    async with an_owner(log, clock, segments=_source(store), shards=OTHERS) as owner:
        owner._wanted = {SHARD}  # on its way, not claimed yet
        await _put(store, "vip", PLAYERS[:20])
        await owner._learn_segments()  # the beat's
        owner._wanted = set()
        assert owner._live is not None
        assert owner._live[1].lists[BRAND.id]["vip"] == set(PLAYERS[:20])


async def test_a_table_that_takes_anothers_place_has_the_lists_of_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("crm.services.shard_tables.MANY_DEAD", -1)
    clock, store, log = Clock(NOON), CountedSegments(), MemoryEventLog()
    await _add(store, "vip")
    async with an_owner(log, clock, segments=_source(store)) as owner:
        for player in PLAYERS:
            await _bet(owner, clock, player, player)
        await owner.release(OTHERS)
        assert owner._tables.tidy()  # begins a copy
        await _put(store, "vip", ["p1"])
        await owner._learn_segments()
        await owner._commit([])
        while owner._tables.tidy():
            pass
        assert owner._tables.of(BRAND.id).dead_rows == 0
        assert owner._tables.of(BRAND.id).lists == {"vip": {"p1"}}
