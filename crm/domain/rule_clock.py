"""What the clock alone can change in a rule, while no event comes: whom to look at again, and when.

Of resolved rules only (rule_references.py): of a segment that is merely named nothing is known.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from crm.domain import rules
from crm.domain.brands import Brand
from crm.domain.errors import InvalidRule
from crm.domain.feature_list import features_of
from crm.domain.features import DAYS_OF_WINDOW, HIDDEN_DAYS, Trend
from crm.domain.rule_masks import KNOWN_SINCE
from crm.domain.rule_terms import (
    Dates,
    Did,
    DidNot,
    InSegment,
    LastDays,
    Over,
    TextCompare,
    TextIn,
)
from crm.domain.rule_words import YEARS
from crm.domain.rules import Between, Compare, Condition, In, Leaf, Rule
from crm.domain.score_columns import is_score
from crm.domain.segments import holds

_DAYS = {**DAYS_OF_WINDOW, **HIDDEN_DAYS}
_LONGEST = 366 * len(YEARS)  # days: no event is that old, so nothing flips after it


def thresholds(rule: Rule, brand: Brand) -> set[tuple[str, int]]:
    """Return (name of a first or last time, days): so long after it the rule may flip.

    It flips at that very microsecond: of ("last_bet_at", 8) eight times 24 hours after the last
    bet. What `days_since_...` asks is among it, and what makes a newcomer.
    """
    found: set[tuple[str, int]] = set()
    for leaf in _leaves(rule):
        match leaf:
            case Compare(name) | Between(name) | In(name) if leaf.over is None:
                edge = features_of(brand).edges.get(name)
                if edge is not None and edge.days_since:
                    at = f"{edge.which}_{edge.moment}_at"
                    found |= {(at, days) for days in _flips(leaf, brand)}
            case DidNot(_, LastDays(days), "excluded"):
                found.add((KNOWN_SINCE, days))
            case _:
                pass
    return found


def windows(rule: Rule, brand: Brand) -> set[int]:
    """Return the lengths in local days of all windows: of each the day that leaves it matters.

    A window of N days loses day D - N at the moment when local day D begins.
    """
    found = {over.days for leaf in _leaves(rule) if isinstance(over := _over(leaf), LastDays)}
    for name in _named(rule):
        defined = features_of(brand).defined[name]
        found |= {_DAYS[defined.window]} if defined.window in _DAYS else set()
        if isinstance(defined.definition, Trend):
            found |= {_DAYS["7d"], _DAYS[defined.definition.since]}
    return found


def has_fixed_dates(rule: Rule) -> bool:
    """Whether the rule names dates: within 90 days they can no longer be answered."""
    return any(isinstance(_over(leaf), Dates) for leaf in rules.leaves_of(rule))


def asks_scores(rule: Rule) -> bool:
    """Whether what serving models say can change the rule."""
    return any(
        is_score(leaf.feature if isinstance(leaf, Condition) else leaf.column)
        for leaf in rules.leaves_of(rule)
        if isinstance(leaf, Condition | TextCompare | TextIn)
    )


def _leaves(rule: Rule) -> Iterator[Leaf]:
    for leaf in rules.leaves_of(rule):
        if isinstance(leaf, InSegment):
            raise InvalidRule(f'segment "{leaf.segment}" has not been looked up')
        yield leaf


def _over(leaf: Leaf) -> Over | None:
    return leaf.over if isinstance(leaf, Condition | Did | DidNot) else None


def _named(rule: Rule) -> list[str]:
    """Return the features that conditions read by their whole name; scores are none."""
    return [
        leaf.feature
        for leaf in _leaves(rule)
        if isinstance(leaf, Condition) and leaf.over is None and not is_score(leaf.feature)
    ]


def _flips(rule: Compare | Between | In, brand: Brand) -> set[int]:
    """Return at which whole days the condition holds otherwise than a day before."""
    literals = {int(value) for value in rules.literals_of(rule)}
    days = np.array(sorted({*literals, *(value + 1 for value in literals)}), np.int64)
    days = days[(days > 0) & (days <= _LONGEST)]
    flips = holds(rule, brand, days) != holds(rule, brand, days - 1)
    return set(days[flips].tolist())
