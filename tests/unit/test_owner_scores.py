"""What an owner does with scores: promotions in slices, columns that appear whole, no word said."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import structlog
from msgspec.structs import replace

from crm.adapters.memory import MemoryEventLog, MemoryFiles, MemoryServing, MemoryWatched
from crm.adapters.memory_models import MemoryModels
from crm.adapters.scorers import open_scorer
from crm.domain.clustering import Floats
from crm.domain.event_columns import EventColumns
from crm.domain.events import LoggedEvent
from crm.domain.feature_table import FeatureTable
from crm.domain.ledger import Ints
from crm.domain.live_scores import NO_SCORES, ReadColumn, ServingScores
from crm.domain.membership import Watched, WatchedSegment
from crm.domain.models import Reason, ScoreModel, Scorer
from crm.domain.ports import Appended, ClusterCount
from crm.domain.predictions import BrandModels
from crm.domain.rule_text import parse
from crm.domain.score_columns import RANK, SCORED
from crm.domain.segments import compile_mask
from crm.domain.shards import SHARDS
from crm.domain.times import to_us
from crm.services import shard_tables
from crm.services.predictions import Predictions
from crm.services.segments import matching
from crm.services.served_models import ServedModels
from crm.services.shard_owner import ShardOwner, Stores
from crm.services.shard_tables import ShardTables
from crm.services.watched_models import WatchedModels
from tests.support.builders import NOON, a_brand, a_logged_event
from tests.support.clock import Clock
from tests.support.live_scores import (
    a_churn_model,
    a_value_model,
    scores_of,
    some_clusters,
    some_serving,
)
from tests.support.local_shards import LocalShards
from tests.support.predictions import as_trained
from tests.support.wait import wait_for_async

BRAND = a_brand()
FIRST, SECOND = some_serving(1), some_serving(2)
RULES = ["cluster = 1", "churn_probability >= 0.6", 'churn_rank in ("low", "medium")',
         "predicted_value > 10", "bet_count_lifetime > 1"]  # fmt: skip


class _World:
    """One owner, and what outlives it."""

    def __init__(self, serving: ServingScores, rules: Sequence[str] = ()) -> None:
        self.log, self.files, self.clock = MemoryEventLog(), MemoryFiles(), Clock(NOON)
        self.serving = MemoryServing({BRAND.id: serving})
        live = [WatchedSegment(f"s{n}", 1, parse(text, BRAND)) for n, text in enumerate(rules)]
        self.watched = MemoryWatched(Watched({BRAND.id: live} if live else {}))

    @asynccontextmanager
    async def owner(
        self,
        name: str = "owner",
        shards: Sequence[int] = range(SHARDS),
        sleep: Callable[[float], Awaitable[None]] | None = None,
    ) -> AsyncIterator[ShardOwner]:
        """An owner that writes; it scores when it is told to."""
        log = self.log
        stores = Stores(log, log, log, log, self.files, self.watched, self.serving)
        owner = ShardOwner(name, {BRAND.id: BRAND}, stores, self.clock, sleep or _no_pause)
        owner.scored_at_once = 4
        await owner.adopt(shards)
        writing = asyncio.create_task(owner.write_forever())
        try:
            yield owner
        finally:
            writing.cancel()
            with suppress(asyncio.CancelledError):
                await writing


async def _no_pause(_s: float) -> None:
    """Nobody is misled."""


def _bets(players: int, start: int = 0, each: int = 1) -> list[LoggedEvent]:
    """Bets of so many players; some bet more, some bet long ago."""
    return [
        a_logged_event(
            event_id=f"{start}-{n}-{m}", player_id=f"p{n}", amount=Decimal(n * 3 + m + 1),
            occurred_at=NOON - timedelta(days=n % 9, hours=m),
        )
        for n in range(players) for m in range(each + n % 3)
    ]  # fmt: skip


async def _append(owner: ShardOwner, events: Sequence[LoggedEvent]) -> None:
    assert {v for one in await owner.append([[e] for e in events]) for v in one} == {"accepted"}


async def _finish(owner: ShardOwner, serving: ServingScores) -> None:
    """Let the owner score all, and its writer go over."""
    scoring = asyncio.create_task(owner.score_forever())

    async def read() -> bool:
        return owner._tables.of(BRAND.id).scores.serving is serving

    await wait_for_async(read, "the scores are those of the new models", every_s=0)
    scoring.cancel()
    with suppress(asyncio.CancelledError):
        await scoring


def _told(table: FeatureTable) -> dict[str, dict[str, int | str | None]]:
    """What the columns say, by player."""
    found: dict[str, dict[str, int | str | None]] = {player: {} for player in table.player_ids}
    for name in SCORED:
        values, missing = table.column(name)
        assert missing is not None
        for player, value, none in zip(found, values.tolist(), missing.tolist(), strict=True):
            found[player][name] = None if none else value
    ranks, missing = table.texts(RANK)
    assert missing is not None
    for player, rank, none in zip(found, ranks, missing.tolist(), strict=True):
        found[player][RANK] = None if none else rank
    return found


def _by_definition(
    table: FeatureTable, serving: ServingScores
) -> dict[str, dict[str, int | str | None]]:
    return {one: scores_of(serving, table.values(row)) for row, one in enumerate(table.player_ids)}


def _members(owner: ShardOwner) -> dict[str, set[str]]:
    return dict(owner._members._of[BRAND.id].members())


def _held(table: FeatureTable) -> dict[str, set[str]]:
    """Who each rule holds for now."""
    return {
        f"s{n}": {
            player
            for player, holds in zip(
                table.player_ids,
                compile_mask(parse(rule, BRAND), BRAND, table, len(table)),
                strict=True,
            )
            if holds
        }
        for n, rule in enumerate(RULES)
    }


async def test_a_promotion_changes_columns_at_once_and_members_without_a_word() -> None:
    world = _World(FIRST, RULES)
    async with world.owner() as owner:
        await _append(owner, _bets(20))
        before = dict(world.log.transitions)
        assert before
        world.serving.set({BRAND.id: SECOND})
        await owner._learn_models()
        owner._tables.renew_scores(4)
        table = await owner.table(BRAND.id)
        assert _told(table) == _by_definition(table, FIRST)
        await _append(owner, _bets(3, start=1))  # somebody acts meanwhile
        table = await owner.table(BRAND.id)
        assert _told(table) == _by_definition(table, FIRST)
        meanwhile = dict(world.log.transitions)
        await _finish(owner, SECOND)
        table = await owner.table(BRAND.id)
        assert _told(table) == _by_definition(table, SECOND)
        assert _by_definition(table, SECOND) != _by_definition(table, FIRST)
        assert _members(owner) == _held(table)
        assert world.log.transitions == meanwhile
        await _append(owner, _bets(3, start=2))
        assert len(world.log.transitions) > len(meanwhile)  # of events something is said again


async def test_what_the_clock_did_by_the_former_models_is_told_before() -> None:
    bet = a_logged_event(event_id="b", player_id="p", occurred_at=NOON - timedelta(minutes=30))
    values = _values_of(bet)
    limit = scores_of(FIRST, values)["churn_probability"]
    assert isinstance(limit, int)
    world = _World(FIRST, [f"churn_probability < {limit / 1e6:.6f}"])
    async with world.owner() as owner:
        await _append(owner, [bet])
        assert not world.log.transitions
        world.serving.set({BRAND.id: SECOND})
        await owner._learn_models()
        while owner._tables.renew_scores(4):
            pass
        world.clock.move(days=1)
        await owner.table(BRAND.id)
        async with owner._writing:
            await owner._commit([])
        assert owner._tables.of(BRAND.id).scores.serving is SECOND
        (entered,) = world.log.transitions.values()
        assert (entered.entered, entered.at) == (True, bet.occurred_at + timedelta(days=1))


def _values_of(bet: LoggedEvent) -> dict[str, int | None]:
    table = FeatureTable(BRAND.zone, to_us(NOON))
    table.apply(EventColumns.of([bet], table.features))
    return table.values(0)


async def test_a_first_model_appears_whole_or_not_at_all() -> None:
    world = _World(NO_SCORES)
    async with world.owner() as owner:
        await _append(owner, _bets(20))
        world.serving.set({BRAND.id: FIRST})
        await owner._learn_models()
        for _ in range(3):
            owner._tables.renew_scores(4)
            table = await owner.table(BRAND.id)
            assert {None} == {value for one in _told(table).values() for value in one.values()}
            assert matching(table, BRAND, parse("bet_count_lifetime > 0", BRAND)).clusters == [
                ClusterCount(None, 20)
            ]
        await _finish(owner, FIRST)
        table = await owner.table(BRAND.id)
        assert _told(table) == _by_definition(table, FIRST)
        found = matching(table, BRAND, parse("bet_count_lifetime > 1", BRAND))
        assert sum(one.matches for one in found.clusters) == found.matches
        assert len(found.clusters) > 1


async def test_others_have_their_turn_between_two_slices() -> None:
    world, turns = _World(FIRST), 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with world.owner() as owner:
        await _append(owner, _bets(80))
        world.serving.set({BRAND.id: SECOND})
        beside = asyncio.create_task(others())
        await _finish(owner, SECOND)
        beside.cancel()
        assert turns >= 80 // owner.scored_at_once - 1


@pytest.mark.parametrize("rules", [(), ("bet_count_7d > 3",), ("churn_probability > 0.5",)])
async def test_a_commit_asks_a_model_only_where_a_segment_does(rules: tuple[str, ...]) -> None:
    assert FIRST.models.churn is not None
    counted = _Counting(FIRST.models.churn)
    world = _World(ServingScores(BrandModels(churn=counted, ids={"churn": "c"})), rules)
    async with world.owner() as owner:
        await owner._learn_models()
        await _append(owner, _bets(5))
        await _finish(owner, world.serving.now(BRAND.id))
        before = counted.calls
        for n in range(1, 9):
            await _append(owner, _bets(5, start=n))
        assert (counted.calls > before) == (rules == ("churn_probability > 0.5",))
        counted.calls = 0
        await owner.scored_table(BRAND.id)
        table = await owner.table(BRAND.id)
        table.column("churn_probability")
        assert 0 < counted.calls <= 10 * 3  # all commits at once, in slices of four


async def test_a_successor_tells_nothing_of_scores_that_were_told() -> None:
    world = _World(FIRST, RULES)
    async with world.owner() as owner:
        await _append(owner, _bets(20))
    before = dict(world.log.transitions)
    async with world.owner() as owner:
        table = await owner.table(BRAND.id)
        assert _told(table) == _by_definition(table, FIRST)
        assert _members(owner) == _held(table)
        await owner._tell_until(table.now_us)
    assert world.log.transitions == before


class _Counting:
    """A scorer that is counted, and may fail."""

    def __init__(self, scorer: Scorer) -> None:
        self.calls = 0
        self.largest = 0
        self.fails = False
        self.model = scorer.model
        self._scorer = scorer

    def scores(self, values: Floats) -> Floats:
        self.calls += 1
        self.largest = max(self.largest, len(values))
        if self.fails:
            raise RuntimeError("no answer")
        return self._scorer.scores(values)

    def reasons(self, values: Floats, most: int = 3) -> Sequence[Sequence[Reason]]:
        return self._scorer.reasons(values, most)


async def test_columns_are_what_the_route_answers() -> None:
    world = _World(FIRST)
    async with world.owner() as owner:
        await owner._learn_models()
        await _append(owner, _bets(20, each=3))
        await _finish(owner, FIRST)
        shards = LocalShards(owner, {BRAND.id: BRAND})
        models = MemoryModels()
        for model in (some_clusters(1), a_churn_model(1), a_value_model(1)):
            await models.add(as_trained(model))
            await models.promote(model.id, "a key")
        served = ServedModels(models, {BRAND.id: BRAND}, open_scorer, time.monotonic)
        await served.refresh()
        route = Predictions(shards, served, world.clock)
        told = _told(await owner.table(BRAND.id))
        assert len(told) == 20
        for player, columns in told.items():
            scores = await route.of_player(BRAND, player)
            assert scores.churn is not None
            assert scores.value is not None
            assert columns == {
                "cluster": scores.cluster,
                "churn_probability": round(scores.churn.probability * 1e6),
                "churn_rank": scores.churn.rank,
                "predicted_value": BRAND.currency.to_minor(Decimal(str(scores.value.predicted))),
            }


async def test_what_counts_days_is_no_money() -> None:
    model = replace(a_value_model(1), target="deposit_days")
    serving = ServingScores(BrandModels(value=open_scorer(model), ids={"value": model.id}))
    world = _World(serving)
    async with world.owner() as owner:
        await owner._learn_models()
        await _append(owner, _bets(3))
        await _finish(owner, serving)
        table = await owner.table(BRAND.id)
        assert {one["predicted_value"] for one in _told(table).values()} == {None}


async def test_owners_load_what_the_registry_serves_and_keep_it_as_it_is() -> None:
    models = MemoryModels()
    served = ServedModels(models, {BRAND.id: BRAND}, open_scorer, time.monotonic)
    watched = WatchedModels(served, {BRAND.id: BRAND})
    assert not (await watched.live())[BRAND.id]
    for number in (1, 2):
        await models.add(as_trained(a_churn_model(number)))
    await models.promote("churn-1", "a key")
    first = (await watched.live())[BRAND.id]
    assert first.models.ids == {"churn": "churn-1"}
    assert (await watched.live())[BRAND.id] is first
    await models.promote("churn-2", "a key")
    assert (await watched.live())[BRAND.id].models.ids == {"churn": "churn-2"}


SOME, OTHERS = range(0, SHARDS, 2), range(1, SHARDS, 2)


async def _append_to(owners: Sequence[ShardOwner], events: Sequence[LoggedEvent]) -> None:
    for owner in owners:
        await _append(owner, [event for event in events if owner.owns(event.shard)])


async def _tell(owner: ShardOwner) -> None:
    async with owner._writing:
        await owner._commit([])


async def test_shards_that_come_during_a_promotion_tell_nothing() -> None:
    world = _World(FIRST, RULES)
    async with world.owner("giving", SOME) as giving, world.owner("taking", OTHERS) as taking:
        await _append_to([giving, taking], _bets(40))
        before = dict(world.log.transitions)
        world.serving.set({BRAND.id: SECOND})
        await taking._learn_models()
        await taking.adopt(await giving.release(SOME), released=True)
        table = await taking.table(BRAND.id)
        assert _told(table) == _by_definition(table, FIRST)
        await _tell(taking)
        assert world.log.transitions == before
        await _finish(taking, SECOND)
        assert _members(taking) == _held(await taking.table(BRAND.id))
        await _tell(taking)
        assert world.log.transitions == before


async def test_a_promotion_during_an_adoption_is_not_told() -> None:
    world = _World(FIRST, RULES)
    takers: list[ShardOwner] = []

    async def promoted(_s: float) -> None:
        world.serving.set({BRAND.id: SECOND})
        for taking in takers:
            await taking._learn_models()
            await _finish(taking, SECOND)

    async with (
        world.owner("dying", SOME) as dying,
        world.owner("taking", OTHERS, promoted) as taking,
    ):
        await _append_to([dying, taking], _bets(40))
        before = dict(world.log.transitions)
        takers.append(taking)
        await taking.adopt(SOME)
        await _tell(taking)
        table = await taking.table(BRAND.id)
        assert _told(table) == _by_definition(table, SECOND)
        assert _members(taking) == _held(table)
        assert world.log.transitions == before


async def test_a_copy_that_is_being_made_follows_a_promotion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shard_tables, "MANY_DEAD", 0)
    world = _World(FIRST, RULES)
    async with world.owner() as owner:
        await _append(owner, _bets(60))
        await owner.release([shard for shard in range(SHARDS) if shard % 3])
        before = dict(world.log.transitions)
        for _ in range(3):
            assert owner._tables.tidy()
        world.serving.set({BRAND.id: SECOND})
        await owner._learn_models()
        await _finish(owner, SECOND)
        while owner._tables.tidy():
            pass
        await _tell(owner)
        table = await owner.table(BRAND.id)
        assert table.dead_rows == 0
        assert _told(table) == _by_definition(table, SECOND)
        assert _members(owner) == _held(table)
        assert world.log.transitions == before


async def test_a_new_player_enters_once_though_a_copy_takes_the_tables_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shard_tables, "MANY_DEAD", 0)
    world = _World(FIRST, RULES)
    async with world.owner() as owner:
        await _append(owner, _bets(60))
        await owner.release([shard for shard in range(SHARDS) if shard % 3])
        append = world.log.append

        async def append_slowly(*asked: Any) -> Appended:
            appended = await append(*asked)
            while owner._tables.tidy():
                pass
            return appended

        monkeypatch.setattr(world.log, "append", append_slowly)
        new = [replace(e, player_id=f"new-{e.event_id}") for e in _bets(9, start=1, each=3)]
        events = [a_logged_event(event_id=e.event_id, player_id=e.player_id) for e in new]
        await _append(owner, [event for event in events if owner.owns(event.shard)])
        assert (await owner.table(BRAND.id)).dead_rows == 0
        told = dict(world.log.transitions)
        assert any(one.player_id.startswith("new-") for one in told.values())
        await _tell(owner)
        assert world.log.transitions == told


async def test_a_model_that_fails_is_missing_and_the_owner_goes_on() -> None:
    models, told = FIRST.models, []
    assert models.churn is not None
    failing = _Counting(models.churn)
    failing.fails = True
    serving = ServingScores(
        BrandModels(models.clusters, failing, models.value, {"churn": "c"}),
        lambda kind, model, error: told.append((kind, model, str(error))),
    )
    world = _World(serving, RULES)
    async with world.owner() as owner:
        await owner._learn_models()
        await _append(owner, _bets(20))
        await _finish(owner, serving)
        table = await owner.scored_table(BRAND.id)
        missing = {"churn_probability": None, "churn_rank": None}
        assert _told(table) == {
            player: scores | missing for player, scores in _by_definition(table, FIRST).items()
        }
    assert failing.calls > 1
    assert told == [("churn", "c", "no answer")]


async def test_of_a_model_that_fails_is_written_once() -> None:
    models = MemoryModels()
    opened: list[_Counting] = []

    def open_counted(model: ScoreModel) -> Scorer:
        opened.append(_Counting(open_scorer(model)))
        return opened[-1]

    served = ServedModels(models, {BRAND.id: BRAND}, open_counted, time.monotonic)
    await models.add(as_trained(a_churn_model(1)))
    await models.promote("churn-1", "a key")
    serving = (await WatchedModels(served, {BRAND.id: BRAND}).live())[BRAND.id]
    opened[0].fails = True
    table = FeatureTable(BRAND.zone, to_us(NOON), serving=serving)
    table.apply(EventColumns.of(_bets(5), table.features))
    with structlog.testing.capture_logs() as logs:
        while table.scores.waiting:
            table.renew_scores(2)
    assert [(one["event"], one["model"]) for one in logs] == [("model_failed", "churn-1")]


def test_what_an_error_leaves_is_scored_before_it_is_read() -> None:
    class Failing(ServingScores):
        fails = True

        def of(self, read: ReadColumn, players: int) -> Ints:
            if self.fails:
                raise MemoryError
            return super().of(read, players)

    serving = Failing(FIRST.models)
    table = FeatureTable(BRAND.zone, to_us(NOON), serving=serving)
    table.apply(EventColumns.of(_bets(5), table.features))
    with pytest.raises(MemoryError):
        table.column("cluster")
    with pytest.raises(MemoryError):
        table.renew_scores(2)
    serving.fails = False
    table.renew_scores(2)
    assert table.scores.late == 3
    assert _told(table) == _by_definition(table, FIRST)


def test_late_scores_go_before_a_promotion_and_only_where_a_segment_asks() -> None:
    brands = {name: a_brand(id=name) for name in ("a", "b")}
    tables = ShardTables(brands, Clock(NOON))
    tables.serve({"a": FIRST, "b": FIRST})
    for name in brands:
        tables.apply([replace(event, brand=name) for event in _bets(10)])
    while tables.renew_scores(99):
        pass
    tables.serve({"a": SECOND, "b": FIRST})
    tables.apply([replace(event, brand="b") for event in _bets(6, start=1)])
    a, b = tables.of("a").scores, tables.of("b").scores
    assert (a.waiting, a.late, b.late) == (10, 0, 6)
    assert not tables.renew_late({"a"}, 4)
    assert tables.renew_late({"b"}, 4)
    assert (a.waiting, b.late) == (10, 2)
    assert not tables.renew_late({"b"}, 4)
    assert tables.renew_scores(4)
    assert (a.waiting, b.late) == (10, 0)


async def test_a_count_after_a_quiet_day_scores_in_slices() -> None:
    assert FIRST.models.churn is not None
    counted = _Counting(FIRST.models.churn)
    world = _World(ServingScores(BrandModels(churn=counted, ids={"churn": "c"})))
    async with world.owner() as owner:
        await owner._learn_models()
        await _append(owner, [replace(e, occurred_at=NOON) for e in _bets(20)])
        await owner.scored_table(BRAND.id)
        (await owner.table(BRAND.id)).column("churn_probability")
        world.clock.move(days=400)
        await owner.scored_table(BRAND.id)
        counted.largest = 0
        (await owner.table(BRAND.id)).column("churn_probability")
        world.clock.move(days=1)  # no bucket leaves any window
        (await owner.scored_table(BRAND.id)).column("churn_probability")
        assert 0 < counted.largest <= owner.scored_at_once
