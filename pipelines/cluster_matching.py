"""Ids that stay: each new group gets the id of the former one with which it shares its players."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from crm.domain.cluster_shapes import Ints
from crm.domain.clustering import NOISE, Move

SAME = 0.25  # of the players of two groups together, so many must be in both


def matched(
    groups: Ints, k: int, former: Ints, former_ids: Sequence[int], last_id: int
) -> list[int]:
    """Return an id for each of `k` new groups; what matches no former one gets a new id.

    `groups` (-1 for noise) and `former` are of the same players. The match as a whole is the best:
    of all pairings, that with the largest sum of Jaccard indices (Hungarian method).
    """
    known = [one for one in former_ids if one != NOISE]
    shared = np.array(
        [[_jaccard(groups == new, former == old) for old in known] for new in range(k)]
    ).reshape(k, len(known))
    ids = [0] * k
    for new, old in zip(*linear_sum_assignment(shared, maximize=True), strict=True):
        if shared[new, old] >= SAME:
            ids[new] = known[old]
    for new in range(k):
        if not ids[new]:
            last_id += 1
            ids[new] = last_id
    return ids


def _jaccard(one: np.ndarray, other: np.ndarray) -> float:
    either = int((one | other).sum())
    return int((one & other).sum()) / either if either else 0.0


def moves_of(former: Ints, labels: Ints) -> list[Move]:
    """Return how many players are in which former and which new cluster, by ids."""
    pairs, counts = np.unique(np.column_stack([former, labels]), axis=0, return_counts=True)
    return [
        Move(int(before), int(after), int(count))
        for (before, after), count in zip(pairs, counts, strict=True)
    ]
