"""Many rules over one source at once: a condition that several have is looked at once, and all
conditions on one column together.

200 rules have some 500 conditions, of about 250 kinds on a dozen columns: one by one they cost more
calls than the few events of a transaction cost work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from operator import and_, or_

import numpy as np
from numpy.typing import NDArray

from crm.domain.brands import Brand
from crm.domain.column_source import ColumnSource, Mask
from crm.domain.rule_masks import column_over
from crm.domain.rule_terms import Over
from crm.domain.rules import And, Condition, Leaf, Not, Or, Rule, leaves_of
from crm.domain.segments import compile_mask, spans_of

_Ints = NDArray[np.int64]


class RuleMatrix:
    """The masks of some rules of one brand, a row a rule."""

    def __init__(self, rules: Sequence[Rule], brand: Brand) -> None:
        self._brand = brand
        self._rules = list(rules)
        leaves = dict.fromkeys(leaf for rule in self._rules for leaf in leaves_of(rule))
        self._ranges = _ranges(leaves, brand)
        ranged = dict.fromkeys(leaf for ranges in self._ranges for leaf in ranges.leaves)
        self._others = [leaf for leaf in leaves if leaf not in ranged]
        self._place = {leaf: place for place, leaf in enumerate([*ranged, *self._others])}
        self._mixed = [n for n, rule in enumerate(self._rules) if not _is_conjunction(rule)]
        self._ands, self._first = self._conjunctions()

    def masks(self, table: ColumnSource, n: int) -> Mask:
        """Return (rules, n): where each rule holds, as compile_mask says."""
        if not self._rules:
            return np.zeros((0, n), dtype=np.bool_)
        held = np.empty((len(self._place), n), dtype=np.bool_)
        end = 0
        for ranges in self._ranges:
            begin, end = end, end + len(ranges.leaves)
            ranges.hold(table, held[begin:end])
        for leaf in self._others:
            held[self._place[leaf]] = compile_mask(leaf, self._brand, table, n)
        found: Mask = np.logical_and.reduceat(held[self._ands], self._first, axis=0)
        for place in self._mixed:
            found[place] = self._of(self._rules[place], held)
        return found

    def _conjunctions(self) -> tuple[_Ints, _Ints]:
        """Return the conditions of each rule that only joins some by `and`, and where each begins.

        One condition stands in for any other rule.
        """
        parts = [
            [self._place[leaf] for leaf in (leaves_of(rule) if _is_conjunction(rule) else ())]
            or [0]
            for rule in self._rules
        ]
        first = np.cumsum([0, *map(len, parts)][:-1], dtype=np.int64)
        return np.array([place for part in parts for place in part], dtype=np.int64), first

    def _of(self, rule: Rule, held: Mask) -> Mask:
        match rule:
            case And(terms):
                return reduce(and_, (self._of(term, held) for term in terms))
            case Or(terms):
                return reduce(or_, (self._of(term, held) for term in terms))
            case Not(term):
                return ~self._of(term, held)
            case _:
                mask: Mask = held[self._place[rule]]
                return mask


class _Ranges:
    """Conditions that each ask one column for one range of integers."""

    def __init__(
        self, name: str, over: Over | None, ranges: Sequence[tuple[Leaf, int, int]]
    ) -> None:
        self.leaves = [leaf for leaf, _, _ in ranges]
        self._name = name
        self._over = over
        self._least = np.array([[least] for _, least, _ in ranges], dtype=np.int64)
        self._most = np.array([[most] for _, _, most in ranges], dtype=np.int64)

    def hold(self, table: ColumnSource, held: Mask) -> None:
        """Put into `held`, a row a condition, where it is true."""
        values, missing = column_over(self._name, self._over, table)
        np.greater_equal(values, self._least, out=held)
        held &= values <= self._most
        if missing is not None:
            held &= ~missing


def _ranges(leaves: Iterable[Leaf], brand: Brand) -> list[_Ranges]:
    by_column: dict[tuple[str, Over | None], list[tuple[Leaf, int, int]]] = {}
    for leaf in leaves:
        if isinstance(leaf, Condition):
            spans = spans_of(leaf, brand)
            if len(spans.parts) == 1:
                by_column.setdefault((leaf.feature, leaf.over), []).append((leaf, *spans.parts[0]))
    return [_Ranges(*column, ranges) for column, ranges in by_column.items()]


def _is_conjunction(rule: Rule) -> bool:
    return not isinstance(rule, Or | Not) and not (
        isinstance(rule, And) and any(isinstance(term, And | Or | Not) for term in rule.terms)
    )
