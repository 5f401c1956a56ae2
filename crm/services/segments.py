"""What one table says to a question about all its players."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crm.domain.brands import Brand
from crm.domain.column_source import Mask
from crm.domain.feature_table import FeatureTable
from crm.domain.ports import ClusterCount, TermCount
from crm.domain.score_columns import CLUSTER
from crm.domain.segments import Rule, compile_mask, from_tree, to_tree, top_terms

SAMPLE = 10
_NO_TERM = np.uint8(255)  # a rule has fewer terms


class Matching(NamedTuple):
    """How many of the table's players match, of how many, and up to SAMPLE of them.

    `terms` is by what the rule joins with `and`, in its order; `clusters` by their ids.
    """

    matches: int
    total: int
    sample: list[str]
    terms: list[TermCount]
    clusters: list[ClusterCount]


def matching(table: FeatureTable, brand: Brand, rule: Rule) -> Matching:
    """Count the players of `table` that match `rule`, and each of its terms; raises InvalidRule."""
    # its list decides: a caller's file of the brand may have been edited since the service started
    brand = replace(brand, measures=table.features.own)
    terms = top_terms(from_tree(to_tree(rule), brand))
    total = len(table)
    tally = _Tally(total)
    for term in terms:
        tally.add(compile_mask(term, brand, table, total))
    in_all = tally.in_all()
    some = table.ids_at(np.array(_first(in_all, SAMPLE), np.int64))
    matches = int(np.count_nonzero(in_all))
    return Matching(matches, total, some, tally.terms(), _clusters(table, in_all))


def summed(parts: Sequence[Sequence[TermCount]]) -> list[TermCount]:
    """Return the counts of each term over several tables."""
    return [
        TermCount(*map(sum, zip(*of_term, strict=True))) for of_term in zip(*parts, strict=True)
    ]


def by_cluster(parts: Sequence[Sequence[ClusterCount]]) -> list[ClusterCount]:
    """Return the counts of each cluster over several tables, those in no cluster last."""
    found: dict[int | None, int] = {}
    for cluster, matches in (one for part in parts for one in part):
        found[cluster] = found.get(cluster, 0) + matches
    known = sorted(cluster for cluster in found if cluster is not None)
    if not known:
        return []
    return [ClusterCount(one, found[one]) for one in (*known, *({None} & found.keys()))]


def _clusters(table: FeatureTable, mask: Mask) -> list[ClusterCount]:
    """Return how many of the players in `mask` each cluster has."""
    if table.scores.serving.models.clusters is None:
        return [ClusterCount(None, int(np.count_nonzero(mask)))] if mask.any() else []
    clusters, missing = table.column(CLUSTER)
    known = mask if missing is None else mask & ~missing
    counts = np.bincount(clusters[known])
    found = [ClusterCount(int(n), int(counts[n])) for n in np.flatnonzero(counts)]
    unknown = int(np.count_nonzero(mask)) - int(counts.sum())
    return [*found, ClusterCount(None, unknown)] if unknown else found


class _Tally:
    """How many terms each player fails, and the last of them: a byte each, whatever the terms."""

    def __init__(self, players: int) -> None:
        self._failed = np.zeros(players, np.uint8)
        self._which = np.zeros(players, np.uint8)  # summed: right where just one has failed
        self._matches: list[int] = []

    def add(self, mask: Mask) -> None:
        """Take in the mask of the next term, which is not used any more."""
        self._matches.append(int(np.count_nonzero(mask)))
        failed = np.logical_not(mask, out=mask).view(np.uint8)
        self._failed += failed
        failed *= np.uint8(len(self._matches) - 1)
        self._which += failed

    def in_all(self) -> Mask:
        """Return who is in every mask."""
        found: NDArray[np.bool_] = self._failed == 0
        return found

    def terms(self) -> list[TermCount]:
        """Return of each term how many match it, and how many fail only it."""
        others = (self._failed != 1).view(np.uint8) * _NO_TERM
        alone = self._which | others
        return [
            TermCount(matches, int(np.count_nonzero(alone == place)))
            for place, matches in enumerate(self._matches)
        ]


def _first(mask: Mask, most: int) -> list[int]:
    """Return the first places where `mask` is set: far fewer are looked at than there are."""
    places: list[int] = []
    start = 0
    while len(places) < most and start < len(mask):
        place = start + int(mask[start:].argmax())
        if not mask[place]:
            break
        places.append(place)
        start = place + 1
    return places
