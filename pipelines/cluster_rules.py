"""Short rules for clusters, read off shallow decision trees over raw features."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from sklearn.tree import DecisionTreeClassifier

from crm.domain.cluster_rules import Condition, Flags, ShortRule, measured

MAX_DEPTH = 3
_WORTH = 0.02  # of F1: what another condition must bring, and what a round number may cost
_TREE_ROWS = 50_000  # a tree is grown on as many of the wanted players, and as many others
_GOOD = 0.5  # below this F1 no rule is better than a wrong one

Raw = Mapping[str, NDArray[np.int64]]


def short_rule(raw: Raw, missing: Mapping[str, Flags], wanted: Flags) -> ShortRule | None:
    """Return the best rule of at most MAX_DEPTH splits for the `wanted` players, or None."""
    names = list(raw)
    if wanted.all() or not wanted.any():
        return None
    table = np.column_stack([_filled(raw[name], missing.get(name)) for name in names])
    rows = np.concatenate([_some(np.flatnonzero(wanted)), _some(np.flatnonzero(~wanted))])
    best: ShortRule | None = None
    for depth in range(1, MAX_DEPTH + 1):
        tree = DecisionTreeClassifier(max_depth=depth, class_weight="balanced", random_state=0).fit(
            table[rows], wanted[rows]
        )
        for conditions in _paths(tree, names):
            rule = measured(conditions, raw, missing, wanted)
            if best is None or rule.f1 > best.f1 + _WORTH:
                best = rule
    if best is None or best.f1 < _GOOD:
        return None
    return _with_round_bounds(best, raw, missing, wanted)


def _some(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(rows) <= _TREE_ROWS:
        return rows
    return np.random.default_rng(0).choice(rows, _TREE_ROWS, replace=False)


def _filled(raw: NDArray[np.int64], missing: Flags | None) -> NDArray[np.int64]:
    return raw if missing is None else np.where(missing, raw.max(initial=0) + 1, raw)


def _paths(tree: DecisionTreeClassifier, names: list[str]) -> Iterator[list[Condition]]:
    """Yield the conditions on the way to each leaf, at most one bound a side for each feature."""
    nodes = tree.tree_
    waiting: list[tuple[int, dict[tuple[str, bool], int]]] = [(0, {})]
    while waiting:
        node, bounds = waiting.pop()
        if nodes.children_left[node] < 0:
            if bounds:
                yield [Condition(*side, bound) for side, bound in sorted(bounds.items())]
            continue
        name = names[nodes.feature[node]]
        bound = math.floor(nodes.threshold[node]) + 1  # x <= t is x < bound for integers
        waiting.append((int(nodes.children_left[node]), {**bounds, (name, False): bound}))
        waiting.append((int(nodes.children_right[node]), {**bounds, (name, True): bound}))


def _with_round_bounds(
    rule: ShortRule, raw: Raw, missing: Mapping[str, Flags], wanted: Flags
) -> ShortRule:
    """Return the rule with the fewest digits in each bound that cost nearly nothing."""
    found = rule
    for index, condition in enumerate(rule.conditions):
        for digits in (1, 2, 3):
            rounded = Condition(
                condition.feature, condition.at_least, _rounded(condition.bound, digits)
            )
            conditions = [*found.conditions]
            conditions[index] = rounded
            simpler = measured(conditions, raw, missing, wanted)
            if simpler.f1 >= rule.f1 - _WORTH:
                found = simpler
                break
    return found


def _rounded(value: int, digits: int) -> int:
    """Round to so many significant digits."""
    return int(round(value, digits - len(str(abs(value)))))
