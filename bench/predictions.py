"""Predictions over HTTP by live features, beside the same models behind plain FastAPI.

    .venv/bin/python bench/predictions.py [--quick]

Both answer cluster, churn and value with reasons, by the same stored models: five clusters, and two
models of 300 trees over 32 features. The reference has the players' features ready in memory, where
nobody keeps them; ours are read from the shard owners, as of the moment of the answer.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec
import numpy as np
import xgboost

from bench.frame import CLONE, Row, Size, at_least, at_most, main
from bench.ingest import wait_until_listening
from bench.load import Server, Times, send_all, send_at
from bench.players import BRAND, a_service, posts, some_events
from configs.brands import load_brands
from crm.adapters.postgres.models import open_models
from crm.adapters.scorers import Calibration, Fitted, Trees
from crm.domain.clustering import ClusterProfile, Metrics, PlayerClusters, Scaler
from crm.domain.features import FEATURES
from crm.domain.models import ModelKind, Rank, ScoreModel, TrainedModel, TrainedOn
from crm.domain.scores import RANKS
from tests.support.ports import free_port

PLAYERS = 5_000
EVENTS_A_PLAYER = 20
PER_S = 200
CHANGING_PER_S = 300
CONNECTIONS = 32
MANY = 1_000  # players of a large request
WARM_UP = 64
TREES, DEPTH = 300, 4  # as many as trainings usually end with, as deep as they grow them
PLACED_BY = ("bet_count_lifetime", "stake_amount_lifetime", "deposit_amount_lifetime",
             "days_since_last_bet", "bet_count_7d", "ggr_amount_lifetime")  # fmt: skip
SCORED_BY = (
    *PLACED_BY,
    *(f"{measure}_{window}" for measure in ("bet_count", "stake_amount", "deposit_count",
      "deposit_amount", "active_days", "session_count") for window in ("30d", "90d", "lifetime")),
    "days_since_last_deposit", "days_since_last_session", "days_since_registration",
    "stake_amount_7d", "deposit_amount_7d", "deposit_count_7d", "session_count_7d",
    "bet_count_24h", "stake_amount_24h", "deposit_amount_24h", "win_count_30d", "loss_count_30d",
)  # fmt: skip
_AT = datetime(2026, 1, 1, tzinfo=UTC)


def measure(size: Size) -> Iterator[Row]:
    """Measure ours, then the reference, one at a time."""
    players, seconds = (200, 2.0) if size == "quick" else (PLAYERS, 20.0)
    models = _models()
    with a_service(CRM_DEMO__ENABLED="false") as (instance, server):
        events = some_events(players * EVENTS_A_PLAYER, players)
        asyncio.run(send_all(server, posts(server, events, 500), 4))
        dsn = instance.state()["postgres"]
        asyncio.run(_promoted(dsn, server, models))
        features = asyncio.run(_features(server, players))
        asyncio.run(send_all(server, _ones(server, WARM_UP, players), 8))
        ours = asyncio.run(_open(server, _ones(server, int(PER_S * seconds), players), PER_S))
        scores = [_scores(server, n * 7919 % players) for n in range(int(PER_S * seconds))]
        ours_scores = asyncio.run(_open(server, scores, PER_S))
        ours_many = asyncio.run(_many(server, players, seconds))
        changed, changes = asyncio.run(_changing(dsn, server, players, seconds))
    with _a_plain_service(models, features) as plain:
        asyncio.run(send_all(plain, _ones(plain, WARM_UP, players), 8))
        theirs = asyncio.run(_open(plain, _ones(plain, int(PER_S * seconds), players), PER_S))
        theirs_many = asyncio.run(_many(plain, players, seconds))
    reference = "the same models behind plain FastAPI, features in memory"
    offered = f"one player a request, {PER_S} req/s offered"
    yield Row(
        f"{offered}: came through", ours.rate, "req/s", reference, theirs.rate,
        (at_least(0.99 * PER_S),), f"{ours.errors} errors",
    )  # fmt: skip
    for share in (0.5, 0.99):
        yield Row(
            f"{offered}: p{share * 100:.0f}", ours.percentile_ms(share), "ms",
            reference, theirs.percentile_ms(share), (at_most(100),) if share == 0.99 else (),
        )  # fmt: skip
    yield Row(
        f"GET scores of one player, {PER_S} req/s offered: p99", ours_scores.percentile_ms(0.99),
        "ms", targets=(at_most(100),), note=f"{ours_scores.errors} errors",
    )  # fmt: skip
    yield Row(
        f"{MANY} players a request, 2 connections", ours_many.rate * MANY, "players/s",
        reference, theirs_many.rate * MANY,
        note=f"p95 {ours_many.percentile_ms(0.95):.0f} ms, reference"
        f" {theirs_many.percentile_ms(0.95):.0f} ms; {ours_many.errors} errors",
    )  # fmt: skip
    yield Row(
        f"{CHANGING_PER_S} req/s while models are promoted and rolled back: failed",
        changed.errors, "requests", targets=(at_most(0),),
        note=f"{changes} changes, {len(changed.latencies)} requests,"
        f" p99 {changed.percentile_ms(0.99):.0f} ms",
    )  # fmt: skip


# --- what is asked -------------------------------------------------------------------------------


def _predict(server: Server, players: Sequence[int]) -> bytes:
    body = {"brand": BRAND, "player_ids": [f"player-{n}" for n in players]}
    return server.post("/v1/predictions", json.dumps(body).encode())


def _ones(server: Server, count: int, players: int) -> list[bytes]:
    return [_predict(server, [n * 7919 % players]) for n in range(count)]


def _scores(server: Server, player: int) -> bytes:
    return server.get(f"/v1/players/player-{player}/scores?brand={BRAND}")


async def _open(server: Server, requests: Sequence[bytes], per_s: float) -> Times:
    return await send_at(server, requests, per_s, CONNECTIONS)


async def _many(server: Server, players: int, seconds: float) -> Times:
    request = _predict(server, [n % players for n in range(MANY)])
    warm = await send_all(server, [request] * 4, 2)
    return await send_all(server, [request] * max(int(warm.rate * seconds / 2), 4), 2)


async def _changing(dsn: str, server: Server, players: int, seconds: float) -> tuple[Times, int]:
    """Ask on while the churn model is exchanged again and again."""
    requests = _ones(server, int(CHANGING_PER_S * seconds), players)
    asking = asyncio.create_task(_open(server, requests, CHANGING_PER_S))
    changes = 0
    async with open_models(dsn) as models:
        while not asking.done():
            if changes % 2:
                await models.rollback(BRAND, "churn", "bench")
            else:
                await models.promote("churn-2", "bench")
            changes += 1
            await asyncio.wait([asking], timeout=1.5)  # a replica looks every second
    return await asking, changes


async def _features(server: Server, players: int) -> dict[str, dict[str, object]]:
    """Read what the reference is given."""
    headers = {"authorization": f"Bearer {server.key}"}
    found: dict[str, dict[str, object]] = {}
    base_url = f"http://127.0.0.1:{server.port}"
    async with httpx.AsyncClient(base_url=base_url, headers=headers, timeout=30) as client:
        for n in range(players):
            answer = await client.get(f"/v1/players/player-{n}/features", params={"brand": BRAND})
            features = answer.json()["features"]
            found[f"player-{n}"] = {name: features[name] for name in _names()}
    return found


# --- the models ----------------------------------------------------------------------------------


def _names() -> list[str]:
    return list(dict.fromkeys([*PLACED_BY, *SCORED_BY]))


def _models() -> list[TrainedModel]:
    """Return clusters, two churn models and a value model; fitted to chance, but of usual size."""
    currency = load_brands(CLONE / "configs" / "brands")[BRAND].currency
    rng = np.random.default_rng(7)
    values = rng.gamma(1.0, 50.0, (4_000, len(SCORED_BY)))
    pull = values[:, 3] - values[:, 6] / 2 + rng.normal(0, 20, len(values))

    def score(model_id: str, kind: ModelKind, objective: str, labels: object) -> TrainedModel:
        options = {"objective": objective, "max_depth": DEPTH, "eta": 0.05, "nthread": 1}
        booster = xgboost.train(options, xgboost.DMatrix(values, labels), TREES)
        churn = kind == "churn"
        fitted = Fitted(
            Trees(bytes(booster.save_raw("ubj"))), Calibration("sigmoid" if churn else "line")
        )
        ranks = [Rank(name, least, None) for name, least in RANKS.items()] if churn else []
        model = ScoreModel(
            model_id, BRAND, "churn" if churn else "value", _AT, "xgboost", list(SCORED_BY),
            currency, 30, "churned" if churn else "ngr_amount", ranks, fitted.packed(),
        )  # fmt: skip
        return _trained(model_id, kind, list(SCORED_BY), model)

    profiles = [
        ClusterProfile(n, f"Group {n}", 1, 0.2, {}, None, None, None, []) for n in range(1, 6)
    ]
    width = len(PLACED_BY)
    clusters = PlayerClusters(
        "clusters-1", BRAND, _AT, "kmeans", 0, currency, list(PLACED_BY),
        Scaler("log", [0.0] * width, [2.0] * width, [1.5] * width),
        rng.normal(0, 1, (5, width)).tolist(), Metrics(5, 5, 1.0, "zscore", 0.5, 1.0), {},
        profiles, 1,
    )  # fmt: skip
    return [
        _trained("clusters-1", "clusters", list(PLACED_BY), clusters),
        score("churn-1", "churn", "binary:logistic", pull > 0),
        score("churn-2", "churn", "binary:logistic", pull > 10),
        score("value-1", "value", "reg:squarederror", np.maximum(-pull, 0)),
    ]


def _trained(model_id: str, kind: ModelKind, features: list[str], model: object) -> TrainedModel:
    return TrainedModel(
        model_id, BRAND, kind, "bench", _AT, 7, features, "f" * 64, "bench",
        TrainedOn(1, 1, _AT, "d" * 64), {}, {}, None, msgspec.json.encode(model), {},
    )  # fmt: skip


async def _promoted(dsn: str, server: Server, trained: Sequence[TrainedModel]) -> None:
    """Register and promote, and wait until they are in use."""
    async with open_models(dsn) as models:
        for one in trained:
            await models.add(one)
        for model_id in ("clusters-1", "churn-1", "value-1"):
            await models.promote(model_id, "bench")
    headers = {"authorization": f"Bearer {server.key}"}
    url = f"http://127.0.0.1:{server.port}/v1/players/player-0/scores?brand={BRAND}"
    async with httpx.AsyncClient(headers=headers, timeout=30) as client:
        for _ in range(200):
            answer = await client.get(url)
            if answer.status_code == 200 and not answer.json()["missing"]:
                return
            await asyncio.sleep(0.1)
    raise SystemExit(f"the models are not in use: {answer.text}")


@contextmanager
def _a_plain_service(
    models: Sequence[TrainedModel], features: dict[str, dict[str, object]]
) -> Iterator[Server]:
    """The reference: one uvicorn process, as we have one replica."""
    with tempfile.TemporaryDirectory(prefix="crm-plain-") as name:
        folder = Path(name)
        for one in models:
            (folder / f"{one.id}.json").write_bytes(one.document)
        (folder / "features.json").write_bytes(msgspec.json.encode(features))
        port = free_port()
        script = Path(__file__).with_name("prediction_service.py")
        service = subprocess.Popen([sys.executable, script, str(port), folder], cwd=CLONE)
        try:
            wait_until_listening(port, service)
            yield Server(port)
        finally:
            service.terminate()
            service.wait()


if __name__ == "__main__":
    assert set(_names()) <= set(FEATURES)
    main("predictions", "Predictions over HTTP", measure)
