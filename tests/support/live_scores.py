"""Serving models for tests, and what they say of one player, by definition."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np

from crm.adapters.scorers import Calibration, Fitted, Trees, Weights, open_scorer
from crm.domain.brands import Currency
from crm.domain.clustering import (
    ClusterProfile,
    Metrics,
    PlayerClusters,
    Scaler,
    assign_player,
    units,
)
from crm.domain.live_scores import ServingScores
from crm.domain.models import ModelKind, Rank, ScoreModel, Scorer
from crm.domain.predictions import BrandModels
from crm.domain.scores import RANKS

EUR = Currency("EUR", 2)
AT = datetime(2026, 3, 1, tzinfo=UTC)
# each moves in another way: by the hour, the day, whole days since, events alone
CHURN_FEATURES = [
    "days_since_last_bet", "bet_count_24h", "bet_count_7d", "bet_count_trend_7d",
    "deposit_count_lifetime", "days_since_registration",
]  # fmt: skip
VALUE_FEATURES = ["stake_amount_30d", "days_since_last_activity", "active_days_90d"]
CLUSTER_FEATURES = ["bet_count_7d", "days_since_last_bet", "stake_amount_lifetime"]


def _scaler(columns: int) -> Scaler:
    return Scaler("zscore", [7.0] * columns, [2.0] * columns, [3.0] * columns)


def _score_model(identity: str, kind: str, features: list[str], fitted: Fitted) -> ScoreModel:
    ranks = [Rank(name, least, None) for name, least in RANKS.items()] if kind == "churn" else []
    return ScoreModel(
        id=identity,
        brand="demo",
        kind=kind,  # type: ignore[arg-type]  # churn or value
        created_at=AT,
        algorithm="logistic",
        features=features,
        currency=EUR,
        horizon_days=30,
        target="ngr_amount" if kind == "value" else "churned",
        ranks=ranks,
        fitted=fitted.packed(),
    )


def a_churn_model(number: int = 1) -> ScoreModel:
    """Return a model whose scores are all over the ranks; each number has its own."""
    weights = [1.5, -2.0, -0.7, 0.4, -1.0, 0.3]
    weights = weights[number % 6 :] + weights[: number % 6]
    fitted = Fitted(Weights(_scaler(6), weights, 0.2 * number), Calibration("sigmoid"))
    return _score_model(f"churn-{number}", "churn", CHURN_FEATURES, fitted)


def a_model_of_windows() -> ScoreModel:
    """Return a model of churn that nothing but windows moves, while nobody acts."""
    features = ["bet_count_24h", "bet_count_7d", "bet_count_trend_7d", "event_count_90d"]
    fitted = Fitted(Weights(_scaler(4), [1.0, -0.8, 0.5, -0.1], 0.3), Calibration("sigmoid"))
    return _score_model("churn-windows", "churn", features, fitted)


def a_value_model(number: int = 1) -> ScoreModel:
    """Return a model whose scores are amounts of either sign."""
    fitted = Fitted(
        Weights(_scaler(3), [10.0 * number, -3.7, 1.1], 0.5), Calibration("line", 1.3, 0.015)
    )
    return _score_model(f"value-{number}", "value", VALUE_FEATURES, fitted)


def some_clusters(number: int = 1) -> PlayerClusters:
    """Return three clusters; who has no history is in the second."""
    shift = 0.1 * number
    centroids = [[1.0 + shift, -0.5, 0.5], [-0.6, 0.2 * number, 6.0], [0.0, 2.0, 14.0 + shift]]
    profiles = [ClusterProfile(n, f"c{n}", 1, 1 / 3, {}, None, None, None, []) for n in (1, 2, 3)]
    return PlayerClusters(
        id=f"clusters-{number}",
        brand="demo",
        created_at=AT,
        algorithm="kmeans",
        seed=1,
        currency=EUR,
        features=CLUSTER_FEATURES,
        scaler=_scaler(3),
        centroids=centroids,
        metrics=Metrics(3, 3, 1.0, "zscore", 0.5, 0.5),
        whole={},
        clusters=profiles,
        default_cluster=2,
    )


def some_serving(number: int = 1) -> ServingScores:
    """Return all three kinds of models, opened."""
    clusters, churn, value = some_clusters(number), a_churn_model(number), a_value_model(number)
    ids: dict[ModelKind, str] = {"clusters": clusters.id, "churn": churn.id, "value": value.id}
    return ServingScores(BrandModels(clusters, open_scorer(churn), open_scorer(value), ids))


def scores_of(
    serving: ServingScores, values: Mapping[str, int | None]
) -> dict[str, int | str | None]:
    """Return what the models say of one player's raw features, each asked for him alone."""
    models = serving.models
    found: dict[str, int | str | None] = dict.fromkeys(
        ("cluster", "churn_probability", "churn_rank", "predicted_value")
    )
    if models.clusters is not None:
        found["cluster"] = assign_player(models.clusters, values)
    if models.churn is not None:
        probability = _score(models.churn, values)
        begun = [rank for rank in models.churn.model.ranks if probability >= rank.least]
        found["churn_probability"] = round(round(probability, 6) * 1e6)
        found["churn_rank"] = begun[-1].name if begun else None
    if models.value is not None:
        decimals = models.value.model.currency.decimals
        minor = round(_score(models.value, values), decimals) * 10**decimals
        found["predicted_value"] = round(max(-1e15, min(minor, 1e15)))
    return found


def _score(scorer: Scorer, values: Mapping[str, int | None]) -> float:
    model = scorer.model
    row = [
        math.nan if (value := values[name]) is None
        else value / units(model.feature(name), model.currency)
        for name in model.features
    ]  # fmt: skip
    return float(scorer.scores(np.array([row]))[0])


def trees_of(features: list[str], rounds: int = 200, depth: int = 6, seed: int = 1) -> Fitted:
    """Return as many trees of XGBoost as a real model has, fitted to chance."""
    import xgboost

    rng = np.random.default_rng(seed)
    values = rng.gamma(1.0, 20.0, (4_000, len(features)))
    pull = values @ rng.normal(size=len(features)) / 40
    left = rng.random(len(values)) < 1 / (1 + np.exp(-pull))
    options = {"objective": "binary:logistic", "max_depth": depth, "eta": 0.1, "nthread": 1}
    booster = xgboost.train(options, xgboost.DMatrix(values, left, nthread=1), rounds)
    return Fitted(Trees(bytes(booster.save_raw("ubj"))), Calibration("sigmoid"))
