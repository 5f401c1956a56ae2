"""Trained models for tests: small, and whole."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from crm.adapters.memory_models import MemoryModels
from crm.domain.brands import Currency
from crm.domain.clustering import ClusterProfile, Metrics, PlayerClusters, Scaler
from crm.domain.models import Rank, ScoreModel, TrainedModel, TrainedOn
from tests.support.builders import NOON

AT = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)


def some_clusters(**changes: Any) -> PlayerClusters:
    """Two clusters by one feature."""
    fields: dict[str, Any] = {
        "id": "m1",
        "brand": "demo",
        "created_at": AT,
        "algorithm": "kmeans",
        "seed": 0,
        "currency": Currency("EUR", 2),
        "features": ["bet_count_lifetime"],
        "scaler": Scaler("log", [1.0], [0.1], [0.30000000000000004]),
        "centroids": [[0.1], [1 / 3]],
        "metrics": Metrics(2, 40, 12.5, "zscore", 0.5, 1.0),
        "whole": {"bet_count_lifetime": 3.25},
        "clusters": [
            ClusterProfile(
                1, "Casual players", 40, 1.0, {"bet_count_lifetime": 3.25}, None, None, None,
                ["-a", "007"],
            )
        ],
        "default_cluster": 1,
    }  # fmt: skip
    return PlayerClusters(**(fields | changes))


def a_score(**changes: Any) -> ScoreModel:
    """A score that nothing can open."""
    fields: dict[str, Any] = {
        "id": "m1",
        "brand": "demo",
        "kind": "churn",
        "created_at": AT,
        "algorithm": "xgboost",
        "features": ["bet_count_lifetime"],
        "currency": Currency("EUR", 2),
        "horizon_days": 30,
        "target": "churned" if changes.get("kind", "churn") == "churn" else "ngr_amount",
        "ranks": [Rank("low", 0.0, 0.1)],
        "fitted": b"\x00fitted",
    }
    return ScoreModel(**(fields | changes))


def trained(**changes: Any) -> TrainedModel:
    """What a training hands over; the document is of the model's own id, brand and kind."""
    fields: dict[str, Any] = {
        "id": "m1",
        "brand": "demo",
        "kind": "clusters",
        "algorithm": "kmeans",
        "created_at": AT,
        "seed": 7,
        "features": ["bet_count_lifetime"],
        "feature_list": "f" * 64,
        "code_version": "0.1.0+abc",
        "data": TrainedOn(40, 40, NOON, "d" * 64),
        "params": {"k": "2"},
        "metrics": {"silhouette": 0.30000000000000004, "wcss": 12.5},
        "beats_baseline": None,
        "files": {"card.md": "# Größe\n".encode(), "sizes.png": b"\x89PNG\x00"},
    } | changes
    if "document" not in changes:
        whose = {name: fields[name] for name in ("id", "brand", "algorithm", "created_at")}
        made = (
            some_clusters(**whose)
            if fields["kind"] == "clusters"
            else a_score(**whose, kind=fields["kind"])
        )
        fields["document"] = msgspec.json.encode(made)
    return TrainedModel(**fields)


async def serve(models: MemoryModels, clusters: PlayerClusters) -> None:
    """Register player clusters and have them serve."""
    of = {"id": clusters.id, "brand": clusters.brand}
    await models.add(trained(**of, document=msgspec.json.encode(clusters)))
    await models.promote(clusters.id, "test")
