"""One fit of one algorithm on points in scaled space: which groups there are, and where."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import msgspec
import numpy as np
from sklearn.cluster import DBSCAN, HDBSCAN, KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors

from crm.domain.cluster_shapes import Cores, Floats, Ints, Mixture, group_of
from crm.domain.clustering import Algorithm

DENSITIES: tuple[Algorithm, ...] = ("dbscan", "hdbscan")
MAX_CORES = 2_000  # of a density: what each live player is held against
_SMOOTH = 1e-3  # added to variances: counts lie in lumps, and a Gaussian would shrink to one
_TYPICAL_REACH = 0.95
Setting = Mapping[str, float]


class Fit(msgspec.Struct, frozen=True):
    """Groups from 0; of fits with one setting, the one of least `loss` is the best.

    `loss` is the sum of squares within the groups, or minus the mean log-likelihood.
    """

    centroids: list[list[float]]
    mixture: Mixture | None = None
    cores: Cores | None = None
    loss: float = 0.0

    @property
    def k(self) -> int:
        """How many groups there are, without the noise."""
        return len(self.centroids)

    def outline(self) -> Fit:
        """Return it without what tells to whom a point belongs."""
        return Fit(self.centroids, loss=self.loss)

    def groups(self, points: Floats) -> Ints:
        """Return the group of each point, -1 for noise."""
        return group_of(self.centroids, self.mixture, self.cores, points)


def fit(points: Floats, algorithm: Algorithm, setting: Setting, seed: int, starts: int) -> Fit:
    """Fit once on points (players x axes); the same arguments find the same.

    `setting` has `k`; or `eps` and `min_samples`; or `min_cluster_size` and `min_samples`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the quality says what came of it
        if algorithm == "gmm":
            return _mixture(points, int(setting["k"]), seed, starts)
        if algorithm in DENSITIES:
            return _density(points, algorithm, setting)
        return _centroids(points, algorithm, int(setting["k"]), seed, starts)


def settle(points: Floats, algorithm: Algorithm, found: Fit, seed: int) -> Fit:
    """Go on from a fit on a sample with more points; a density stays as it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        start = np.array(found.centroids)
        if found.mixture is not None:
            model = GaussianMixture(
                found.k, reg_covar=_SMOOTH, random_state=seed, max_iter=50,
                means_init=start, weights_init=np.array(found.mixture.weights),
                precisions_init=np.array([f @ f.T for f in np.array(found.mixture.factors)]),
            ).fit(points)  # fmt: skip
            return _of_mixture(model, points)
        if found.cores is not None:
            return found
        kind = KMeans if algorithm == "kmeans" else MiniBatchKMeans
        model = kind(found.k, init=start, n_init=1, random_state=seed, tol=1e-6).fit(points)
        return Fit(model.cluster_centers_.tolist(), loss=float(model.inertia_))


def neighbour_distances(points: Floats, neighbour: int) -> Floats:
    """Return how far each point's n-th neighbour is, itself being the first."""
    n = min(neighbour, len(points))
    distances: Floats = NearestNeighbors(n_neighbors=n).fit(points).kneighbors(points)[0]
    return distances[:, -1]


def _centroids(points: Floats, algorithm: Algorithm, k: int, seed: int, starts: int) -> Fit:
    kind = KMeans if algorithm == "kmeans" else MiniBatchKMeans
    model = kind(k, n_init=starts, random_state=seed, tol=1e-6).fit(points)
    return Fit(model.cluster_centers_.tolist(), loss=float(model.inertia_))


def _mixture(points: Floats, k: int, seed: int, starts: int) -> Fit:
    model = GaussianMixture(
        k, n_init=starts, reg_covar=_SMOOTH, random_state=seed, max_iter=200
    ).fit(points)
    return _of_mixture(model, points)


def _of_mixture(model: GaussianMixture, points: Floats) -> Fit:
    means = model.means_.tolist()
    mixture = Mixture(model.weights_.tolist(), means, model.precisions_cholesky_.tolist())
    return Fit(means, mixture, loss=-float(model.score(points)))


def _density(points: Floats, algorithm: Algorithm, setting: Setting) -> Fit:
    least = int(setting["min_samples"])
    if algorithm == "dbscan":
        eps = float(setting["eps"])
        model = DBSCAN(eps=eps, min_samples=least).fit(points)
        rows = model.core_sample_indices_
        reach = np.full(len(rows), eps)
    else:
        size = int(setting["min_cluster_size"])
        model = HDBSCAN(min_cluster_size=size, min_samples=least, copy=True).fit(points)
        rows = np.flatnonzero(model.labels_ >= 0)
        reach = _typical_reach(points, model.labels_, rows, least)
    if not len(rows):
        return Fit([])
    labels = model.labels_[rows]
    centroids = [points[rows[labels == g]].mean(axis=0).tolist() for g in range(labels.max() + 1)]
    kept, gap = thinned(points[rows], MAX_CORES)
    cores = Cores(points[rows[kept]].tolist(), labels[kept].tolist(), (reach[kept] + gap).tolist())
    return Fit(centroids, cores=cores)


def _typical_reach(points: Floats, labels: Ints, rows: Ints, neighbour: int) -> Floats:
    """Return for each of `rows` how far the neighbours are of nearly all of its group."""
    away = neighbour_distances(points, neighbour)
    groups = range(int(labels.max(initial=-1)) + 1)
    reach = np.array([np.quantile(away[labels == g], _TYPICAL_REACH) for g in groups])
    of_rows: Floats = reach[labels[rows]]
    return of_rows


def thinned(points: Floats, most: int) -> tuple[Ints, float]:
    """Return the rows of at most `most` points, each the farthest from those before it.

    With them, how far any point may be from the nearest that was kept.
    """
    if len(points) <= most:
        return np.arange(len(points)), 0.0
    rows = [0]
    away = ((points - points[0]) ** 2).sum(axis=1)
    while len(rows) < most:
        rows.append(int(np.argmax(away)))
        away = np.minimum(away, ((points - points[rows[-1]]) ** 2).sum(axis=1))
    return np.array(rows), float(np.sqrt(away.max()))
