"""How good a grouping is: silhouette, DBCV of densities, stability, and whether groups stand apart.

All of them look at points in one common space, so that trials in different spaces can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.spatial.distance import cdist
from sklearn import config_context
from sklearn.metrics import adjusted_rand_score, silhouette_samples

from crm.domain.cluster_shapes import Floats, Ints

SILHOUETTE_ROWS = 4_000
DBCV_ROWS = 1_500
RESAMPLES = 5
RESAMPLED_SHARE = 0.8
# two groups stand apart if, between them, players are this much rarer than in the smaller peak,
VALLEY = 0.7
CERTAIN = 3.5  # and if so many standard deviations of a count lie between valley and peak
_TINY = 1e-9


def sampled(rows: int, most: int, seed: int) -> Ints:
    """Return all row numbers, or a sorted sample of `most` of them."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def silhouettes(points: Floats, labels: Ints, seed: int, most: int = SILHOUETTE_ROWS) -> Floats:
    """Return the silhouette of each of a sample of points, NaN for noise (-1) and all the others.

    Nobody has one where fewer than two groups are left in the sample.
    """
    found = np.full(len(points), np.nan)
    rows = sampled(len(points), most, seed)
    rows = rows[labels[rows] >= 0]
    if 1 < len(np.unique(labels[rows])) < len(rows):
        with config_context(working_memory=128):
            found[rows] = silhouette_samples(points[rows], labels[rows])
    return found


def silhouette(points: Floats, labels: Ints, seed: int, most: int = SILHOUETTE_ROWS) -> float:
    """Return the mean silhouette on a sample, without noise; 0 where there is none."""
    found = silhouettes(points, labels, seed, most)
    return 0.0 if np.isnan(found).all() else float(np.nanmean(found))


def dbcv(points: Floats, labels: Ints, seed: int, most: int = DBCV_ROWS) -> float:
    """Return the density-based validity of groups, noise (-1) counting as 0, on a sample.

    Moulavi, Jaskowiak, Campello, Zimek and Sander: Density-Based Clustering Validation, 2014.
    """
    rows = sampled(len(points), most, seed)
    points, labels = points[rows], labels[rows]
    groups = [points[labels == g] for g in np.unique(labels[labels >= 0])]
    groups = [one for one in groups if len(one) > 2]  # noqa: PLR2004 - fewer have no inside
    if len(groups) < 2:  # noqa: PLR2004 - nothing to be apart from
        return 0.0
    parts = [_density_of(one) for one in groups]
    apart = np.full((len(groups), len(groups)), np.inf)
    for a, b in combinations(range(len(groups)), 2):
        near = cdist(groups[a][parts[a][1]], groups[b][parts[b][1]])
        cores = np.maximum.outer(parts[a][0][parts[a][1]], parts[b][0][parts[b][1]])
        apart[a, b] = apart[b, a] = np.maximum(near, cores).min()
    total = 0.0
    for group, (_, _, sparse), nearest in zip(groups, parts, apart.min(axis=1), strict=True):
        total += len(group) * (nearest - sparse) / max(nearest, sparse, _TINY)
    return float(total / len(rows))


def _density_of(points: Floats) -> tuple[Floats, Ints, float]:
    """Return core distances, who is inside, and the sparsest link among those."""
    n, axes = points.shape
    away = np.maximum(cdist(points, points), _TINY)
    np.fill_diagonal(away, np.inf)
    # the mean of inverse powers, by logarithms: the powers themselves overflow
    logs = -axes * np.log(away)
    highest = logs.max(axis=1, keepdims=True)
    mean = highest[:, 0] + np.log(np.exp(logs - highest).sum(axis=1) / (n - 1))
    core = np.exp(-mean / axes)
    reach = np.maximum(away, np.maximum.outer(core, core))
    np.fill_diagonal(reach, 0)
    tree = minimum_spanning_tree(reach).tocoo()
    links = np.bincount(np.concatenate([tree.row, tree.col]), minlength=n)
    inside = np.flatnonzero(links > 1)
    if not len(inside):
        inside = np.arange(n)
    within = np.isin(tree.row, inside) & np.isin(tree.col, inside)
    sparse = tree.data[within] if within.any() else tree.data
    return core, inside, float(sparse.max(initial=_TINY))


