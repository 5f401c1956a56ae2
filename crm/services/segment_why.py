"""Why one player is in a rule or not: every term with its value, and whether it holds."""

from __future__ import annotations

import numpy as np

from crm.domain import rules
from crm.domain.brands import Brand
from crm.domain.errors import PlayerNotFound
from crm.domain.feature_list import features_of
from crm.domain.feature_table import FeatureTable
from crm.domain.ports import Explained
from crm.domain.rule_text import to_text
from crm.domain.rules import And, Between, Compare, Condition, Exists, In, Not, Or, Rule, Value
from crm.domain.saved_segments import Shown, Why
from crm.domain.segments import ColumnSource, compile_mask, parse
from crm.domain.times import from_us
from crm.services.player_features import for_reading
from crm.services.segment_members import SomeRows, known_to


def explained(
    table: FeatureTable, brand: Brand, rule: str, player_id: str, shard: int, epoch: int
) -> Explained:
    """Explain a rule (text) for a player of `table`; raises PlayerNotFound, InvalidRule."""
    row = table.row(player_id)
    if row is None:
        raise PlayerNotFound(f"brand {brand.id} has no such player")
    brand = known_to(table, brand)
    of_player = SomeRows(table, np.array([row], np.int64))
    return Explained(shard, epoch, from_us(table.now_us), why(parse(rule, brand), brand, of_player))


def why(rule: Rule, brand: Brand, of_player: ColumnSource) -> Why:
    """Explain a rule by the one row of `of_player`; the truth of each node is `compile_mask`'s."""
    holds = bool(compile_mask(rule, brand, of_player, 1)[0])
    match rule:
        case And(terms) | Or(terms):
            parts = [why(term, brand, of_player) for term in terms]
            return Why("and" if isinstance(rule, And) else "or", holds, terms=parts)
        case Not(term):
            return Why("not", holds, terms=[why(term, brand, of_player)])
        case _:
            return _term(rule, brand, of_player, holds=holds)


def _term(rule: Condition, brand: Brand, of_player: ColumnSource, *, holds: bool) -> Why:
    feature = features_of(brand).features[rule.feature]
    values, missing = of_player.column(rule.feature)
    raw = None if missing is not None and missing[0] else int(values[0])
    op, threshold = _threshold(rule, brand)
    return Why(
        "condition",
        holds,
        text=to_text(rule),
        feature=rule.feature,
        op=op,
        threshold=threshold,
        value=for_reading(brand, {rule.feature: raw})[rule.feature],
        raw=raw,
        unit=brand.currency.code if feature.unit == "money" else feature.unit,
    )


def _threshold(rule: Condition, brand: Brand) -> tuple[str, Shown | list[Shown]]:
    feature = features_of(brand).features[rule.feature]

    def shown(value: Value) -> Shown:
        """Write a literal as its feature's values are; a date stays the day that it names."""
        if feature.unit == "time":
            return value
        return for_reading(brand, {feature.name: rules.bounds(feature, value, brand)[0]})[
            feature.name
        ]

    match rule:
        case Compare(_, op, value):
            return op, shown(value)
        case Between(_, low, high):
            return "between", [shown(low), shown(high)]
        case In(_, values):
            return "in", [shown(value) for value in values]
        case Exists():
            return "exists", None
