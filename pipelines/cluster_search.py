"""The search for player clusters: k-means attempts in Ray Tune trials, ranked by silhouette.

`fit` and `choose` are plain functions; only `search` knows Ray.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
from sklearn import config_context
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.metrics import adjusted_rand_score, silhouette_score

from crm.domain.clustering import CannotCluster, Floats, Ints, nearest

if TYPE_CHECKING:
    from ray import tune

Algorithm = Literal["kmeans", "minibatch_kmeans"]
SEARCHED = range(2, 11)
SILHOUETTE_SAMPLE = 10_000
FIT_SAMPLE = 100_000  # more players than this do not move the centroids
STARTS_FOR_SEARCHED_K = 20
STARTS_FOR_GIVEN_K = 200  # of bustabit's known clustering few starts reach the best
STARTS_AT_ONCE = 25
MAX_SEED = 2**32
BATCH = {"crm-batch": 0.5}  # what a trial asks of a node; see ray-cluster.yaml
TRIALS = 2  # each costs a worker's start, so each makes many attempts
# silhouettes on a sample differ by chance about this much: among equals, more clusters tell more
EQUAL_SILHOUETTE = 0.01
RESAMPLES = 5
RESAMPLED_SHARE = 0.8


class Attempt(msgspec.Struct, frozen=True):
    """One call of k-means with `starts` random starts, and whether its silhouette is wanted."""

    k: int
    seed: int
    starts: int
    algorithm: Algorithm


class Candidate(msgspec.Struct, frozen=True):
    """What an attempt found: scaled centroids, inertia, and the smallest cluster's share."""

    attempt: Attempt
    centroids: list[list[float]]
    inertia: float
    smallest: float


@dataclass(frozen=True)
class Found:
    """The chosen centroids (k x features, scaled) and their silhouette on a sample."""

    centroids: Floats
    silhouette: float


def attempts_for(
    k: int | None, algorithm: Algorithm, seed: int, *, hurried: bool = False
) -> list[Attempt]:
    """Return what to try: every k in SEARCHED, or many starts of the given one.

    In a hurry each attempt is one start, so that a budget can end the search at any of them.
    """
    numbers = list(SEARCHED) if k is None else [k]
    starts = STARTS_FOR_SEARCHED_K if k is None else STARTS_FOR_GIVEN_K
    at_once = 1 if hurried else min(starts, STARTS_AT_ONCE)
    return [
        Attempt(number, (seed + 1_000 * number + part) % MAX_SEED, at_once, algorithm)
        for part in range(starts // at_once)
        for number in numbers
    ]


def fit(scaled: Floats, attempt: Attempt) -> Candidate:
    """Fit k-means on scaled values; the same attempt on the same values finds the same."""
    kind = KMeans if attempt.algorithm == "kmeans" else MiniBatchKMeans
    model = kind(attempt.k, n_init=attempt.starts, random_state=attempt.seed, tol=1e-6).fit(scaled)
    sizes = np.bincount(model.labels_, minlength=attempt.k)
    return Candidate(
        attempt,
        model.cluster_centers_.tolist(),
        float(model.inertia_),
        float(sizes.min() / len(scaled)),
    )


def silhouette(scaled: Floats, labels: Ints, seed: int) -> float:
    """Return the mean silhouette, on a sample of many players; 0 where one cluster is left."""
    if len(scaled) > SILHOUETTE_SAMPLE:
        rows = np.random.default_rng(seed).choice(len(scaled), SILHOUETTE_SAMPLE, replace=False)
        scaled, labels = scaled[rows], labels[rows]
    if not 1 < len(np.unique(labels)) < len(labels):
        return 0.0
    with config_context(working_memory=128):
        return float(silhouette_score(scaled, labels))


def choose(scaled: Floats, candidates: Sequence[Candidate], min_share: float, seed: int) -> Found:
    """Return the candidate of best silhouette whose clusters all hold `min_share` of the players.

    Of one k the lowest inertia counts; of those within EQUAL_SILHOUETTE of the best, the largest k.
    Raises CannotCluster if no candidate is left.
    """
    by_k: dict[int, Candidate] = {}
    for one in sorted(candidates, key=lambda c: (c.inertia, c.attempt.seed)):
        by_k.setdefault(one.attempt.k, one)
    large = [one for one in by_k.values() if one.smallest >= min_share]
    if not large:
        raise CannotCluster(
            f"no clear grouping: each k leaves a cluster below {min_share:.1%} of the players; "
            "try --scaling log, other --features, or a fixed --k"
        )
    rated = [Found(np.array(one.centroids), _rated(scaled, one, seed)) for one in large]
    best = max(found.silhouette for found in rated)
    return max(
        (found for found in rated if found.silhouette >= best - EQUAL_SILHOUETTE),
        key=lambda found: len(found.centroids),
    )


def _rated(scaled: Floats, candidate: Candidate, seed: int) -> float:
    return silhouette(scaled, nearest(np.array(candidate.centroids), scaled), seed)


def stability(scaled: Floats, labels: Ints, k: int, seed: int) -> float:
    """Return the mean adjusted Rand index of `labels` against fits on resamples."""
    rng = np.random.default_rng(seed)
    part = max(int(RESAMPLED_SHARE * len(scaled)), k)
    indices = []
    for _ in range(RESAMPLES):
        rows = rng.choice(len(scaled), part, replace=False)
        model = KMeans(k, n_init=STARTS_FOR_SEARCHED_K, random_state=seed).fit(scaled[rows])
        again = nearest(model.cluster_centers_, scaled)
        indices.append(float(adjusted_rand_score(labels, again)))
    return float(np.mean(indices))


def search(
    scaled: Floats, attempts: Sequence[Attempt], budget_s: float | None, folder: Path
) -> list[Candidate]:
    """Make the attempts in Ray Tune trials on half a CPU each; return what was found in the budget.

    Each trial makes at least one attempt. Raises CannotCluster if all trials failed.
    """
    from ray import tune

    logging.getLogger("ray.tune").setLevel(logging.ERROR)  # it misses files that nobody needs
    trial = tune.with_parameters(
        _trial, scaled=scaled, attempts=list(attempts), budget_s=budget_s or math.inf
    )
    tuner = tune.Tuner(
        tune.with_resources(trial, {"cpu": 0.5, **BATCH}),
        param_space={"part": tune.grid_search(list(range(min(TRIALS, len(attempts)))))},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(name="clusters", storage_path=str(folder), verbose=0),
    )
    try:
        results = tuner.fit()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _candidates(results)


def _trial(
    config: dict[str, Any], scaled: Floats, attempts: list[Attempt], budget_s: float
) -> None:
    """Make every TRIALS-th attempt within the budget, and report all that was found."""
    from ray import tune

    ends = monotonic() + budget_s
    candidates: list[Any] = []
    for attempt in attempts[config["part"] :: TRIALS]:
        candidates.append(msgspec.to_builtins(fit(np.array(scaled), attempt)))
        if monotonic() > ends:
            break
    tune.report({"candidates": candidates})


def _candidates(results: tune.ResultGrid) -> list[Candidate]:
    found = [
        msgspec.convert(one, Candidate)
        for result in (results[index] for index in range(len(results)))
        for one in (result.metrics or {}).get("candidates", ())
    ]
    if not found:
        reason = type(results.errors[0]).__name__ if results.errors else "nothing was reported"
        raise CannotCluster(f"the search failed: {reason}")
    return found
