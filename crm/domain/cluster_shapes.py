"""The shapes of player clusters in scaled space, and to which group a point belongs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

_CELLS_AT_ONCE = 2_000_000


def along(axes: Sequence[Sequence[float]] | None, scaled: Floats) -> Floats:
    """Return points (players x axes) along the axes of a reduction, or as they are without."""
    return scaled if axes is None else scaled @ np.array(axes).T


def nearest(centroids: Floats, points: Floats) -> Ints:
    """Return the index of each point's nearest centroid (k x axes); ties go to the first."""
    found = np.empty(len(points), np.int64)
    norms = np.einsum("kf,kf->k", centroids, centroids)
    for rows in _parts(len(points), len(centroids)):
        found[rows] = np.argmin(norms - 2 * points[rows] @ centroids.T, axis=1)
    return found


class Mixture(msgspec.Struct, frozen=True):
    """Gaussians; `factors[i]` is upper triangular, its product with its transpose the precision."""

    weights: list[float]
    means: list[list[float]]
    factors: list[list[list[float]]]

    def likeliest(self, points: Floats) -> Ints:
        """Return the index of the Gaussian that each point most probably comes from."""
        found = np.empty(len(points), np.int64)
        parts = [
            (np.log(weight) + np.log(np.diag(factor)).sum(), np.array(mean), factor)
            for weight, mean, factor in zip(
                self.weights, self.means, np.array(self.factors), strict=True
            )
        ]
        for rows in _parts(len(points), len(parts)):
            some = points[rows]
            likely = [
                start - 0.5 * (((some - mean) @ factor) ** 2).sum(axis=1)
                for start, mean, factor in parts
            ]
            found[rows] = np.argmax(likely, axis=0)
        return found


class Cores(msgspec.Struct, frozen=True):
    """Points in the dense parts; `group[i]` is whose, and `reach[i]` how far it holds players."""

    points: list[list[float]]
    group: list[int]
    reach: list[float]

    def nearest(self, points: Floats) -> Ints:
        """Return the group of each point's nearest core, -1 where that is out of reach."""
        cores, group = np.array(self.points), np.array(self.group)
        reach = np.array(self.reach) ** 2
        norms = np.einsum("kf,kf->k", cores, cores)
        found = np.empty(len(points), np.int64)
        for rows in _parts(len(points), len(cores)):
            some = points[rows]
            squares = norms - 2 * some @ cores.T
            core = np.argmin(squares, axis=1)
            away = squares[np.arange(len(some)), core] + np.einsum("nf,nf->n", some, some)
            # rounding: a core itself lies at a distance of about 1e-16 times its norm
            found[rows] = np.where(away <= reach[core] + 1e-9, group[core], -1)
        return found


def group_of(
    centroids: Sequence[Sequence[float]],
    mixture: Mixture | None,
    cores: Cores | None,
    points: Floats,
) -> Ints:
    """Return the group of each point by what there is, -1 for noise."""
    if mixture is not None:
        return mixture.likeliest(points)
    if cores is not None:
        return cores.nearest(points)
    return nearest(np.array(centroids), points)


def _parts(rows: int, columns: int) -> Iterator[slice]:
    """Yield slices of rows whose table with so many columns fits in a few megabytes."""
    step = max(_CELLS_AT_ONCE // max(columns, 1), 1)
    for start in range(0, rows, step):
        yield slice(start, start + step)
