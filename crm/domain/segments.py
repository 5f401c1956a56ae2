"""Segment rules: what a marketer writes, and the column masks that answer it.

A rule has two equal forms, text and tree; both come and go through here.
"""

from __future__ import annotations

from functools import lru_cache

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
from crm.domain.rules import (
    And,
    Between,
    Compare,
    Condition,
    Exists,
    In,
    Not,
    Or,
    Rule,
    Value,
    to_tree,
)
from crm.domain.spans import EVERY, LEAST, MOST, Span, Spans

__all__ = [
    "ColumnSource",
    "Rule",
    "compile_mask",
    "features_of",
    "from_tree",
    "parse",
    "spans_of",
    "to_text",
    "to_tree",
    "top_terms",
]


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


def top_terms(rule: Rule) -> tuple[Rule, ...]:
    """Return what the rule joins by `and`, or the rule itself."""
    return rule.terms if isinstance(rule, And) else (rule,)


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
        case Exists() | Compare() | Between() | In():
            return _within(table, rule, spans_of(rule, brand))
        case _:
            return term_mask(rule, brand, table)


def holds(rule: Compare | Between | In, brand: Brand, column: NDArray[np.int64]) -> Mask:
    """Return where a condition is true of raw values that are not missing."""
    return spans_of(rule, brand).hold(column)


def _within(table: ColumnSource, rule: Condition, spans: Spans) -> Mask:
    if rule.over is None and (shorter := getattr(table, "within", None)):
        mask: Mask = shorter(rule.feature, spans)
        return mask
    values, missing = column_over(rule.feature, rule.over, table)
    mask = spans.hold(values)
    if missing is not None:
        mask &= ~missing
    return mask


@lru_cache(maxsize=4_096)
def spans_of(rule: Condition, brand: Brand) -> Spans:
    """Return the raw integers that a condition asks for."""
    if isinstance(rule, Exists):
        return EVERY
    feature = subject(rule.feature, rule.over, list_of(brand))

    def bounds(value: Value) -> Span:
        return rules.bounds(feature, value, brand)

    match rule:
        case Compare(_, op, value):
            return Spans.of(_compared(op, *bounds(value)))
        case Between(_, low, high):
            return Spans.of([(bounds(low)[0], bounds(high)[1])])
        case In(_, values):
            return Spans.of(map(bounds, values))


def _compared(op: rules.Operator, first: int, last: int) -> list[Span]:
    """Compare with a literal that stands for `first` to `last`: a date is a whole day."""
    match op:
        case "=":
            return [(first, last)]
        case "!=":
            return [(LEAST, first - 1), (last + 1, MOST)]
        case "<":
            return [(LEAST, first - 1)]
        case "<=":
            return [(LEAST, last)]
        case ">":
            return [(last + 1, MOST)]
        case ">=":
            return [(first, MOST)]
