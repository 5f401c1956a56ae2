"""Player clusters: what is stored of them, how a player is assigned, how a cluster is described.

A cluster's centroid lies in scaled space (`Scaler`); what people read is in units: counts, days,
and money in major units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from crm.domain.brands import Brand, Currency
from crm.domain.errors import CrmError
from crm.domain.feature_list import features_of
from crm.domain.features import FEATURES, SHARE_DECIMALS, Feature

Scaling = Literal["zscore", "log", "robust"]
SCALINGS: tuple[Scaling, ...] = get_args(Scaling)
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

# what players do, else (a shop without bets) what they pay: the first set that tells players apart
PLAY_FEATURES = ("session_count_lifetime", "bet_count_lifetime", "stake_amount_lifetime")
PAYMENT_FEATURES = ("deposit_count_lifetime", "deposit_amount_lifetime", "days_since_last_deposit")
# shown beside the features that were clustered, because marketers ask for them first
DESCRIBING_FEATURES = (
    "deposit_amount_lifetime",
    "ggr_amount_lifetime",
    "days_since_last_activity",
)
_ROWS_AT_ONCE = 100_000


class CannotCluster(CrmError):
    """The players cannot be clustered as asked; the message says why and what to do."""

    code = "cannot_cluster"


class Scaler(msgspec.Struct, frozen=True):
    """One linear map per feature, after a signed logarithm for `log`; `fill` stands for missing."""

    method: Scaling
    fill: list[float]
    center: list[float]
    scale: list[float]

    @classmethod
    def fit(cls, method: Scaling, values: Floats) -> Scaler:
        """Fit on `values` (players x features, NaN missing); a constant feature has scale 0.

        zscore and log use the sample standard deviation, robust the median and interquartile range
        (the standard deviation where that range is 0). Missing recency counts as the longest seen.
        """
        fill = np.nanmax(np.where(np.isnan(values), -np.inf, values), axis=0, initial=0.0)
        shown = _logarithm(method, np.where(np.isnan(values), fill, values))
        deviation = shown.std(axis=0, ddof=1)
        if method == "robust":
            low, center, high = np.percentile(shown, [25, 50, 75], axis=0)
            scale = np.where(high > low, high - low, deviation)
        else:
            center, scale = shown.mean(axis=0), deviation
        constant = shown.min(axis=0) == shown.max(axis=0)
        return cls(method, fill.tolist(), center.tolist(), np.where(constant, 0.0, scale).tolist())

    def transform(self, values: Floats) -> Floats:
        """Return `values` (players x features) in scaled space, without missing ones."""
        shown = _logarithm(self.method, np.where(np.isnan(values), self.fill, values))
        scaled: Floats = (shown - self.center) / np.where(np.equal(self.scale, 0), 1.0, self.scale)
        return scaled


def _logarithm(method: Scaling, values: Floats) -> Floats:
    return np.sign(values) * np.log1p(np.abs(values)) if method == "log" else values


class Metrics(msgspec.Struct, frozen=True):
    """How good a clustering is; `stability` is the mean adjusted Rand index over resamples.

    `wcss` is the within-cluster sum of squares on values scaled by `wcss_scaling`.
    """

    k: int
    players: int
    wcss: float
    wcss_scaling: Scaling
    silhouette: float
    stability: float


class ClusterProfile(msgspec.Struct, frozen=True):
    """One cluster in words and units; `players` is a sample of ids, nearest to the centroid first.

    `rule` selects about the same players, with this precision and recall; None if none does.
    """

    id: int
    name: str
    size: int
    share: float
    means: dict[str, float]
    rule: str | None
    precision: float | None
    recall: float | None
    players: list[str]


class PlayerClusters(msgspec.Struct, frozen=True):
    """A trained clustering of a brand's players; cluster `i` (from 1) has centroid `i - 1`.

    `whole` are the means over all players; `default_cluster` is that of a player without history;
    `own` are those features that are of the brand's own measures, which may change meanwhile.
    """

    id: str
    brand: str
    created_at: datetime
    algorithm: str
    seed: int
    currency: Currency
    features: list[str]
    scaler: Scaler
    centroids: list[list[float]]
    metrics: Metrics
    whole: dict[str, float]
    clusters: list[ClusterProfile]
    default_cluster: int
    own: list[Feature] = []

    def feature(self, name: str) -> Feature:
        """Return a feature as it was when the model was trained."""
        return next((one for one in self.own if one.name == name), None) or FEATURES[name]


def nearest(centroids: Floats, scaled: Floats) -> Ints:
    """Return the index of each row's nearest centroid (k x features); ties go to the first."""
    found = np.empty(len(scaled), np.int64)
    norms = np.einsum("kf,kf->k", centroids, centroids)
    for start in range(0, len(scaled), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        found[rows] = np.argmin(norms - 2 * scaled[rows] @ centroids.T, axis=1)
    return found


def assign(model: PlayerClusters, values: Floats) -> Ints:
    """Return the cluster ids of `values` (players x model.features, in units, NaN missing)."""
    return nearest(np.array(model.centroids), model.scaler.transform(values)) + 1


def assign_player(model: PlayerClusters, raw: Mapping[str, int | None]) -> int:
    """Return the cluster of one player's raw features; without any history the default cluster."""
    shown = [raw.get(name) for name in model.features]
    if not any(shown):
        return model.default_cluster
    values = [
        math.nan if value is None else value / units(model.feature(name), model.currency)
        for name, value in zip(model.features, shown, strict=True)
    ]
    return int(assign(model, np.array([values]))[0])


def in_units(feature: Feature, raw: Ints, missing: Flags | None, currency: Currency) -> Floats:
    """Return a raw feature column in the units that people read, NaN where missing."""
    values: Floats = raw / units(feature, currency)
    return values if missing is None else np.where(missing, np.nan, values)


def units(feature: Feature, currency: Currency) -> float:
    """Return how many of a feature's raw integers make up 1 of what people read."""
    decimals = {"money": currency.decimals, "share": SHARE_DECIMALS}
    return float(10 ** (feature.decimals or decimals.get(feature.unit, 0)))


def check_features(names: Sequence[str], brand: Brand) -> None:
    """Raise CannotCluster unless each name is a feature with a mean, and stands once."""
    features = features_of(brand).features
    for name in names:
        if name not in features:
            raise CannotCluster(f"no such feature: {name!r} (GET /v1/features lists them)")
        if features[name].unit == "time":
            raise CannotCluster(f"{name} is a point in time; use a days_since_... feature instead")
    if len(set(names)) < len(names) or not names:
        raise CannotCluster("name at least one feature, and each only once")


def show_value(feature: Feature, value: float, currency: Currency) -> str | float:
    """Return a mean for a client: money as a decimal string, the rest rounded to 4 decimals."""
    if feature.unit == "money":
        return f"{value:.{currency.decimals}f}"
    return round(value, 4)
