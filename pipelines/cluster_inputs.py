"""What is clustered: the request, the features that tell players apart, their values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crm.domain.brands import Brand
from crm.domain.clustering import (
    DESCRIBING_FEATURES,
    PAYMENT_FEATURES,
    PLAY_FEATURES,
    CannotCluster,
    Floats,
    Ints,
    Scaler,
    Scaling,
    check_features,
    in_units,
)
from crm.domain.feature_list import features_of
from crm.domain.ports import Columns
from pipelines.cluster_search import FIT_SAMPLE, Algorithm

MIN_PLAYERS = 20


@dataclass(frozen=True)
class Request:
    """What to train; None leaves the choice to the search or to the data."""

    brand: Brand
    algorithm: Algorithm = "kmeans"
    k: int | None = None
    features: tuple[str, ...] | None = None
    scaling: Scaling | None = None
    seed: int = 0
    budget_s: float | None = None
    min_share: float = 0.01

    def used_scaling(self) -> Scaling:
        """Return the scaling: as asked, else zscore for a given k, log for a searched one.

        Play is heavy-tailed: on z-scores the best silhouette sets a few big players against all
        others, and the minimum share then leaves no choice of k.
        """
        return self.scaling or ("zscore" if self.k is not None else "log")


def needed_features(request: Request) -> list[str]:
    """Return the features to ask the shards for; raises CannotCluster."""
    if request.features is not None:
        check_features(request.features, request.brand)
    chosen = request.features or (*PLAY_FEATURES, *PAYMENT_FEATURES)
    return list(dict.fromkeys((*chosen, *DESCRIBING_FEATURES)))


def prepare(columns: Columns, request: Request) -> tuple[list[str], Floats, Scaler]:
    """Return the features to cluster, their values and scaler; raises CannotCluster."""
    players = len(columns.player_ids)
    least = max(MIN_PLAYERS, 2 * (request.k or 2))
    if players < least:
        raise CannotCluster(
            f"brand {request.brand.id} has {players} players; clusters need at least {least}"
        )
    if request.features is not None:
        features = list(request.features)
        constant = sorted(set(features) - set(varying(columns, features)))
        if constant:
            raise CannotCluster(
                f"{', '.join(constant)}: the same for all players; leave it out of --features"
            )
    else:
        features = varying(columns, PLAY_FEATURES) or varying(columns, PAYMENT_FEATURES)
    if not features:
        raise CannotCluster(f"brand {request.brand.id} has neither bets nor deposits to compare")
    values = matrix(columns, features, request.brand)
    scaler = Scaler.fit(request.used_scaling(), values)
    distinct = len(np.unique(values, axis=0))
    if distinct < (request.k or 2):
        raise CannotCluster(f"only {distinct} different players: k may be at most {distinct}")
    return features, values, scaler


def varying(columns: Columns, names: Sequence[str]) -> list[str]:
    """Return those features that are not the same for all players; missing is a value too."""
    found = []
    for name in names:
        raw, mask = columns.values[name], columns.missing.get(name)
        present = raw if mask is None else raw[~mask]
        mixed = mask is not None and bool(mask.any()) and not bool(mask.all())
        if mixed or (len(present) and present.min() < present.max()):
            found.append(name)
    return found


def matrix(columns: Columns, names: Sequence[str], brand: Brand) -> Floats:
    """Return features in units (players x names), NaN where missing."""
    features = features_of(brand).features
    return np.column_stack(
        [
            in_units(
                features[name], columns.values[name], columns.missing.get(name), brand.currency
            )
            for name in names
        ]
    )


def fit_rows(players: int, seed: int) -> slice | Ints:
    """Return the rows to fit on: all, or a sample."""
    if players <= FIT_SAMPLE:
        return slice(None)
    return np.sort(np.random.default_rng(seed).choice(players, FIT_SAMPLE, replace=False))
