"""Segment rules: what a marketer writes, and the column masks that answer it.

A rule has two equal forms, text and tree; both come and go through here.
"""

from __future__ import annotations

from operator import eq, ge, gt, le, lt, ne

import numpy as np
from numpy.typing import NDArray

from crm.domain import rules
from crm.domain.brands import Brand
from crm.domain.column_source import ColumnSource, Mask
from crm.domain.feature_list import features_of as list_of
from crm.domain.rule_masks import KNOWN_SINCE, column_over, named_window, term_mask
from crm.domain.rule_terms import Did, DidNot
from crm.domain.rule_text import bounded, parse, to_text
from crm.domain.rule_words import measure_of, subject
from crm.domain.rules import And, Between, Compare, Exists, In, Not, Or, Rule, Value, to_tree

__all__ = [
    "ColumnSource",
    "Rule",
    "compile_mask",
    "features_of",
    "from_tree",
    "parse",
    "to_text",
    "to_tree",
]

# how each operator meets the first (0) or the last (1) integer of a literal
_EDGES = {"=": (eq, 0), "!=": (ne, 0), "<": (lt, 0), "<=": (le, 1), ">": (gt, 1), ">=": (ge, 0)}
_INT64 = np.iinfo(np.int64)


def from_tree(tree: object, brand: Brand | None = None) -> Rule:
    """Return the rule of a decoded JSON tree, in its one canonical form; raises InvalidRule."""
    return bounded(rules.from_tree(tree, brand))


def features_of(rule: Rule) -> set[str]:
    """Return the names of the features that the rule reads; values over other days are none."""
    found = set()
    for leaf in rules.leaves_of(rule):
        match leaf:
            case Compare() | Between() | In() | Exists():
                over = leaf.over
                found.add(leaf.feature if over is None else named_window(leaf.feature, over))
            case Did() | DidNot():
                found.add(named_window(measure_of(leaf.event), leaf.over))
                if isinstance(leaf, DidNot) and leaf.newcomers == "excluded":
                    found.add(KNOWN_SINCE)
            case _:
                pass
    return {name for name in found if name}


def compile_mask(rule: Rule, brand: Brand, table: ColumnSource, n: int) -> Mask:
    """Return a new array of `n` that is true where a player of `brand` is in the rule.

    Raises InvalidRule for money with more decimals than the brand's currency has, for dates whose
    days are no longer kept, and for a segment that rule_references.py has not resolved.
    """
    match rule:
        case And(terms):
            mask = compile_mask(terms[0], brand, table, n)
            for term in terms[1:]:
                mask &= compile_mask(term, brand, table, n)
            return mask
        case Or(terms):
            mask = compile_mask(terms[0], brand, table, n)
            for term in terms[1:]:
                mask |= compile_mask(term, brand, table, n)
            return mask
        case Not(term):
            mask = compile_mask(term, brand, table, n)
            return np.logical_not(mask, out=mask)
        case Exists(feature, over):
            missing = column_over(feature, over, table)[1]
            return np.ones(n, np.bool_) if missing is None else ~missing
        case Compare() | Between() | In():
            values, missing = column_over(rule.feature, rule.over, table)
            mask = holds(rule, brand, values)
            if missing is not None:
                mask &= ~missing
            return mask
        case _:
            return term_mask(rule, brand, table, n)


def holds(rule: Compare | Between | In, brand: Brand, column: NDArray[np.int64]) -> Mask:
    """Return where a condition is true of raw values that are not missing."""
    feature = subject(rule.feature, rule.over, list_of(brand))

    def bounds(value: Value) -> tuple[int, int]:
        return rules.bounds(feature, value, brand)

    match rule:
        case Compare(_, op, value):
            return _compared(column, op, *bounds(value))
        case Between(_, low, high):
            return _within(column, bounds(low)[0], bounds(high)[1])
        case In(_, values):
            ranges = [bounds(value) for value in values]
            single = [a for a, b in ranges if a == b and _INT64.min <= a <= _INT64.max]
            mask = np.isin(column, np.array(single, np.int64))
            for first, last in ranges:
                if first < last:
                    mask |= _within(column, first, last)
            return mask


def _compared(column: NDArray[np.int64], op: rules.Operator, first: int, last: int) -> Mask:
    """Compare with a literal that stands for `first` to `last`: a date is a whole day."""
    if first < last and op in {"=", "!="}:
        within = _within(column, first, last)
        return within if op == "=" else np.logical_not(within, out=within)
    compare, edge = _EDGES[op]
    mask: Mask = compare(column, (first, last)[edge])
    return mask


def _within(column: NDArray[np.int64], first: int, last: int) -> Mask:
    mask = column >= first
    mask &= column <= last
    return mask
