"""How good scores are, on rows that no fit has seen: discrimination, calibration, lift, error."""

from __future__ import annotations

import msgspec
import numpy as np

from crm.domain.clustering import Floats
from crm.domain.models import Rank
from crm.domain.scores import RANKS, ranks_of

BINS = 10
TOP_SHARE = 0.1
_NEVER_SURE = 1e-6  # a probability of 0 that is wrong once would cost infinitely much


class Bin(msgspec.Struct, frozen=True):
    """A tenth of the players by score: what was said of them on average, and what came true."""

    players: int
    said: float
    true: float


class Gain(msgspec.Struct, frozen=True):
    """Of the `share` of players with the highest scores: the share of all that came true, and how
    many times that of as many players taken by chance.
    """

    share: float
    gain: float
    lift: float


def auc(scores: Floats, truth: Floats) -> float:
    """Return the chance that one of the true has a higher score than one of the others; ties half.

    Raises nothing: without both kinds it is one half.
    """
    hits = float(truth.sum())
    others = len(truth) - hits
    if not hits or not others:
        return 0.5
    return float((ranked(scores)[truth > 0].sum() - hits * (hits + 1) / 2) / (hits * others))


def ranked(values: Floats) -> Floats:
    """Return the rank of each value from 1; equal values share the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    found: Floats = (last - (count - 1) / 2)[place]
    return found


def spearman(scores: Floats, truth: Floats) -> float:
    """Return the rank correlation; 0 where one of them is the same for all."""
    first, second = ranked(scores), ranked(truth)
    if first.min() == first.max() or second.min() == second.max():
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def of_churn(scores: Floats, truth: Floats) -> dict[str, float]:
    """Return what is reported of probabilities."""
    sure = np.clip(scores, _NEVER_SURE, 1 - _NEVER_SURE)
    return {
        "auc": auc(scores, truth),
        "log_loss": float(-np.mean(truth * np.log(sure) + (1 - truth) * np.log(1 - sure))),
        "brier": float(np.mean((scores - truth) ** 2)),
        "calibration_error": calibration_error(scores, truth),
        "lift": top_lift(scores, truth),
        "mean": float(scores.mean()),
        "rate": float(truth.mean()),
    }


def of_value(scores: Floats, truth: Floats) -> dict[str, float]:
    """Return what is reported of amounts and counts."""
    return {
        "mae": float(np.mean(np.abs(scores - truth))),
        "rmse": float(np.sqrt(np.mean((scores - truth) ** 2))),
        "spearman": spearman(scores, truth),
        "lift": top_lift(scores, truth),
        "total": float(scores.sum()),
        "true_total": float(truth.sum()),
    }


def bins(scores: Floats, truth: Floats) -> list[Bin]:
    """Return BINS equal parts of the players by score, the lowest first."""
    order = np.argsort(scores, kind="stable")
    parts = [part for part in np.array_split(order, BINS) if len(part)]
    return [Bin(len(p), float(scores[p].mean()), float(truth[p].mean())) for p in parts]


def calibration_error(scores: Floats, truth: Floats) -> float:
    """Return how far what was said lies from what came true, over the bins, by their players."""
    return sum(abs(b.said - b.true) * b.players for b in bins(scores, truth)) / len(scores)


def gains(scores: Floats, truth: Floats) -> list[Gain]:
    """Return the gain of each tenth of the players more; equal scores share what is theirs.

    Of amounts it is the share of their sum: it can pass 1 where some are negative.
    """
    return [_gain(scores, truth, part / BINS) for part in range(1, BINS + 1)]


def top_lift(scores: Floats, truth: Floats) -> float:
    """Return the lift of the TOP_SHARE of the players with the highest scores."""
    return _gain(scores, truth, TOP_SHARE).lift


def _gain(scores: Floats, truth: Floats, share: float) -> Gain:
    total = float(truth.sum())
    if total <= 0:
        return Gain(share, 0.0, 0.0)
    wanted = share * len(scores)
    bound = np.sort(scores)[::-1][max(int(np.ceil(wanted)) - 1, 0)]
    above, at = scores > bound, scores == bound
    part = (wanted - above.sum()) / at.sum()  # of those that nothing tells apart, any
    found = float(truth[above].sum() + part * truth[at].sum()) / total
    return Gain(share, found, found / share)


def realised(scores: Floats, truth: Floats) -> tuple[list[Rank], list[int]]:
    """Return the ranks of churn with what came true in each, and how many players each holds."""
    bare = [Rank(name, least, None) for name, least in RANKS.items()]
    places = ranks_of(bare, scores)
    within = [truth[places == place] for place in range(len(bare))]
    ranks = [Rank(one.name, one.least, _mean(true)) for one, true in zip(bare, within, strict=True)]
    return ranks, [len(true) for true in within]


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None
