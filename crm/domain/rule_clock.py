"""When the clock alone can change what a rule says."""

from __future__ import annotations

from crm.domain import rules
from crm.domain.brands import Brand
from crm.domain.feature_list import features_of
from crm.domain.rules import Rule


def thresholds(rule: Rule, brand: Brand) -> set[tuple[str, int]]:
    """Return (feature, days): so many whole days since, at which the answer may change."""
    edges, found = features_of(brand).edges, set[tuple[str, int]]()
    for one in rules.conditions_of(rule):
        edge = edges.get(one.feature)
        if edge is not None and edge.days_since:
            for value in rules.literals_of(one):
                found |= {(one.feature, int(value) + more) for more in (0, 1)}
    return found
