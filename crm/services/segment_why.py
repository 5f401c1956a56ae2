"""Why one player is in a rule or not: every term with its value, and whether it holds."""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace

from crm.domain import rules
from crm.domain.brands import Brand
from crm.domain.column_source import Column
from crm.domain.errors import PlayerNotFound
from crm.domain.feature_list import features_of
from crm.domain.feature_table import FeatureTable
from crm.domain.features import Feature
from crm.domain.ports import Explained
from crm.domain.rule_masks import KNOWN_SINCE, column_over
from crm.domain.rule_terms import Did, DidNot, OnList, TextCompare, TextIn
from crm.domain.rule_text import to_text
from crm.domain.rule_words import measure_of, subject
from crm.domain.rules import (
    And,
    Between,
    Compare,
    Condition,
    Exists,
    In,
    Leaf,
    Not,
    Or,
    Rule,
    Value,
)
from crm.domain.saved_segments import Shown, Why
from crm.domain.segments import ColumnSource, compile_mask, parse
from crm.domain.times import from_us
from crm.services.player_features import rfc3339, written
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
            return replace(_leaf(rule, brand, of_player), holds=holds, text=to_text(rule))


def _leaf(rule: Leaf, brand: Brand, of_player: ColumnSource) -> Why:
    """Return what a leaf is held against and what the player has; whether it holds comes later."""
    match rule:
        case Compare() | Between() | In() | Exists():
            return _condition(rule, brand, of_player)
        case Did() | DidNot():
            return _times(rule, of_player)
        case TextCompare(column, op, value):
            return _text(column, op, value, of_player)
        case TextIn(column, values):
            return _text(column, "in", list(values), of_player)
        case OnList():
            return Why("list", holds=False)
        case _:  # of another segment: compile_mask has refused it already
            return Why("condition", holds=False)


def _condition(rule: Condition, brand: Brand, of_player: ColumnSource) -> Why:
    feature = subject(rule.feature, rule.over, features_of(brand))
    raw = _raw(column_over(rule.feature, rule.over, of_player))
    op, threshold = _threshold(rule, feature, brand)
    return Why(
        "condition",
        holds=False,
        feature=rule.feature,
        op=op,
        threshold=threshold,
        value=written(brand, feature, raw),
        raw=raw,
        unit=brand.currency.code if feature.unit == "money" else feature.unit,
    )


def _threshold(rule: Condition, feature: Feature, brand: Brand) -> tuple[str, Shown | list[Shown]]:
    def shown(value: Value) -> Shown:
        """Write a literal as its feature's values are; a date stays the day that it names."""
        if feature.unit == "time":
            return value
        return written(brand, feature, rules.bounds(feature, value, brand)[0])

    match rule:
        case Compare():
            return rule.op, shown(rule.value)
        case Between():
            return "between", [shown(rule.low), shown(rule.high)]
        case In():
            return "in", [shown(value) for value in rule.values]
        case Exists():
            return "exists", None


def _times(rule: Did | DidNot, of_player: ColumnSource) -> Why:
    raw = _raw(column_over(measure_of(rule.event), rule.over, of_player))
    did = isinstance(rule, Did)
    told = Why(
        "condition",
        holds=False,
        feature=rule.event,
        op="did" if did else "did_not",
        threshold=1 if did else 0,
        value=raw,
        raw=raw,
        unit="count",
    )
    if isinstance(rule, Did) or rule.newcomers == "included":
        return told
    since = _raw(of_player.column(KNOWN_SINCE))
    return replace(told, known_since=None if since is None else rfc3339(from_us(since)))


def _text(column: str, op: str, threshold: str | list[Shown], of_player: ColumnSource) -> Why:
    texts, missing = of_player.texts(column)
    value = None if missing is not None and missing[0] else texts[0]
    return Why(
        "condition", holds=False, feature=column, op=op, threshold=threshold, value=value,
        unit="text",
    )  # fmt: skip


def _raw(column: Column) -> int | None:
    """Return the one value of a column, None if it is missing."""
    values, missing = column
    return None if missing is not None and missing[0] else int(values[0])