def stability(
    points: Floats,
    labels: Ints,
    refit: Callable[[Floats], Callable[[Floats], Ints]],
    seed: int,
    resamples: int = RESAMPLES,
) -> float:
    """Return the mean adjusted Rand index of `labels` against fits on resamples of the points.

    `refit` fits on points, and returns what groups others by that fit.
    """
    rng = np.random.default_rng(seed)
    part = max(int(RESAMPLED_SHARE * len(points)), 2)
    indices = []
    for _ in range(resamples):
        rows = rng.choice(len(points), part, replace=False)
        again = refit(points[rows])(points)
        indices.append(float(adjusted_rand_score(labels, again)))
    return float(np.mean(indices))


def stand_apart(points: Floats, labels: Ints) -> int:
    """Return into how many parts the groups fall, those being joined that have no valley between.

    1 means that nothing is apart: a cloud was cut into pieces.
    """
    groups = np.unique(labels[labels >= 0])
    joined = np.zeros((len(groups), len(groups)), bool)
    for a, b in combinations(range(len(groups)), 2):
        joined[a, b] = not _apart(points, labels, int(groups[a]), int(groups[b]))
    return int(connected_components(joined, directed=False, return_labels=False))


def _apart(points: Floats, labels: Ints, a: int, b: int) -> bool:
    """Tell whether there is a valley between two groups, seen along what divides them best.

    Players in no group count too, as far as they lie between the two: leaving them out would dig a
    valley where there is none.
    """
    first, second = points[labels == a], points[labels == b]
    fewest = min(len(first), len(second))
    if fewest < 3:  # noqa: PLR2004 - too few to say
        return False
    share = len(first) / (len(first) + len(second))
    within = share * np.cov(first.T, ddof=0) + (1 - share) * np.cov(second.T, ddof=0)
    within = np.atleast_2d(within)
    within += np.eye(len(within)) * (1e-6 * np.trace(within) + _TINY)
    line = np.linalg.solve(within, second.mean(axis=0) - first.mean(axis=0))
    line /= np.sqrt(line @ within @ line) or 1.0
    both, noise = np.concatenate([first, second]), points[labels < 0]
    ends = (first.mean(axis=0), second.mean(axis=0))
    aside = np.quantile(_aside(both, ends, within), 0.99)
    seen = np.concatenate([both, noise[_aside(noise, ends, within) <= aside]]) @ line
    low, high = float(np.median(first @ line)), float(np.median(second @ line))
    if high - low < _TINY:
        return False
    width = 0.75 * float(fewest) ** -0.2
    grid = np.linspace(low - 3, high + 3, 241)
    density = np.exp(-0.5 * ((grid[:, None] - seen[None]) / width) ** 2).sum(axis=1)
    between = np.flatnonzero((grid >= low) & (grid <= high))
    valley = int(between[np.argmin(density[between])])
    peak = min(density[: valley + 1].max(), density[valley:].max())
    # a sum of kernels counts players in a window of about 3.5 widths; its variance is 0.7 of that
    far = (peak - density[valley]) / np.sqrt(0.71 * (peak + density[valley]) + _TINY)
    return bool(density[valley] <= VALLEY * peak and far >= CERTAIN)


def _aside(points: Floats, ends: tuple[Floats, Floats], within: Floats) -> Floats:
    """Return how far points lie from the way between two ends, in squares of `within`."""
    if not len(points):
        return np.empty(0)
    root = np.linalg.cholesky(np.linalg.inv(within))
    start, way = ends[0] @ root, (ends[1] - ends[0]) @ root
    placed = points @ root - start
    along_way = np.clip(placed @ way / max(float(way @ way), _TINY), 0, 1)
    away: Floats = ((placed - along_way[:, None] * way) ** 2).sum(axis=1)
    return away
