"""Short rules that stand for a cluster: conditions on raw features, joined by `and`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from crm.domain.brands import Brand
from crm.domain.feature_list import features_of
from crm.domain.features import SHARE_DECIMALS

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Condition:
    """`feature >= bound` if `at_least`, else `feature < bound`; the bound is a raw integer."""

    feature: str
    at_least: bool
    bound: int

    def text(self, brand: Brand) -> str:
        """Return the condition in the rule language, money in major units."""
        feature = features_of(brand).features[self.feature]
        bound = str(self.bound)
        if feature.unit == "money":
            bound = brand.currency.to_major(self.bound)
        elif feature.unit in {"share", "number"}:
            decimals = SHARE_DECIMALS if feature.decimals is None else feature.decimals
            bound = f"{Decimal(self.bound).scaleb(-decimals):f}"
        return f"{self.feature} {'>=' if self.at_least else '<'} {bound}"

    def holds(self, raw: NDArray[np.int64], missing: Flags | None) -> Flags:
        """Return where the condition holds; a comparison with a missing value is false."""
        found: Flags = raw >= self.bound if self.at_least else raw < self.bound
        return found if missing is None else found & ~missing


@dataclass(frozen=True)
class ShortRule:
    """Conditions that must all hold, and how well they select one cluster."""

    conditions: tuple[Condition, ...]
    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0

    def text(self, brand: Brand) -> str:
        """Return the rule in the rule language."""
        return " and ".join(condition.text(brand) for condition in self.conditions)


def measured(
    conditions: Sequence[Condition],
    raw: Mapping[str, NDArray[np.int64]],
    missing: Mapping[str, Flags],
    wanted: Flags,
) -> ShortRule:
    """Return the rule with its precision and recall against the `wanted` players."""
    found = np.ones(len(wanted), bool)
    for condition in conditions:
        name = condition.feature
        found &= condition.holds(raw[name], missing.get(name))
    hits = int((found & wanted).sum())
    precision = hits / int(found.sum()) if found.any() else 0.0
    recall = hits / int(wanted.sum()) if wanted.any() else 0.0
    return ShortRule(tuple(conditions), precision, recall)
