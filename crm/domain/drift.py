"""Drift: how far the players of today are from those that a model was trained on.

The population stability index (PSI) over fixed bins: the sum of (a - e) * ln(a / e), where e and a
are a bin's shares then and now; 0.1 counts as a shift, 0.25 as a large one (Siddiqi, Credit Risk
Scorecards, 2006). Without drift PSI / (1/n + 1/m) is about chi-squared with bins - 1 degrees of
freedom (Yurdakul, Statistical Properties of Population Stability Index, 2018), so few players make
a large PSI by chance alone: what chance explains is no drift.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from crm.domain.clustering import PlayerClusters, assign
from crm.domain.errors import CrmError
from crm.domain.models import ModelKind

REFERENCE = "reference.json"  # its name among a model's files
BINS = 10
SCORE = "score"
_Z = 3.0902  # one look in a thousand is beyond it by chance
_EMPTY = 0.5  # players in an empty bin, whose logarithm has no end otherwise
Floats = NDArray[np.float64]


class NoReference(CrmError):
    """A model has no reference of its training set: its drift cannot be told."""

    code = "no_reference"


class Histogram(msgspec.Struct, frozen=True):
    """Counts by bin: below edges[0], then from each edge on; the last is of missing values."""

    edges: list[float]
    counts: list[int]


class Reference(msgspec.Struct, frozen=True):
    """What a training set looked like, in units; `score` is of the model's own answers on it.

    The score of player clusters is the cluster's id.
    """

    players: int
    features: dict[str, Histogram]
    score: Histogram | None = None


class Shift(msgspec.Struct, frozen=True):
    """How far one column has moved: its PSI, and up to what PSI chance explains it."""

    name: str
    psi: float
    chance: float

    def beyond(self, threshold: float) -> bool:
        """Whether it is a drift."""
        return self.psi >= threshold and self.psi > self.chance


class Thresholds(NamedTuple):
    """From which PSI on a feature, and the score, have drifted."""

    features: float
    scores: float


class Drift(msgspec.Struct, frozen=True):
    """One look at a model: the shifts of its features, the largest first, and of its score.

    `drifted` names what was beyond its threshold then.
    """

    model: str
    brand: str
    kind: ModelKind
    at: datetime
    players: int
    features: list[Shift]
    score: Shift | None
    drifted: list[str]


def histogram(values: Floats, edges: Sequence[float]) -> Histogram:
    """Count `values` (NaN missing) into the bins that `edges` make."""
    present = values[~np.isnan(values)]
    bins = np.searchsorted(np.asarray(edges, np.float64), present, side="right")
    counts = np.bincount(bins, minlength=len(edges) + 1).tolist()
    return Histogram(list(edges), [*counts, int(len(values) - len(present))])


def quantile_edges(values: Floats) -> list[float]:
    """Return up to BINS - 1 edges that part the present values evenly; ties share a bin."""
    present = np.sort(values[~np.isnan(values)])
    if not len(present):
        return []
    found = np.quantile(present, np.arange(1, BINS) / BINS, method="higher")
    edges = np.unique(found)
    if edges[0] == present[0]:  # nothing lies below it; what comes later may
        edges = np.unique(np.append(edges, np.nextafter(edges[0], np.inf)))
    return [float(edge) for edge in edges]


def reference(
    features: Sequence[str],
    values: Floats,
    scores: Floats | None = None,
    score_edges: Sequence[float] | None = None,
) -> Reference:
    """Return the reference of a training set: `values` (players x features, in units, NaN missing).

    `scores` are the model's answers on it; `score_edges` part them (default: by quantiles).
    """
    columns = {
        name: histogram(values[:, number], quantile_edges(values[:, number]))
        for number, name in enumerate(features)
    }
    score = None
    if scores is not None:
        score = histogram(scores, quantile_edges(scores) if score_edges is None else score_edges)
    return Reference(len(values), columns, score)


def id_edges(ids: Iterable[int]) -> list[float]:
    """Return the edges that give each cluster id a bin of its own."""
    ordered = sorted(set(ids))
    return [(low + high) / 2 for low, high in pairwise(ordered)]


def cluster_reference(model: PlayerClusters, values: Floats) -> Reference:
    """Return the reference of player clusters; their score is the cluster's id."""
    scores = assign(model, values).astype(np.float64)
    return reference(model.features, values, scores, id_edges(one.id for one in model.clusters))


def encode(found: Reference) -> bytes:
    """Return a reference as the file that lies with its model."""
    return msgspec.json.encode(found)


def decode(file: bytes) -> Reference:
    """Return the reference in a model's file; raises NoReference."""
    try:
        return msgspec.json.decode(file, type=Reference)
    except msgspec.MsgspecError:
        raise NoReference("the reference of this model cannot be read; train it again") from None


def psi(then: Sequence[int], now: Sequence[int]) -> float:
    """Return the population stability index of two counts over the same bins; 0 without players."""
    before, after = np.asarray(then, np.float64), np.asarray(now, np.float64)
    if not before.sum() or not after.sum():
        return 0.0
    expected = np.maximum(before, _EMPTY) / before.sum()
    actual = np.maximum(after, _EMPTY) / after.sum()
    used = (before > 0) | (after > 0)
    expected, actual = expected[used], actual[used]
    return float(np.sum((actual - expected) * np.log(actual / expected)))


def chance(then: Sequence[int], now: Sequence[int]) -> float:
    """Return the PSI that one look in a thousand exceeds where nothing has drifted."""
    n, m = sum(then), sum(now)
    used = sum(1 for pair in zip(then, now, strict=True) if any(pair))
    if not n or not m or used < 2:  # noqa: PLR2004 - one bin cannot shift
        return 0.0
    free = used - 1
    wide = 2 / (9 * free)  # Wilson and Hilferty's approximation of the chi-squared quantile
    return free * (1 - wide + _Z * math.sqrt(wide)) ** 3 * (1 / n + 1 / m)


def shift(name: str, then: Histogram, values: Floats) -> Shift:
    """Return how far `values` (NaN missing) are from a histogram of then."""
    now = histogram(values, then.edges)
    return Shift(name, psi(then.counts, now.counts), chance(then.counts, now.counts))


def drifted(features: Sequence[Shift], score: Shift | None, thresholds: Thresholds) -> list[str]:
    """Return the names of what is beyond its threshold."""
    found = [one.name for one in features if one.beyond(thresholds.features)]
    if score is not None and score.beyond(thresholds.scores):
        found.append(score.name)
    return found
