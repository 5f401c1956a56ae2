"""What is clustered: the request, the features that tell players apart, their values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crm.domain.brands import Brand
from crm.domain.cluster_shapes import Floats
from crm.domain.clustering import (
    ALGORITHMS,
    DESCRIBING_FEATURES,
    PAYMENT_FEATURES,
    PLAY_FEATURES,
    Algorithm,
    CannotCluster,
    PlayerClusters,
    Scaler,
    Scaling,
    check_features,
    in_units,
)
from crm.domain.feature_list import features_of
from crm.domain.ports import Columns
from pipelines.cluster_fits import DENSITIES
from pipelines.cluster_quality import sampled
from pipelines.cluster_search import SEARCH_SAMPLE, Sample
from pipelines.cluster_space import PARTS, REDUCTIONS, Reduction, Space

MIN_PLAYERS = 20
TRIALS = 16
AT_ONCE = 4
FIT_SAMPLE = 100_000  # more players than this do not move the centroids
_SEARCHED_SCALINGS: tuple[Scaling, ...] = ("log", "zscore", "robust", "quantile")
_WORTH_REDUCING = 3  # features, at least


@dataclass(frozen=True)
class Request:
    """What to train; None leaves the choice to the search or to the data.

    At most `trials` ways are tried, new ones for `budget_s` at most; `at_once` is how many may be
    on their way together, and a part of what the result depends on.
    """

    brand: Brand
    algorithm: Algorithm | None = None
    k: int | None = None
    features: tuple[str, ...] | None = None
    scaling: Scaling | None = None
    reduction: Reduction | None = None
    seed: int = 0
    budget_s: float | None = None
    trials: int = TRIALS
    at_once: int = AT_ONCE
    min_share: float = 0.01

    @property
    def common(self) -> Scaling:
        """The space in which groupings are compared: as asked, zscore for a given k, else log.

        Play is heavy-tailed: on z-scores the best silhouette sets a few big players against all
        others, and the minimum share then leaves no choice.
        """
        return self.scaling or ("zscore" if self.k is not None else "log")

    @property
    def most_trials(self) -> int:
        """How many trials there will be at most."""
        return self.trials if self.k is None else PARTS[self.algorithm or "kmeans"]

    def space(self, features: int) -> Space:
        """Return what is searched over so many features."""
        algorithms, scalings, reductions = ALGORITHMS, _SEARCHED_SCALINGS, REDUCTIONS
        if self.algorithm is not None or self.k is not None:
            algorithms = (self.algorithm or "kmeans",)
        if self.scaling is not None or self.k is not None:
            scalings = (self.common,)
        if self.reduction is not None or self.k is not None or features < _WORTH_REDUCING:
            reductions = (self.reduction or "none",)
        parts = 1 if self.k is None else PARTS[algorithms[0]]
        return Space(
            algorithms, scalings, reductions, self.k, self.seed, self.min_share, parts
        )  # fmt: skip

    def as_params(self) -> dict[str, str]:
        """Return what was asked, without what was left open."""
        asked = {
            "algorithm": self.algorithm, "k": self.k, "scaling": self.scaling,
            "reduction": self.reduction, "features": self.features and ",".join(self.features),
            "seed": self.seed, "budget_s": self.budget_s, "trials": self.trials,
            "at_once": self.at_once, "min_share": self.min_share,
        }  # fmt: skip
        return {name: str(value) for name, value in asked.items() if value is not None}


@dataclass(frozen=True)
class Prepared:
    """The features to cluster, their values of all players in units, and a sample to search on."""

    features: list[str]
    values: Floats
    sample: Sample


def check_request(request: Request) -> None:
    """Raise CannotCluster for what does not go together."""
    if request.k is not None and request.algorithm in DENSITIES:
        raise CannotCluster(f"{request.algorithm} finds how many groups there are: leave out --k")
    needed_features(request)


def needed_features(request: Request, before: PlayerClusters | None = None) -> list[str]:
    """Return the features to ask the shards for, those of the model before too, if there still are.

    Raises CannotCluster.
    """
    if request.features is not None:
        check_features(request.features, request.brand)
    chosen = request.features or (*PLAY_FEATURES, *PAYMENT_FEATURES)
    known = features_of(request.brand).features
    former = [name for name in before.features if name in known] if before else []
    return list(dict.fromkeys((*chosen, *DESCRIBING_FEATURES, *former)))


def prepare(columns: Columns, request: Request) -> Prepared:
    """Return what to cluster; raises CannotCluster."""
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
    distinct = len(np.unique(values, axis=0))
    if distinct < (request.k or 2):
        raise CannotCluster(f"only {distinct} different players: k may be at most {distinct}")
    wanted = dict.fromkeys((request.common, *request.space(len(features)).scalings))
    scalers = {method: Scaler.fit(method, values) for method in wanted}
    rows = sampled(players, SEARCH_SAMPLE, request.seed)
    return Prepared(features, values, Sample(values[rows], scalers, request.common))


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
