"""The laws of the store of saved segments, on the twin in memory and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest

from crm.adapters import memory_segments
from crm.adapters.memory_segments import MemorySegments
from crm.adapters.postgres import segments as postgres_segments
from crm.adapters.postgres.segments import open_segments
from crm.domain.errors import (
    DatabaseAway,
    InvalidRule,
    InvalidSegment,
    KeyReused,
    SegmentArchived,
    SegmentChanged,
    SegmentInUse,
    SegmentNameTaken,
    SegmentNotFound,
    ShardsWarming,
    TooLarge,
)
from crm.domain.ports import Count
from crm.domain.rules import Rule
from crm.domain.saved_segments import (
    ListReport,
    LiveSegment,
    Once,
    SavedSegment,
    SegmentSize,
    SegmentVersion,
)
from crm.domain.shards import SHARDS, shard_of
from crm.services.saved_segments import SavedSegments
from crm.services.segment_store import SegmentStore
from tests.support.builders import NOON, a_brand
from tests.support.local_shards import LocalShards
from tests.support.wait import wait_for_async

BRAND = a_brand()
RULE, OTHER = "bet_count_7d > 1", "bet_count_7d > 2"
REPORT = ListReport(3, 3, 0, 0, [], 1)
ALL = range(SHARDS)


def later(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def a_segment(**changes: Any) -> SavedSegment:
    fields: dict[str, Any] = {
        "id": "s1",
        "brand": "demo",
        "name": "Big players",
        "kind": "rule",
        "version": 1,
        "rule": RULE,
        "created_at": NOON,
        "changed_at": NOON,
        "size": SegmentSize(NOON, 1, 7),
    }
    return SavedSegment(**(fields | changes))


def a_list(**changes: Any) -> SavedSegment:
    return a_segment(**({"kind": "list", "rule": None, "size": None} | changes))


def asked(request: str = "a", key: str = "k", caller: str = "c") -> Once:
    return Once(caller.encode(), key, request.encode())


async def edit(store: SegmentStore, read: int, **changes: Any) -> SavedSegment:
    fields: dict[str, Any] = {"name": None, "rule": None, "at": later(5)}
    return (await store.edit("s1", read, **(fields | changes))).segment


class LoadingShards(LocalShards):
    """Shards that cannot count yet."""

    def __init__(self) -> None:
        pass

    async def count(self, brand: str, rule: Rule) -> Count:
        raise ShardsWarming("not yet")


async def at_once(store: SegmentStore) -> None:
    """Have all connections made, so that what follows really happens at once."""
    await asyncio.gather(*[store.revision() for _ in range(8)])


class SegmentStoreLaws:
    """What any store of saved segments does."""

    async def test_a_segment_comes_back_as_it_was(self, store: SegmentStore) -> None:
        made = a_segment(name="São Paulo 'VIP'")
        assert (await store.create(made)).segment == made
        assert await store.get("s1") == made
        assert await store.versions("s1", None, 9) == [SegmentVersion(1, made.name, RULE, NOON)]
        assert await store.active("demo") == [LiveSegment("s1", "demo", made.name, 1, RULE)]

    async def test_what_is_not_there_is_not_found(self, store: SegmentStore) -> None:
        for question in (
            store.get("s1"),
            edit(store, 1, name="x"),
            store.archive("s1", None, NOON),
            store.put_players("s1", None, ["p"], "add", REPORT, at=NOON),
        ):
            with pytest.raises(SegmentNotFound):
                await question
        assert await store.players("s1", "", 9) == []
        assert not await store.holds("s1", shard_of("demo", "p"), "p")
        assert await store.sizes("s1", None, 9) == []

    async def test_an_edit_makes_the_next_version_and_the_former_ones_stay(
        self, store: SegmentStore
    ) -> None:
        await store.create(a_segment())
        second = await edit(store, 1, rule=OTHER, size=3)
        assert (second.version, second.rule, second.changed_at) == (2, OTHER, later(5))
        assert second.size == SegmentSize(later(5), 2, 3)
        third = await edit(store, 2, name="Renamed", at=later(6))
        assert (third.version, third.rule, third.name) == (3, OTHER, "Renamed")
        assert await store.get("s1") == third
        found = await store.versions("s1", None, 9)
        assert [(one.version, one.name, one.rule) for one in found] == [
            (3, "Renamed", OTHER), (2, "Big players", OTHER), (1, "Big players", RULE),
        ]  # fmt: skip
        assert [one.version for one in await store.versions("s1", 3, 1)] == [2]
        assert await store.active() == [LiveSegment("s1", "demo", "Renamed", 3, OTHER)]

    async def test_an_edit_of_what_somebody_else_has_changed_changes_nothing(
        self, store: SegmentStore
    ) -> None:
        await store.create(a_segment())
        await edit(store, 1, rule=OTHER)
        before = (await store.get("s1"), await store.revision())
        for read in (1, 3):
            with pytest.raises(SegmentChanged, match="version 2"):
                await edit(store, read, name="x")
            with pytest.raises(SegmentChanged):
                await store.archive("s1", read, later(9))
        assert (await store.get("s1"), await store.revision()) == before

    async def test_of_two_edits_at_once_one_is_told_that_it_is_late(
        self, store: SegmentStore
    ) -> None:
        await store.create(a_segment())
        await at_once(store)
        edits = [edit(store, 1, rule=f"bet_count_7d > {n}") for n in range(5, 9)]
        found = await asyncio.gather(*edits, return_exceptions=True)
        assert sum(isinstance(one, SegmentChanged) for one in found) == 3
        assert (await store.get("s1")).version == 2
        assert len(await store.versions("s1", None, 9)) == 2

    async def test_an_edit_that_changes_nothing_makes_no_version(self, store: SegmentStore) -> None:
        await store.create(a_segment())
        before = await store.revision()
        assert (await edit(store, 1, name="Big players", rule=RULE)).version == 1
        assert await store.revision() == before

    async def test_names_are_unique_within_a_brand_among_those_that_live(
        self, store: SegmentStore
    ) -> None:
        await store.create(a_segment())
        await store.create(a_segment(id="s2", brand="other"))
        await store.create(a_segment(id="s3", name="Another"))
        before = await store.revision()
        with pytest.raises(SegmentNameTaken):
            await store.create(a_segment(id="s4"))
        with pytest.raises(SegmentNameTaken):
            await store.edit("s3", 1, name="Big players", rule=None, at=NOON)
        assert await store.revision() == before
        assert (await store.get("s3")).version == 1
        with pytest.raises(SegmentNotFound):
            await store.get("s4")
        await store.archive("s1", 1, NOON)
        await store.create(a_segment(id="s4"))

    async def test_every_change_raises_the_revision(self, store: SegmentStore) -> None:
        revisions = [await store.revision()]
        for change in (
            store.create(a_segment()),
            edit(store, 1, rule=OTHER),
            store.create(a_list(id="s2", name="List"), ["p1"]),
            store.put_players("s2", 1, ["p2"], "add", REPORT, at=NOON),
            store.archive("s1", 2, NOON),
        ):
            await change
            revisions.append(await store.revision())
        assert revisions == sorted(set(revisions))

    async def test_what_is_archived_is_read_but_never_changed(self, store: SegmentStore) -> None:
        await store.create(a_list(), ["p1"])
        gone = (await store.archive("s1", None, later(1))).segment
        assert (gone.archived_at, gone.version) == (later(1), 1)
        assert await store.get("s1") == gone
        assert (await store.archive("s1", 1, later(2))).segment == gone
        for change in (
            edit(store, 1, name="x"),
            store.put_players("s1", 1, ["p2"], "add", REPORT, at=NOON),
        ):
            with pytest.raises(SegmentArchived):
                await change
        assert await store.active() == []
        assert await store.unmeasured(later(99)) == []
        assert await store.players("s1", "", 9) == ["p1"]

    async def test_pages_are_the_newest_first_and_stay_right_while_segments_come(
        self, store: SegmentStore
    ) -> None:
        for n in (1, 2, 3, 4):  # two of one moment
            await store.create(a_segment(id=f"s{n}", name=f"n{n}", created_at=later(n // 2)))
        await store.create(a_segment(id="s0", brand="other"))
        first = await store.page("demo", None, 2)
        assert [one.id for one in first] == ["s4", "s3"]
        assert first[0].size == SegmentSize(NOON, 1, 7)
        await store.create(a_segment(id="s5", name="n5", created_at=later(9)))
        await store.archive("s1", None, NOON)
        last = first[-1]
        rest = await store.page("demo", (last.created_at, last.id), 9)
        assert [one.id for one in rest] == ["s2"]
        assert [one.id for one in await store.page("demo", None, 9, archived=True)] == ["s1"]

    # --- lists ----------------------------------------------------------------------------------

    async def test_a_list_holds_its_players_by_shard_and_in_order(
        self, store: SegmentStore
    ) -> None:
        players = ["p10", "P2", "=1", "ü", "p1", "\U0001f600", "\uffee"]
        made = await store.create(a_list(), players, REPORT)
        assert made.report is not None
        assert (made.report.added, made.report.unknown) == (7, 1)
        assert made.segment.size == SegmentSize(NOON, 1, 7)
        everybody = sorted(players)
        assert await store.players("s1", "", 99) == everybody
        assert await store.players("s1", everybody[2], 2) == everybody[3:5]
        by_shard = await store.players_of("s1", ALL)
        assert sorted(one for some in by_shard.values() for one in some) == everybody
        assert all(shard_of("demo", one) == s for s, some in by_shard.items() for one in some)
        shard = shard_of("demo", "P2")
        assert await store.players_of("s1", [shard]) == {shard: by_shard[shard]}
        assert await store.holds("s1", shard, "P2")
        assert not await store.holds("s1", shard_of("demo", "P3"), "P3")
        assert await store.active() == [LiveSegment("s1", "demo", "Big players", 1, None)]

    async def test_a_long_list_is_stored_whole(
        self, store: SegmentStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres_segments, "_AT_ONCE", 2)
        players = [f"p{n}" for n in range(7)]
        made = await store.create(a_list(), players, REPORT)
        assert made.report is not None
        assert made.report.added == 7
        assert await store.players("s1", "", 99) == players

    async def test_an_import_adds_or_replaces(self, store: SegmentStore) -> None:
        await store.create(a_list(), ["p1", "p2"])
        added = await store.put_players("s1", 1, ["p2", "p3"], "add", REPORT, at=later(1))
        assert added.report is not None
        assert (added.report.added, added.report.removed) == (1, 0)
        assert (added.segment.version, added.segment.size) == (2, SegmentSize(later(1), 2, 3))
        swapped = await store.put_players("s1", None, ["p3", "p4"], "replace", REPORT, at=later(2))
        assert swapped.report is not None
        assert (swapped.report.added, swapped.report.removed) == (1, 2)
        assert await store.players("s1", "", 9) == ["p3", "p4"]
        assert await store.count_players("s1") == 2
        same = await store.put_players("s1", 3, ["p4", "p3"], "replace", REPORT, at=later(3))
        assert same.segment == swapped.segment
        with pytest.raises(SegmentChanged):
            await store.put_players("s1", 1, ["p9"], "add", REPORT, at=later(4))
        assert await store.get("s1") == swapped.segment

    async def test_a_list_has_no_rule(self, store: SegmentStore) -> None:
        await store.create(a_list())
        with pytest.raises(InvalidSegment):
            await edit(store, 1, rule=RULE)

    async def test_a_list_that_would_grow_too_long_stays_as_it_is(
        self, store: SegmentStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in (memory_segments, postgres_segments):
            monkeypatch.setattr(module, "MAX_LIST_PLAYERS", 2)
        await store.create(a_list(), ["p1", "p2"])
        with pytest.raises(TooLarge):
            await store.put_players("s1", 1, ["p3"], "add", REPORT, at=NOON)
        with pytest.raises(TooLarge):
            await store.create(a_list(id="s2", name="x"), ["p1", "p2", "p3"])
        assert await store.players("s1", "", 9) == ["p1", "p2"]
        assert [one.id for one in await store.active()] == ["s1"]

    # --- sizes ----------------------------------------------------------------------------------

    async def test_sizes_are_a_curve_and_the_newest_is_the_segments(
        self, store: SegmentStore
    ) -> None:
        await store.create(a_segment())
        for minute in (60, 120, 30):
            await store.add_size("s1", SegmentSize(later(minute), 1, minute))
        await store.add_size("s1", SegmentSize(later(30), 1, 31))
        found = await store.sizes("s1", None, 9)
        assert [one.players for one in found] == [120, 60, 31, 7]
        assert [one.players for one in await store.sizes("s1", later(60), 1)] == [31]
        assert (await store.get("s1")).size == SegmentSize(later(120), 1, 120)

    async def test_what_has_no_newer_size_is_to_be_measured(self, store: SegmentStore) -> None:
        await store.create(a_segment())
        await store.create(a_segment(id="s2", name="x", size=None))
        assert [one.id for one in await store.unmeasured(later(-1))] == ["s2"]
        assert [one.id for one in await store.unmeasured(NOON)] == ["s1", "s2"]

    # --- checks ---------------------------------------------------------------------------------

    async def test_a_change_is_held_against_what_is_live_with_it(self, store: SegmentStore) -> None:
        seen: list[list[str | None]] = []

        def check(live: Sequence[LiveSegment]) -> None:
            seen.append([one.rule for one in live])

        await store.create(a_segment(id="s0", brand="other"))
        await store.create(a_segment(), check=check)
        await store.edit("s1", 1, name=None, rule=OTHER, at=NOON, check=check)
        await store.archive("s1", 2, NOON, check=check)
        assert seen == [[RULE], [OTHER], []]

    async def test_a_change_that_may_not_stand_has_not_been_made(self, store: SegmentStore) -> None:
        def check(_live: Sequence[LiveSegment]) -> None:
            raise SegmentInUse("no")

        await store.create(a_segment())
        before = await store.revision()
        for change in (
            store.create(a_segment(id="s2", name="x"), check=check),
            store.edit("s1", 1, name="y", rule=None, at=NOON, check=check),
            store.archive("s1", 1, NOON, asked(), check),
        ):
            with pytest.raises(SegmentInUse):
                await change
        assert await store.active() == [LiveSegment("s1", "demo", "Big players", 1, RULE)]
        assert await store.revision() == before
        assert (await store.archive("s1", 1, later(1), asked())).segment.archived_at == later(1)

    # --- idempotency ----------------------------------------------------------------------------

    async def test_a_change_under_a_key_happens_once_and_has_one_answer(
        self, store: SegmentStore
    ) -> None:
        once = asked()
        assert await store.answered(once) is None
        made = await store.create(a_list(), ["p1"], REPORT, once)
        await store.put_players("s1", 1, ["p2"], "add", REPORT, at=later(1), once=asked(key="j"))
        before = await store.revision()
        assert await store.create(a_list(id="s9"), ["p1"], REPORT, once) == made
        assert await store.answered(once) == made
        again = await store.put_players(
            "s1", 1, ["p2"], "add", REPORT, at=later(2), once=asked(key="j")
        )
        assert (again.segment.version, again.segment.changed_at) == (2, later(1))
        assert await store.revision() == before
        assert [one.id for one in await store.active()] == ["s1"]

    async def test_the_same_key_at_once_makes_one_segment(self, store: SegmentStore) -> None:
        await at_once(store)
        made = [store.create(a_segment(id=f"s{n}", name=f"n{n}"), once=asked()) for n in range(4)]
        answers = await asyncio.gather(*made)
        assert len({one.segment.id for one in answers}) == 1
        assert len(await store.active()) == 1

    async def test_a_key_of_another_request_is_refused_and_of_another_caller_is_free(
        self, store: SegmentStore
    ) -> None:
        await store.create(a_segment(), once=asked())
        with pytest.raises(KeyReused):
            await store.archive("s1", 1, NOON, asked("b"))
        with pytest.raises(KeyReused):
            await store.answered(asked("b"))
        gone = await store.archive("s1", 1, later(1), asked("b", caller="d"))
        assert gone.segment.archived_at == later(1)

    async def test_a_change_that_failed_leaves_its_key_free(self, store: SegmentStore) -> None:
        await store.create(a_segment())
        with pytest.raises(SegmentNameTaken):
            await store.create(a_segment(id="s2"), once=asked())
        await store.archive("s1", 1, NOON)
        assert (await store.create(a_segment(id="s2"), once=asked())).segment.id == "s2"

    async def test_answers_are_forgotten(self, store: SegmentStore) -> None:
        await store.create(a_segment(), once=asked())
        await store.forget_answers(NOON - timedelta(days=36_500))
        assert await store.answered(asked()) is not None
        await store.forget_answers(NOON + timedelta(days=36_500))
        assert await store.answered(asked()) is None


class TestMemorySegments(SegmentStoreLaws):
    @pytest.fixture
    def store(self) -> SegmentStore:
        return MemorySegments()


class TestPostgresSegments(SegmentStoreLaws):
    @pytest.fixture
    async def store(self, dsn: str) -> AsyncIterator[SegmentStore]:
        async with open_segments(dsn) as store:
            yield store


async def test_edits_that_wait_for_a_third_see_what_it_and_each_other_have_made(dsn: str) -> None:
    """Both have come as far as they can before either goes on: no luck decides."""
    async with open_segments(dsn) as store:
        await store.create(a_segment())
        third = await asyncpg.connect(dsn)
        try:
            holding = third.transaction()
            await holding.start()
            await third.execute("UPDATE segments SET changed_at = changed_at WHERE id = 's1'")
            edits = [
                asyncio.create_task(edit(store, 1, rule=f"bet_count_7d > {n}")) for n in (5, 6)
            ]

            async def both_wait() -> bool:
                # Within a transaction PostgreSQL shows the activity of its first look only.
                await third.execute("SELECT pg_stat_clear_snapshot()")
                waiting = await third.fetchval(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE wait_event_type = 'Lock' AND datname = current_database()"
                )
                return bool(waiting == 2)

            await wait_for_async(both_wait, "both edits wait for the row")
            await holding.rollback()
            found = await asyncio.gather(*edits, return_exceptions=True)
        finally:
            await third.close()
        assert sorted(type(one).__name__ for one in found) == ["SavedSegment", "SegmentChanged"]
        assert (await store.get("s1")).version == 2


@pytest.mark.parametrize("second", ["archive", "create"])
async def test_of_an_archive_and_a_rule_that_names_the_segment_one_loses(
    dsn: str, second: str
) -> None:
    """The first has done all but commit when the second looks: no luck decides."""
    shards = LoadingShards()
    async with open_segments(dsn) as store:
        saved = SavedSegments(store, shards, {BRAND.id: BRAND}, lambda: NOON, lambda: "s2")
        await store.create(a_segment(brand=BRAND.id))
        first = await asyncpg.connect(dsn)
        try:
            holding = first.transaction()
            await holding.start()
            if second == "archive":
                await first.execute(
                    "INSERT INTO segments SELECT 's9', brand, 'Names it', kind, 1,"
                    " 'segment \"s1\"', created_at, changed_at FROM segments"
                )
                losing = asyncio.create_task(saved.archive("s1", None, None))
            else:
                await first.execute("UPDATE segments SET archived_at = now()")
                losing = asyncio.create_task(
                    saved.create(BRAND, "Names it", 'segment "Big players"', None)
                )
            await first.execute("UPDATE segments_revision SET revision = revision + 1")

            async def waits() -> bool:
                await first.execute("SELECT pg_stat_clear_snapshot()")
                waiting = await first.fetchval(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE wait_event_type = 'Lock' AND datname = current_database()"
                )
                return bool(waiting == 1)

            await wait_for_async(waits, "the second waits for the first")
            await holding.commit()
            with pytest.raises(SegmentInUse if second == "archive" else InvalidRule):
                await losing
        finally:
            await first.close()
        live = [one.id for one in await store.active()]
        assert live == (["s1", "s9"] if second == "archive" else [])


async def test_a_database_that_is_away_is_named_as_such() -> None:
    async with open_segments("postgresql://nobody@127.0.0.1:1/none") as store:
        with pytest.raises(DatabaseAway):
            await store.get("s1")
    twin = MemorySegments()
    twin.away = True
    with pytest.raises(DatabaseAway):
        await twin.get("s1")
