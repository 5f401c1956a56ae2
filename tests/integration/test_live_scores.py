"""Scores as columns over real owners, PostgreSQL and its registry: promoted, moved by events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import pytest
from msgspec.structs import replace

from crm.adapters import clock
from crm.adapters.postgres.events import PostgresEventLog
from crm.adapters.postgres.models import PostgresModels, open_models
from crm.adapters.postgres.segments import open_segments
from crm.adapters.scorers import open_scorer
from crm.domain.events import LoggedEvent
from crm.domain.ports import FeatureShards
from crm.domain.rule_text import parse
from crm.services.predictions import PlayerScores, Predictions
from crm.services.saved_segments import SavedSegments, new_segment_id
from crm.services.served_models import ServedModels
from crm.services.shard_owner import ShardOwner
from crm.services.watched_models import WatchedModels
from crm.services.watched_segments import WatchedSegments
from tests.support.local_shards import LocalShards
from tests.support.owners import an_owner
from tests.support.predictions import a_value_model, as_trained, by_bets, two_clusters
from tests.support.ray_shards import (
    BRAND,
    BRANDS,
    LONG_S,
    a_gateway,
    a_spec,
    an_event,
    running_shards,
)
from tests.support.scores import a_score_model, of_trees
from tests.support.wait import wait_for_async

pytestmark = pytest.mark.one_server
PLAYERS = 40


@pytest.fixture
def shards(ray_cluster: None, dsn: str, tmp_path: Path) -> Iterator[str]:
    """Two owners of all virtual shards over an empty database: yields its DSN."""
    with running_shards(a_spec(dsn, tmp_path, owners=2, misses=60)):
        yield dsn


async def test_columns_follow_promotions_and_are_what_the_route_says(shards: str) -> None:
    async with a_gateway(shards) as gateway, open_models(shards) as models:
        await gateway.append([[an_event(n)] for n in range(PLAYERS + 10)])  # ten have two bets
        assert await _count(gateway, "exists churn_probability or exists cluster") == 0
        await _promote(models, "trees")
        await wait_for_async(
            lambda: _is_whole(gateway), "all owners have scored all", deadline_s=LONG_S
        )
        await _assert_as_predicted(gateway, models)
        found = await gateway.count(BRAND.id, parse("bet_count_lifetime >= 2", BRAND))
        assert sum(one.matches for one in found.clusters) == found.count == 10
        assert None not in {cluster for cluster, _ in found.clusters}
        # 1 + 2 a bet
        page = await gateway.members(BRAND.id, "predicted_value > 3.5", "", 100)
        assert page.player_ids == sorted(f"p{n}" for n in range(10))
        why = (await gateway.explain(BRAND.id, "predicted_value > 3.5", "p3")).why
        assert (why.holds, why.value, why.threshold) == (True, "5.00", "3.50")
        await gateway.append([[an_event(n)] for n in range(200, 203)])
        assert await _count(gateway, "predicted_value > 3.5") == 10 + 3 - len({0, 1, 2})
        await _assert_as_predicted(gateway, models)


@asynccontextmanager
async def _an_owner(dsn: str) -> AsyncIterator[ShardOwner]:
    """An owner of all shards in this process, on PostgreSQL, with all that it does by itself."""
    log, side = PostgresEventLog(dsn, clock.now), PostgresEventLog(dsn, clock.now)
    async with open_models(dsn) as models, open_segments(dsn) as segments:
        served = ServedModels(models, BRANDS, open_scorer, time.monotonic)
        watched = WatchedSegments(segments, BRANDS)
        serving = WatchedModels(served, BRANDS)
        async with an_owner(
            log, clock.now, side=side, brands=BRANDS, segments=watched, models=serving
        ) as owner:
            tasks = [
                asyncio.create_task(owner.beat_forever()),
                asyncio.create_task(owner.score_forever()),
            ]
            try:
                yield owner
            finally:
                for task in tasks:
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task
                await log.close()
                await side.close()


async def test_a_segment_on_a_score_is_told_at_the_event_and_not_at_a_promotion(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)

    async def told() -> list[tuple[str, bool, bool]]:
        rows = await connection.fetch(
            "SELECT player_id, entered, seq IS NOT NULL FROM segment_transitions ORDER BY id"
        )
        return [tuple(row) for row in rows]

    async with (
        open_models(dsn) as models,
        open_segments(dsn) as store,
        _an_owner(dsn) as owner,
    ):
        shards = LocalShards(owner, BRANDS)
        await shards.append([[an_event(n)] for n in range(PLAYERS)])
        await _promote(models, "first")
        saved = SavedSegments(store, shards, BRANDS, clock.now, new_segment_id)
        await wait_for_async(lambda: _is_whole(shards), "all are scored", deadline_s=LONG_S)
        made = (await saved.create(BRAND, "Likely", "churn_probability > 0.7", None)).segment
        assert made.size is not None
        assert made.size.players == 0  # with one bet it is 0.5
        await owner._learn_segments()
        await shards.append([[_a_bet(1, 1)], [_a_bet(2, 2)], [_a_bet(2, 3)]])
        assert await told() == [("p1", True, True), ("p2", True, True)]
        await _promote(models, "second")  # by which everybody is likely to go
        await wait_for_async(
            lambda: _counts(shards, "churn_probability > 0.7", PLAYERS),
            "the second model's scores are in", deadline_s=LONG_S,
        )  # fmt: skip
        await shards.append([[_a_bet(3, 4)]])  # who is in already
        await models.rollback(BRAND.id, "churn", "a key")
        await wait_for_async(
            lambda: _counts(shards, "churn_probability > 0.7", 3),
            "the first model's scores are back", deadline_s=LONG_S,
        )  # fmt: skip
        await shards.append([[_a_bet(4, 5)]])
        assert await told() == [("p1", True, True), ("p2", True, True), ("p4", True, True)]
        members = owner._members._of[BRAND.id].members()
        assert members == {made.id: {"p1", "p2", "p3", "p4"}}
    await connection.close()


def _a_bet(player: int, number: int) -> LoggedEvent:
    event = an_event(player)
    return replace(event, event_id=f"more-{number}")


async def _promote(models: PostgresModels, which: str) -> None:
    if which == "trees":
        trained = [
            as_trained(a_score_model(of_trees(), id="churn-trees")),
            as_trained(two_clusters()),
            as_trained(a_value_model()),
        ]
    else:
        # log-odds: a bet more is one more; the second model adds five
        shift = {"first": -1.0, "second": 4.0}[which]
        model = a_score_model(
            by_bets(1.0, "sigmoid", shift), id=f"churn-{which}", features=["bet_count_lifetime"]
        )
        trained = [as_trained(model)]
    for one in trained:
        await models.add(one)
        await models.promote(one.id, "a key")


async def _count(gateway: FeatureShards, rule: str) -> int:
    return (await gateway.count(BRAND.id, parse(rule, BRAND))).count


async def _counts(gateway: FeatureShards, rule: str, count: int) -> bool:
    return await _count(gateway, rule) == count


async def _is_whole(gateway: FeatureShards) -> bool:
    return await _counts(gateway, "exists churn_probability", PLAYERS)


async def _assert_as_predicted(gateway: FeatureShards, models: PostgresModels) -> None:
    """Each column of each player is what GET /v1/players/{id}/scores answers, as it is written."""
    served = ServedModels(models, BRANDS, open_scorer, time.monotonic)
    await served.refresh()
    predictions = Predictions(gateway, served, clock.now)
    players = [f"p{n}" for n in range(PLAYERS)]
    for player in players:
        scores: PlayerScores = await predictions.of_player(BRAND, player)
        assert scores.churn is not None
        assert scores.value is not None
        said = {
            "cluster": scores.cluster,
            "churn_probability": scores.churn.probability,
            "churn_rank": scores.churn.rank,
            "predicted_value": scores.value.predicted,
        }
        rules = {
            "cluster": f"cluster = {scores.cluster}",
            "churn_probability": f"churn_probability = {scores.churn.probability:.6f}",
            "churn_rank": f'churn_rank = "{scores.churn.rank}"',
            "predicted_value": f"predicted_value = {scores.value.predicted}",
        }
        for name, rule in rules.items():
            why = (await gateway.explain(BRAND.id, rule, player)).why
            assert (why.holds, why.value) == (True, said[name]), (player, name)
