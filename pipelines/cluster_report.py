"""A clustering described: clusters by size, with names, means, rules, samples, metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

import numpy as np

from crm.domain.cluster_names import names_of
from crm.domain.cluster_rules import Flags
from crm.domain.clustering import (
    DESCRIBING_FEATURES,
    ClusterProfile,
    Floats,
    Ints,
    Metrics,
    PlayerClusters,
    Scaler,
    Scaling,
    nearest,
)
from crm.domain.feature_list import features_of
from crm.domain.features import FEATURES
from crm.domain.ports import Columns
from pipelines.cluster_inputs import Request, fit_rows, matrix, varying
from pipelines.cluster_rules import short_rule
from pipelines.cluster_search import silhouette, stability

SAMPLE_PLAYERS = 5


@dataclass(frozen=True)
class Trained:
    """A model, and each player's cluster in the order of `player_ids`."""

    model: PlayerClusters
    player_ids: list[str]
    labels: Ints


def describe(  # what was asked, what was found, and when
    columns: Columns,
    request: Request,
    features: Sequence[str],
    scaler: Scaler,
    centroids: Floats,
    now: datetime,
) -> Trained:
    """Return the model: clusters by size, with names, means, rules, sample players and metrics."""
    values = matrix(columns, features, request.brand)
    scaled = scaler.transform(values)
    order = np.argsort(
        -np.bincount(nearest(centroids, scaled), minlength=len(centroids)), kind="stable"
    )
    centroids = centroids[order]
    labels = nearest(centroids, scaled)
    shown = list(dict.fromkeys((*features, *varying(columns, DESCRIBING_FEATURES))))
    in_sight = matrix(columns, shown, request.brand)
    known = features_of(request.brand).features
    model = PlayerClusters(
        id=uuid4().hex,
        brand=request.brand.id,
        created_at=now,
        algorithm=request.algorithm,
        seed=request.seed,
        currency=request.brand.currency,
        features=list(features),
        scaler=scaler,
        centroids=centroids.tolist(),
        metrics=_metrics(request, values, scaled, labels, len(centroids)),
        whole=_means(shown, in_sight),
        clusters=_profiles(columns, request, features, scaled, centroids, (shown, in_sight)),
        default_cluster=_default(features, scaler, centroids),
        own=[one for name, one in known.items() if name in shown and name not in FEATURES],
    )
    return Trained(model, columns.player_ids, labels + 1)


def _metrics(request: Request, values: Floats, scaled: Floats, labels: Ints, k: int) -> Metrics:
    """Measure the clustering; `wcss` is on z-scores unless a scaling was asked for."""
    scaling: Scaling = request.scaling or "zscore"
    same = scaling == request.used_scaling()
    space = scaled if same else Scaler.fit(scaling, values).transform(values)
    rows = fit_rows(len(scaled), request.seed)
    return Metrics(
        k=k,
        players=len(values),
        wcss=_wcss(space, labels, k),
        wcss_scaling=scaling,
        silhouette=silhouette(scaled, labels, request.seed),
        stability=stability(scaled[rows], labels[rows], k, request.seed),
    )


def _wcss(space: Floats, labels: Ints, k: int) -> float:
    return float(
        sum(
            ((space[labels == label] - space[labels == label].mean(axis=0)) ** 2).sum()
            for label in range(k)
            if (labels == label).any()
        )
    )


def _means(names: Sequence[str], values: Floats) -> dict[str, float]:
    """Return the means of what is not missing; 0 where everything is."""
    known = (~np.isnan(values)).sum(axis=0)
    sums = np.nansum(values, axis=0)
    return {
        name: float(total / count) if count else 0.0
        for name, total, count in zip(names, sums, known, strict=True)
    }


def _profiles(  # as above
    columns: Columns,
    request: Request,
    features: Sequence[str],
    scaled: Floats,
    centroids: Floats,
    sight: tuple[list[str], Floats],
) -> list[ClusterProfile]:
    shown, values = sight
    labels = nearest(centroids, scaled)
    means = [_means(shown, values[labels == n]) for n in range(len(centroids))]
    raw = {name: columns.values[name] for name in features}
    profiles = []
    for n, name in enumerate(names_of(means, _means(shown, values))):
        inside = labels == n
        rule = short_rule(raw, columns.missing, inside)
        profiles.append(
            ClusterProfile(
                id=n + 1,
                name=name,
                size=int(inside.sum()),
                share=float(inside.mean()),
                means=means[n],
                rule=rule.text(request.brand) if rule else None,
                precision=rule.precision if rule else None,
                recall=rule.recall if rule else None,
                players=_nearest_players(columns.player_ids, scaled, centroids[n], inside),
            )
        )
    return profiles


def _nearest_players(
    player_ids: Sequence[str], scaled: Floats, centroid: Floats, inside: Flags
) -> list[str]:
    rows = np.flatnonzero(inside)
    order = np.argsort(((scaled[rows] - centroid) ** 2).sum(axis=1), kind="stable")
    return [player_ids[row] for row in rows[order[:SAMPLE_PLAYERS]]]


def _default(features: Sequence[str], scaler: Scaler, centroids: Floats) -> int:
    """Return where a player stands who has done nothing: zero of all, and never seen."""
    nothing = [np.nan if name.startswith("days_since") else 0.0 for name in features]
    return int(nearest(centroids, scaler.transform(np.array([nothing])))[0]) + 1
