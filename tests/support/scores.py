"""Small fitted score models, and the rows that they were fitted to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np

from crm.adapters.scorers import Calibration, Fitted, Trees, Weights
from crm.domain.brands import Currency
from crm.domain.clustering import Floats, Scaler
from crm.domain.models import Rank, ScoreModel
from crm.domain.scores import RANKS

FEATURES = ["days_since_last_bet", "bet_count_30d", "deposit_amount_lifetime"]


def some_players(players: int = 300, seed: int = 1) -> Floats:
    """Return values of FEATURES in units; a fifth of the players never bet."""
    rng = np.random.default_rng(seed)
    values = np.column_stack(
        (
            rng.integers(0, 90, players),
            rng.integers(0, 50, players),
            np.round(rng.gamma(1.0, 100.0, players), 2),
        )
    ).astype(np.float64)
    values[rng.random(players) < 0.2, 0] = np.nan
    return values


def a_score_model(fitted: Fitted | None = None, **overrides: Any) -> ScoreModel:
    """Return a churn model of FEATURES: who has not bet for long is about to leave."""
    fields = {
        "id": "churn-1",
        "brand": "demo",
        "kind": "churn",
        "created_at": datetime(2026, 3, 1, tzinfo=UTC),
        "algorithm": "logistic",
        "features": FEATURES,
        "currency": Currency("EUR", 2),
        "horizon_days": 30,
        "target": "churned",
        "ranks": [Rank(name, least, None) for name, least in RANKS.items()],
        "fitted": (fitted or weighted()).packed(),
    }
    return ScoreModel(**fields | overrides)  # type: ignore[arg-type]  # as they are named


def weighted(calibration: Calibration | None = None) -> Fitted:
    """Return a weighted sum over log-scaled features."""
    scaler = Scaler.fit("log", some_players())
    return Fitted(Weights(scaler, [1.5, -1.0, -0.25], 0.5), calibration or Calibration("sigmoid"))


def of_trees(calibration: Calibration | None = None, seed: int = 1) -> Fitted:
    """Return a few trees of XGBoost, fitted to chance that depends on all of FEATURES."""
    import xgboost

    values = some_players(1_000, seed)
    pull = np.nan_to_num(values[:, 0], nan=90) / 30 - values[:, 1] / 20 - values[:, 2] / 300
    left = np.random.default_rng(seed + 1_000).random(len(values)) < 1 / (1 + np.exp(-pull))
    options = {"objective": "binary:logistic", "max_depth": 3, "eta": 0.3, "nthread": 1}
    booster = xgboost.train(options, xgboost.DMatrix(values, left, nthread=1), 20)
    return Fitted(Trees(bytes(booster.save_raw("ubj"))), calibration or Calibration("sigmoid"))


def with_ids(model: ScoreModel, identity: str) -> ScoreModel:
    """Return the same model under another id."""
    return msgspec.structs.replace(model, id=identity)
