"""A churn model of your own: the product's features in, a model in the product's registry out.

    ray job submit --address http://127.0.0.1:8265 --working-dir . -- python train.py --brand demo

A script may choose rows, features, estimator, and what counts as better. What it has to keep:
features as of a past moment and labels from after it, a document that the service can load, and a
baseline on the same rows. Here: a logistic regression beside recency alone.
"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime, timedelta
from io import BytesIO
from uuid import uuid4

import msgspec
import numpy as np
import polars as pl
import ray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from configs.brands import load_brands
from configs.settings import load_settings
from crm.adapters import clock
from crm.adapters.lake import Lake
from crm.adapters.scorers import Calibration, Fitted, Weights, open_scorer
from crm.domain.brands import Brand, choose
from crm.domain.clustering import Floats, Scaler, in_units
from crm.domain.drift import REFERENCE, encode, reference
from crm.domain.errors import CrmError
from crm.domain.feature_list import features_of
from crm.domain.models import Rank, ScoreModel, TrainedModel, TrainedOn
from crm.domain.scores import RANKS, CannotScore
from pipelines import features
from pipelines.code_version import code_version
from pipelines.model_registry import data_digest, register

FEATURES = ["days_since_last_activity", "bet_count_7d", "bet_count_30d", "stake_amount_30d",
            "deposit_count_30d", "ggr_amount_30d", "active_days_30d"]  # fmt: skip
RECENCY = "days_since_last_activity"
HELD_OUT = 0.3


def read(folder: str, lake: Lake, brand: Brand) -> tuple[list[str], Floats, Floats]:
    """Return who was known as of the build's moment, their features in units, and who has left."""
    parts = [
        pl.read_parquet(BytesIO(lake.read(name)))
        for name in sorted(lake.names(folder))
        if name.endswith(".parquet")
    ]
    table = pl.concat(parts).sort("player_id")
    known = features_of(brand).features
    columns = [
        in_units(
            known[name],
            table[name].fill_null(0).to_numpy(),
            table[name].is_null().to_numpy(),
            brand.currency,
        )
        for name in FEATURES
    ]
    left = 1 - table["label_active"].to_numpy().astype(np.float64)
    return table["player_id"].to_list(), np.column_stack(columns), left


def weights(names: list[str], values: Floats, left: Floats) -> tuple[Fitted, Scaler]:
    """Fit a logistic regression on some of the features; its own margin is the log-odds."""
    chosen = values[:, [FEATURES.index(name) for name in names]]
    scaler = Scaler.fit("log", chosen)
    model = LogisticRegression(max_iter=1_000).fit(scaler.transform(chosen), left)
    margin = Weights(scaler, model.coef_[0].tolist(), float(model.intercept_[0]))
    return Fitted(margin, Calibration("sigmoid")), scaler


def document(
    brand: Brand, names: list[str], fitted: Fitted, days: int, now: datetime
) -> ScoreModel:
    """Return what the service loads."""
    return ScoreModel(
        id=uuid4().hex,
        brand=brand.id,
        kind="churn",
        created_at=now,
        algorithm="own-logistic",
        features=names,
        currency=brand.currency,
        horizon_days=days,
        target="churned",
        ranks=[Rank(name, least, None) for name, least in RANKS.items()],
        fitted=fitted.packed(),
    )


def train(
    brand: Brand, folder: str, lake: Lake, as_of: datetime, days: int, seed: int
) -> TrainedModel:
    """Fit on some players, judge on the others, and hand all of it over; raises CannotScore."""
    players, values, left = read(folder, lake, brand)
    if len(players) < 100 or len(np.unique(left)) < 2:  # noqa: PLR2004 - too few to say anything
        raise CannotScore(
            f"{len(players)} players, {left.sum():.0f} of them left: too few to learn"
        )
    held_out = np.random.default_rng(seed).random(len(players)) < HELD_OUT
    now, metrics = clock.now(), dict[str, float]()
    for name, chosen in (("recency", [RECENCY]), ("own", FEATURES)):
        fitted, _ = weights(chosen, values[~held_out], left[~held_out])
        model = document(brand, chosen, fitted, days, now)
        rows = values[held_out][:, [FEATURES.index(one) for one in chosen]]
        scores = open_scorer(model).scores(rows)
        metrics[f"{name}_auc"] = float(roc_auc_score(left[held_out], scores))
        metrics[f"{name}_log_loss"] = float(log_loss(left[held_out], scores))
    seen = reference(FEATURES, values, open_scorer(model).scores(values))
    return TrainedModel(
        id=model.id,
        brand=brand.id,
        kind="churn",
        algorithm=model.algorithm,
        created_at=now,
        seed=seed,
        features=FEATURES,
        feature_list=features_of(brand).version,
        code_version=code_version(),
        data=TrainedOn(len(players), len(players), as_of, data_digest(players, values)),
        params={"horizon_days": str(days)},
        metrics=metrics,
        beats_baseline=metrics["own_log_loss"] < metrics["recency_log_loss"],
        document=msgspec.json.encode(model),
        files={"card.md": card(brand, metrics).encode(), REFERENCE: encode(seen)},
    )


def card(brand: Brand, metrics: dict[str, float]) -> str:
    """Return the model's card."""
    lines = [f"| {name} | {value:.4f} |" for name, value in sorted(metrics.items())]
    return "\n".join(
        [f"# Churn of {brand.id}, own script", "", "| metric | held out |", "|---|---|", *lines]
    )


def main() -> int:
    """Train and register; the new model is a candidate until somebody promotes it."""
    parser = argparse.ArgumentParser(prog="train.py")
    parser.add_argument("--brand")
    parser.add_argument("--horizon-days", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    settings = load_settings()  # a submitted job finds the running instance by its environment
    try:
        brand = choose(load_brands(settings.brands_dir), asked.brand)
        ray.init("auto", namespace="crm", log_to_driver=False)
        as_of = clock.now() - timedelta(days=asked.horizon_days)
        request = features.Request(brand, as_of, known_by=as_of, label_days=asked.horizon_days)
        built = features.build(settings, request)
        lake = Lake(str(settings.lake.uri))
        trained = train(brand, built.folder, lake, as_of, asked.horizon_days, asked.seed)
        registered = register(settings, trained, "never")
    except CrmError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return 1
    sys.stdout.write(msgspec.json.encode(registered).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
