"""Scores as live columns: what they cost an owner, and how long a promotion takes.

    .venv/bin/python bench/scores.py [--quick]

One process, one core: a table as bench/memory.py fills it, two XGBoost models of 200 trees of depth
6 over 30 features, and five player clusters. The commits are those of an owner over a log in
memory, so all that is measured is the owner's own work, in seconds of the one core that it keeps
busy.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

import numpy as np
from msgspec.structs import replace

from bench.frame import Row, Size, at_least, at_most, main
from bench.memory import BRAND, DAY_US, DAYS, NOW_US, live
from crm.adapters.memory import MemoryEventLog, MemoryFiles, MemoryServing, MemoryWatched
from crm.adapters.scorers import open_scorer
from crm.domain.clustering import PlayerClusters, Scaler
from crm.domain.events import LoggedEvent
from crm.domain.feature_table import FeatureTable
from crm.domain.live_scores import NO_SCORES, ServingScores
from crm.domain.membership import Watched, WatchedSegment
from crm.domain.models import ModelKind, ScoreModel
from crm.domain.ports import SnapshotName
from crm.domain.predictions import BrandModels
from crm.domain.rule_text import parse
from crm.domain.shards import SHARDS, shard_of
from crm.domain.times import from_us
from crm.services.segments import matching
from crm.services.shard_owner import SCORED_AT_ONCE, ShardOwner, Stores
from crm.services.shard_snapshots import ShardSnapshot
from tests.support.builders import a_logged_event
from tests.support.live_scores import a_churn_model, a_value_model, some_clusters, trees_of
from tests.support.wait import wait_for_async

FEATURES = [
    f"{name}_{window}"
    for name in ("bet_count", "stake_amount", "deposit_amount", "session_count", "ggr_amount",
                 "active_days")
    for window in ("7d", "30d", "90d", "lifetime")
] + ["days_since_last_bet", "days_since_last_deposit", "days_since_last_session",
     "days_since_registration", "bet_count_trend_7d", "win_share_30d"]  # fmt: skip
RULE = "churn_probability >= 0.6 and cluster in (1, 3) and deposit_amount_30d > 0"
SEGMENTS = [
    "churn_probability > 0.7", 'churn_rank in ("high", "critical") and bet_count_30d > 3',
    "predicted_value > 100 and cluster = 2",
]  # fmt: skip
ON_FEATURES = [
    "bet_count_7d > 9", "bet_count_30d > 3 and session_count_7d > 1",
    "stake_amount_30d > 100 and deposit_count_lifetime = 2",
]  # fmt: skip


def measure(size: Size) -> Iterator[Row]:
    """A promotion, a midnight, a count, and commits with and without scores."""
    serving = _models()
    players = 20_000 if size == "quick" else 1_000_000
    table = _table(players)
    yield from _promoted(table, serving)
    yield from _midnight(table)
    yield from _counted(table)
    del table
    owners = 10_000 if size == "quick" else 100_000
    part = _table(owners)
    events = 4_000 if size == "quick" else 60_000
    for batch in (64, 500, 4_000):
        yield from asyncio.run(_commits(part, serving, events, batch))


def _models() -> ServingScores:
    churn = _with_trees(a_churn_model(), 1)
    value = _with_trees(a_value_model(), 2)
    clusters = _five_clusters()
    ids: dict[ModelKind, str] = {"clusters": clusters.id, "churn": churn.id, "value": value.id}
    return ServingScores(BrandModels(clusters, open_scorer(churn), open_scorer(value), ids))


def _with_trees(model: ScoreModel, seed: int) -> ScoreModel:
    return replace(model, features=FEATURES, fitted=trees_of(FEATURES, seed=seed).packed())


def _five_clusters() -> PlayerClusters:
    some, count = some_clusters(), len(FEATURES[:8])
    centroids = np.random.default_rng(1).normal(size=(5, count)).tolist()
    scaler = Scaler("log", [0.0] * count, [1.0] * count, [1.0] * count)
    return replace(some, features=FEATURES[:8], centroids=centroids, scaler=scaler)


def _table(players: int) -> FeatureTable:
    ids = [f"player-{n}" for n in range(players)]
    shards = np.array([shard_of(BRAND.id, player) for player in ids])
    table = FeatureTable(BRAND.zone, NOW_US - DAYS * DAY_US)
    live(table, ids, shards, NOW_US)
    return table


def _promoted(table: FeatureTable, serving: ServingScores) -> Iterator[Row]:
    what = f"{len(table):,} players"
    began = time.process_time()
    table.serve(serving)
    slices = _renewed(table)
    table.scores.take_over()
    took = time.process_time() - began
    yield Row(f"{what} scored after a promotion", took, "s",
              note=f"{1e6 * took / len(table):.1f} us a player")  # fmt: skip
    yield Row(f"{what}: the longest slice", 1e3 * max(slices), "ms",
              note=f"{SCORED_AT_ONCE:,} players; others have their turn between two")  # fmt: skip


def _renewed(table: FeatureTable) -> list[float]:
    slices = []
    while table.scores.waiting:
        began = time.process_time()
        table.renew_scores(SCORED_AT_ONCE)
        slices.append(time.process_time() - began)
    return slices


def _midnight(table: FeatureTable) -> Iterator[Row]:
    began = time.process_time()
    table.advance(table.now_us - table.now_us % DAY_US + DAY_US)
    advanced = time.process_time() - began
    table.age_scores()
    late = table.scores.waiting
    began = time.process_time()
    _renewed(table)
    took = time.process_time() - began
    yield Row("a midnight: players scored anew", late, "players",
              note=f"the windows themselves took {advanced:.2f} s")  # fmt: skip
    yield Row("a midnight: until all scores are those of the new day", took, "s")


def _counted(table: FeatureTable) -> Iterator[Row]:
    rule, plain = parse(RULE), parse("deposit_amount_30d > 0 and bet_count_7d > 3")
    matching(table, BRAND, rule)
    for what, one in (("on scores", rule), ("on features alone", plain)):
        times = []
        for _ in range(9):
            began = time.process_time()
            matching(table, BRAND, one)
            times.append(time.process_time() - began)
        yield Row(f"{len(table):,} players counted in one table, a rule {what}",
                  1e3 * sorted(times)[4], "ms", targets=(at_most(30),))  # fmt: skip


async def _commits(
    table: FeatureTable, serving: ServingScores, events: int, batch: int
) -> list[Row]:
    """Events a second of one owner: without models, with them, and with segments on scores."""
    plain = await _rate(table, NO_SCORES, [], events, batch)
    other = await _rate(table, NO_SCORES, ON_FEATURES, events, batch)
    scored = await _rate(table, serving, [], events, batch)
    watched = await _rate(table, serving, SEGMENTS, events, batch)
    what = f"an owner's commits of {batch} events"
    target = (at_least(25_000),) if batch == 4_000 else ()
    return [
        Row(f"{what}: without models", plain, "events/s"),
        Row(f"{what}: models serve", scored, "events/s", "without models", plain, target),
        Row(f"{what}: 3 segments on features", other, "events/s", "without models", plain),
        Row(f"{what}: models serve, 3 segments on scores", watched, "events/s",
            "3 segments on features", other),
    ]  # fmt: skip


async def _rate(
    table: FeatureTable,
    serving: ServingScores,
    segments: Sequence[str],
    count: int,
    batch: int,
) -> float:
    log, files = MemoryEventLog(), MemoryFiles()
    for shard in range(SHARDS):
        snapshot = ShardSnapshot(shard, 0, table.now_us, {BRAND.id: table.export(shard)})
        files.write(str(shard), snapshot.encode())
        await log.record_snapshot(SnapshotName(shard, 0, str(shard)), 0, 1)
    live_ones = [WatchedSegment(f"s{n}", 1, parse(text)) for n, text in enumerate(segments)]
    watched = MemoryWatched(Watched({BRAND.id: live_ones} if segments else {}))
    models = MemoryServing({BRAND.id: serving})
    stores = Stores(log, log, log, log, files, watched, models)
    now = from_us(NOW_US) + timedelta(minutes=1)
    owner = ShardOwner("bench", {BRAND.id: BRAND}, stores, lambda: now)
    await owner.adopt(range(SHARDS), released=True)
    tasks = [asyncio.create_task(owner.write_forever()), asyncio.create_task(owner.score_forever())]
    if serving is not NO_SCORES:

        async def read() -> bool:
            return (await owner.table(BRAND.id)).scores.serving is serving

        await wait_for_async(read, "all players are scored")
    assert len(await owner.table(BRAND.id)) == len(table)
    bets = _bets(count, len(table), now)
    began = time.process_time()
    for start in range(0, count, batch):
        await owner.append([[event] for event in bets[start : start + batch]])
    took = time.process_time() - began
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    return count / took


def _bets(count: int, players: int, now: datetime) -> list[LoggedEvent]:
    one, found = a_logged_event(brand=BRAND.id, received_at=now, occurred_at=now), []
    for n in range(count):
        player = f"player-{n * 7919 % players}"
        at = now - timedelta(milliseconds=n % 60_000)
        shard = shard_of(BRAND.id, player)
        found.append(replace(one, event_id=f"e{n}", player_id=player, shard=shard, occurred_at=at))
    return found


if __name__ == "__main__":
    main("scores", "Scores as live columns", measure)
