"""The search for player clusters: how a trial goes, and which candidate is chosen.

Nothing here knows Ray: pipelines/cluster_tune.py runs the same trials on its workers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits

from crm.domain.cluster_shapes import Floats, Ints, along
from crm.domain.clustering import CannotCluster, Scaler, Scaling
from pipelines.cluster_fits import DENSITIES, Fit, Setting, fit, neighbour_distances
from pipelines.cluster_quality import dbcv, sampled, silhouette, stability, stand_apart
from pipelines.cluster_space import IMPOSSIBLE, LEAST_GROUPS, MOST_GROUPS, Plan, Proposals, Space

SEARCH_SAMPLE = 20_000  # more players than this do not move what is found
DENSITY_SAMPLE = 8_000
PATIENCE = 5  # so many numbers of groups without a better silhouette end a trial
LOOKED_AT = 3  # of a trial's numbers of groups: the stability of the best is measured
KEPT_VARIANCE = 0.9
DENSE_NEIGHBOURS = (5, 15)
DENSE_SHARES = (0.7, 0.8, 0.9, 0.95)
LEAST_SIZES = (0.01, 0.02, 0.05)
DENSITY_RESAMPLES = 3
# silhouettes on a sample differ by chance about this much: among equals, more clusters tell more
EQUAL_QUALITY = 0.01
STABLE = 0.5
_STARTS_AGAIN = 20  # of a fit that is made for its stability alone


class Tried(msgspec.Struct, frozen=True):
    """What came of one setting; `stability` and `score` only where it was worth the time."""

    setting: dict[str, float]
    k: int
    quality: float
    smallest: float
    noise: float
    stability: float | None = None
    score: float = IMPOSSIBLE


class Candidate(msgspec.Struct, frozen=True):
    """What a trial found best: its fit, in the space of `scaler` and `axes`, and all it tried.

    `found` is None where no setting gave two groups; `why` says so.
    """

    plan: Plan
    best: Tried
    found: Fit | None
    scaler: Scaler
    axes: list[list[float]] | None
    tried: list[Tried]
    why: str = ""

    @property
    def score(self) -> float:
        """The objective."""
        return self.best.score

    def points(self, values: Floats) -> Floats:
        """Return values (players x features, in units) in the space of the fit."""
        return along(self.axes, self.scaler.transform(values))

    def groups(self, values: Floats) -> Ints:
        """Return the group of each of `values`, -1 for noise."""
        return self.shape.groups(self.points(values))

    @property
    def shape(self) -> Fit:
        """What was found; raises ValueError if nothing was."""
        if self.found is None:
            raise ValueError(self.why)
        return self.found


@dataclass(frozen=True)
class Sample:
    """Players to search on (values in units), scalers of all players, and the common space."""

    values: Floats
    scalers: Mapping[Scaling, Scaler]
    common: Scaling


Tell = Callable[[Candidate], None]


def search_here(
    sample: Sample,
    space: Space,
    most: int,
    lag: int,
    budget_s: float | None = None,
    tell: Tell | None = None,
) -> list[Candidate]:
    """Run the trials one after the other in this process; in the order of their numbers."""
    ends = monotonic() + (budget_s or np.inf)
    proposals = Proposals(space, most, lag, lambda: monotonic() >= ends)
    found = []
    while not proposals.over:
        proposed = proposals.next()
        if proposed is None:  # never: each is told before the next is asked for
            break
        number, plan = proposed
        found.append(try_plan(sample, plan))
        proposals.done(number, found[-1].score)
        if tell is not None:
            tell(found[-1])
    return found


# --- one trial -----------------------------------------------------------------------------------


def try_plan(sample: Sample, plan: Plan) -> Candidate:
    """Return the best that a plan finds on the sample, on one thread: the same each time."""
    with threadpool_limits(1):
        scaler = sample.scalers[plan.scaling]
        scaled = scaler.transform(sample.values)
        axes = principal_axes(scaled) if plan.reduction == "pca" else None
        points = along(axes, scaled)
        common = sample.scalers[sample.common].transform(sample.values)
        try:
            tried, fits = _trials_of(points, common, plan)
        except (ValueError, FloatingPointError, np.linalg.LinAlgError) as error:
            tried, fits, why = [], [], f"{type(error).__name__}: {error}"
        else:
            why = "" if tried else "no setting gives two groups"
    if not tried:
        nothing = Tried({}, 0, 0.0, 0.0, 1.0)
        return Candidate(plan, nothing, None, scaler, axes, [], why)
    highest = max(one.score for one in tried)
    # the scores of those of one k differ by more than chance, if by anything
    near = [n for n, one in enumerate(tried) if one.score >= highest - EQUAL_QUALITY]
    chosen = max(near, key=lambda n: (tried[n].k, tried[n].score))
    return Candidate(plan, tried[chosen], fits[chosen], scaler, axes, tried)


def principal_axes(scaled: Floats, kept_variance: float = KEPT_VARIANCE) -> list[list[float]]:
    """Return the directions (axes x features) that keep so much of the variance."""
    _, size, axes = np.linalg.svd(scaled - scaled.mean(axis=0), full_matrices=False)
    share = np.cumsum(size**2) / np.sum(size**2)
    chosen = axes[: int(np.searchsorted(share, kept_variance)) + 1]
    # of the two signs of an axis, that with its largest entry positive
    sign = np.sign(chosen[np.arange(len(chosen)), np.abs(chosen).argmax(axis=1)])
    signed: list[list[float]] = (chosen * sign[:, None]).tolist()
    return signed


def _trials_of(points: Floats, common: Floats, plan: Plan) -> tuple[list[Tried], list[Fit]]:
    if plan.algorithm in DENSITIES:
        rows = sampled(len(points), DENSITY_SAMPLE, plan.seed)
        return _densities(points[rows], common[rows], plan)
    return _partitions(points, common, plan)


def _partitions(points: Floats, common: Floats, plan: Plan) -> tuple[list[Tried], list[Fit]]:
    """Try each number of groups, until the silhouette has not grown for a while."""
    distinct = len(np.unique(points, axis=0))
    tried: list[Tried] = []
    fits: list[Fit] = []
    best = -1
    for k in range(plan.least, min(plan.most, distinct) + 1):
        setting = {"k": float(k)}
        one = fit(points, plan.algorithm, setting, plan.seed, plan.starts)
        labels = one.groups(points)
        given = plan.least == plan.most  # then the loss decides, among fits in one space
        quality = 0.0 if given else silhouette(common, labels, plan.seed)
        tried.append(_seen(setting, k, labels, quality))
        fits.append(one)
        if given:
            return [msgspec.structs.replace(tried[0], score=-one.loss)], fits
        if best < 0 or tried[-1].quality > tried[best].quality:
            best = len(tried) - 1
        if len(tried) - 1 - best >= PATIENCE:
            break
    return _with_scores(points, plan, tried, fits), fits


def _densities(points: Floats, common: Floats, plan: Plan) -> tuple[list[Tried], list[Fit]]:
    tried: list[Tried] = []
    fits: list[Fit] = []
    for setting in _settings(points, plan):
        one = fit(points, plan.algorithm, setting, plan.seed, plan.starts)
        if one.k < LEAST_GROUPS or one.k > MOST_GROUPS:
            continue
        labels = one.groups(points)
        tried.append(_seen(setting, one.k, labels, dbcv(common, labels, plan.seed)))
        fits.append(one)
    return _with_scores(points, plan, tried, fits, DENSITY_RESAMPLES), fits


def _settings(points: Floats, plan: Plan) -> list[dict[str, float]]:
    if plan.algorithm == "hdbscan":
        sizes = sorted({max(int(share * len(points)), 5) for share in LEAST_SIZES})
        return [{"min_cluster_size": float(n), "min_samples": 10.0} for n in sizes]
    found = []
    for neighbours in DENSE_NEIGHBOURS:
        away = neighbour_distances(points, neighbours)
        reaches = sorted({float(np.quantile(away, share)) for share in DENSE_SHARES} - {0.0})
        found += [{"eps": eps, "min_samples": float(neighbours)} for eps in reaches]
    return found


def _seen(setting: dict[str, float], k: int, labels: Ints, quality: float) -> Tried:
    sizes = np.bincount(labels[labels >= 0], minlength=k)
    smallest = float(sizes.min() / len(labels)) if len(sizes) else 0.0
    return Tried(setting, k, quality, smallest, float((labels < 0).mean()))


def _with_scores(
    points: Floats, plan: Plan, tried: Sequence[Tried], fits: Sequence[Fit], resamples: int = 5
) -> list[Tried]:
    """Return what was tried with the objective; stability is measured for the best of it.

    quality x stability x (1 - noise), if the smallest group has the minimum share; else below -1,
    the less the smaller it is.
    """
    worth = sorted(
        (n for n, one in enumerate(tried) if one.smallest >= plan.min_share),
        key=lambda n: -tried[n].quality * (1 - tried[n].noise),
    )
    chosen = set(worth[:LOOKED_AT])
    found = []
    for n, one in enumerate(tried):
        if one.smallest < plan.min_share:
            score = -2 + one.smallest / plan.min_share
            found.append(msgspec.structs.replace(one, score=score))
        elif n in chosen:
            again = partial(refitted, plan=plan, setting=one.setting)
            stable = stability(points, fits[n].groups(points), again, plan.seed, resamples)
            score = one.quality * (1 - one.noise) * max(stable, 0.0)
            found.append(msgspec.structs.replace(one, stability=stable, score=score))
        else:
            found.append(msgspec.structs.replace(one, score=-1.0))
    return found


def refitted(points: Floats, plan: Plan, setting: Setting) -> Callable[[Floats], Ints]:
    """Return what groups players by a fit on other points, from not too many starts."""
    found = fit(points, plan.algorithm, setting, plan.seed, min(plan.starts, _STARTS_AGAIN))
    if found.k < 1:
        return lambda others: np.full(len(others), -1)
    return found.groups


# --- the choice ----------------------------------------------------------------------------------


class NoClearGrouping(CannotCluster):
    """The players form no groups that stand apart, or none that would be found again."""

    code = "no_clear_grouping"


def choose(candidates: Sequence[Candidate], k: int | None, min_share: float) -> Candidate:
    """Return the candidate of the highest score; of those of a given k, that of the least loss.

    Raises NoClearGrouping if every one leaves a group below `min_share`.
    """
    found = [one for one in candidates if one.found is not None]
    if not found:
        why = "; ".join(sorted({one.why for one in candidates if one.why}))
        raise NoClearGrouping(f"no clear grouping: {why or 'nothing was tried'}")
    if k is not None:
        return min(found, key=lambda one: (one.found.loss if one.found else 0, one.plan.digest))
    best = max(found, key=lambda one: (one.score, one.plan.digest))
    if best.best.smallest < min_share:
        raise NoClearGrouping(
            f"no clear grouping: each way leaves a cluster below {min_share:.1%} of the players; "
            "try --scaling log, other --features, or a fixed --k"
        )
    return best


def check_clear(sample: Sample, chosen: Candidate) -> int:
    """Return how many groups stand apart; raises NoClearGrouping if the best cuts up one cloud."""
    labels = chosen.groups(sample.values)
    apart = stand_apart(sample.scalers[sample.common].transform(sample.values), labels)
    stable = chosen.best.stability or 0.0
    if apart < LEAST_GROUPS or stable < STABLE:
        raise NoClearGrouping(
            f"no clear grouping: the best of all ways ({chosen.plan.algorithm}, {chosen.best.k} "
            f"groups, silhouette or DBCV {chosen.best.quality:.2f}, stability {stable:.2f}) "
            f"{'cuts one cloud of players into pieces' if apart < LEAST_GROUPS else 'changes'}"
            f"{'' if apart < LEAST_GROUPS else ' with the players that it is found on'}; "
            "other --features may show groups, and --k cuts all the same"
        )
    return apart
