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
from crm.domain.cluster_shapes import Cores, Mixture, along, group_of
from crm.domain.errors import CrmError
from crm.domain.feature_list import features_of
from crm.domain.features import FEATURES, SHARE_DECIMALS, Feature

Algorithm = Literal["kmeans", "minibatch_kmeans", "gmm", "dbscan", "hdbscan"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
Scaling = Literal["zscore", "log", "robust", "quantile"]
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
NOISE = 0  # the id of the group of those who are in no group
_KNOTS = 201
# moved by registering alone, which says nothing of how somebody plays
_OF_REGISTRATION = ("days_since_registration", "days_since_last_activity", "active_days")


class CannotCluster(CrmError):
    """The players cannot be clustered as asked; the message says why and what to do."""

    code = "cannot_cluster"


class Knots(msgspec.Struct, frozen=True):
    """A feature's quantiles: at value `at[i]` the share `share[i]` of the players is below."""

    at: list[float]
    share: list[float]


class Scaler(msgspec.Struct, frozen=True):
    """One linear map per feature, after a signed logarithm for `log` and ranks for `quantile`.

    `fill` stands for missing; `knots` are those of `quantile`, one a feature.
    """

    method: Scaling
    fill: list[float]
    center: list[float]
    scale: list[float]
    knots: list[Knots] = []

    @classmethod
    def fit(cls, method: Scaling, values: Floats) -> Scaler:
        """Fit on `values` (players x features, NaN missing); a constant feature has scale 0.

        zscore, log and quantile use the sample standard deviation, robust the median and
        interquartile range (the standard deviation where that range is 0). Missing recency counts
        as the longest seen.
        """
        fill = np.nanmax(np.where(np.isnan(values), -np.inf, values), axis=0, initial=0.0)
        whole = np.where(np.isnan(values), fill, values)
        knots = [_knots(column) for column in whole.T] if method == "quantile" else []
        shown = _curved(method, knots, whole)
        deviation = shown.std(axis=0, ddof=1)
        if method == "robust":
            low, center, high = np.percentile(shown, [25, 50, 75], axis=0)
            scale = np.where(high > low, high - low, deviation)
        else:
            center, scale = shown.mean(axis=0), deviation
        constant = shown.min(axis=0) == shown.max(axis=0)
        scale = np.where(constant, 0.0, scale)
        return cls(method, fill.tolist(), center.tolist(), scale.tolist(), knots)

    def transform(self, values: Floats) -> Floats:
        """Return `values` (players x features) in scaled space, without missing ones."""
        whole = np.where(np.isnan(values), self.fill, values)
        shown = _curved(self.method, self.knots, whole)
        scaled: Floats = (shown - self.center) / np.where(np.equal(self.scale, 0), 1.0, self.scale)
        return scaled


def _curved(method: Scaling, knots: Sequence[Knots], values: Floats) -> Floats:
    """Return what is scaled linearly: logarithms keep the sign, ranks lie between 0 and 1."""
    if method == "log":
        return np.sign(values) * np.log1p(np.abs(values))
    if method == "quantile":
        columns = zip(values.T, knots, strict=True)
        return np.column_stack([np.interp(column, one.at, one.share) for column, one in columns])
    return values


def _knots(column: Floats) -> Knots:
    """Return a feature's quantiles; a value that many players have gets the middle of its ranks."""
    share = np.linspace(0.0, 1.0, _KNOTS)
    at, first = np.unique(np.quantile(column, share), return_index=True)
    last = np.append(first[1:], _KNOTS) - 1
    return Knots(at.tolist(), ((share[first] + share[last]) / 2).tolist())


class Metrics(msgspec.Struct, frozen=True):
    """How good a clustering is; `stability` is the mean adjusted Rand index over resamples.

    `wcss` is the within-cluster sum of squares on values scaled by `wcss_scaling`. `score` is the
    search's objective, None where k was given; `dbcv` is of densities, `noise` their share of
    players who are in no group.
    """

    k: int
    players: int
    wcss: float
    wcss_scaling: Scaling
    silhouette: float
    stability: float
    score: float | None = None
    dbcv: float | None = None
    noise: float = 0.0


class Difference(msgspec.Struct, frozen=True):
    """A cluster's mean of a feature against that of all players, in units; `effect` is how many
    standard deviations (of scaled values) lie between them.
    """

    feature: str
    mean: float
    whole: float
    effect: float


class Move(msgspec.Struct, frozen=True):
    """How many players the model before puts into cluster `before`, and this one into `after`."""

    before: int
    after: int
    players: int


class ClusterProfile(msgspec.Struct, frozen=True):
    """One cluster in words and units; `players` is a sample of ids, the most typical first.

    `rule` selects about the same players, with this precision and recall; None if none does.
    `differences` are the largest first; `noise` is the group of those who are in none.
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
    differences: list[Difference] = []
    silhouette: float | None = None
    noise: bool = False


class PlayerClusters(msgspec.Struct, frozen=True):
    """A trained clustering of a brand's players.

    Scaled values, along `axes` where there are some, belong to the nearest of `centroids`, or to
    the likeliest part of `mixture`, or to the nearest of `cores`; group `i` (from 0) has the id
    `ids[i]`, `i + 1` where none are kept. Ids stay with the groups from model to model (`before`
    is that of this one, `moves` who changes from it to this); `last_id` is the highest so far.

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
    axes: list[list[float]] | None = None
    mixture: Mixture | None = None
    cores: Cores | None = None
    ids: list[int] = []
    last_id: int = 0
    before: str | None = None
    moves: list[Move] = []

    def feature(self, name: str) -> Feature:
        """Return a feature as it was when the model was trained."""
        return next((one for one in self.own if one.name == name), None) or FEATURES[name]

    def cluster(self, cluster: int) -> ClusterProfile:
        """Return a cluster by its id; raises KeyError."""
        found = next((one for one in self.clusters if one.id == cluster), None)
        if found is None:
            raise KeyError(cluster)
        return found

    @property
    def highest_id(self) -> int:
        """The highest id that any model up to this one has given."""
        return max(self.last_id, *(one.id for one in self.clusters))


def assign(model: PlayerClusters, values: Floats) -> Ints:
    """Return the cluster ids of `values` (players x model.features, in units, NaN missing)."""
    return recognised(model, model.scaler.transform(values))


def recognised(model: PlayerClusters, scaled: Floats) -> Ints:
    """Return the cluster ids of scaled values."""
    points = along(model.axes, scaled)
    groups = group_of(model.centroids, model.mixture, model.cores, points)
    ids = model.ids or list(range(1, len(model.centroids) + 1))
    return np.array([*ids, NOISE])[groups]


def has_history(features: Sequence[str], values: Floats) -> Flags:
    """Return which rows of `values` (players x features, in units) show an act of the player.

    One act that any of `features` counts is enough; to register is none.
    """
    acts = [n for n, name in enumerate(features) if not name.startswith(_OF_REGISTRATION)]
    if not acts:  # nothing here tells an act from a registration
        return np.ones(len(values), bool)
    since = np.array([features[n].startswith("days_since") for n in acts], bool)
    shown = values[:, acts]
    found: Flags = (~np.isnan(shown) & (since | (shown != 0))).any(axis=1)
    return found


def placed(model: PlayerClusters, values: Floats) -> Ints:
    """Return the clusters of live players: the default one of those who have no history yet."""
    known = has_history(model.features, values)
    return np.where(known, assign(model, values), model.default_cluster)


def assign_player(model: PlayerClusters, raw: Mapping[str, int | None]) -> int:
    """Return the cluster of one player's raw features; without any history the default cluster."""
    values = [
        math.nan if value is None else value / units(model.feature(name), model.currency)
        for name, value in ((name, raw.get(name)) for name in model.features)
    ]
    return int(placed(model, np.array([values]))[0])


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
