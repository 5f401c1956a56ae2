"""What a rule says in plain words, for the marketer who wrote it or reads it."""

from __future__ import annotations

from collections.abc import Mapping

from crm.domain.brands import Brand
from crm.domain.feature_list import FeatureList
from crm.domain.feature_list import features_of as list_of
from crm.domain.features import Measure
from crm.domain.rule_phrases import VERBS, clause, did_not, during, either
from crm.domain.rule_references import Known, found
from crm.domain.rule_terms import (
    Did,
    DidNot,
    InSegment,
    LastDays,
    OnList,
    TextCompare,
    TextIn,
)
from crm.domain.rule_words import TEXT_COLUMNS, feature_named, feature_over, measure_of
from crm.domain.rules import And, Between, Compare, Condition, Exists, In, Not, Or, Rule
from crm.domain.score_columns import defined_as

_TEXT_OPERATORS = {"=": "is", "!=": "is not", "contains": "contains", "starts_with": "starts with"}


def describe(rule: Rule, brand: Brand, segments: Mapping[str, Known] | None = None) -> str:
    """Return the rule as one sentence about players, without its full stop.

    Money is in the brand's currency. `segments`, by id, are those that the rule may name, and do
    not go in a circle: each is said by its name, and who is in it. Raises InvalidRule for a feature
    that the brand has not.
    """
    return f"players {_said(rule, brand, segments or {})}"


def _said(rule: Rule, brand: Brand, segments: Mapping[str, Known]) -> str:
    match rule:
        case And(terms):
            return ", and ".join(_grouped(one, brand, segments) for one in terms)
        case Or(terms):
            return ", or ".join(_grouped(one, brand, segments) for one in terms)
        case Not(one):
            return f"other than those {_grouped(one, brand, segments)}"
        case Compare() | Between() | In() | Exists():
            return _condition(rule, brand)
        case InSegment(name) | OnList(name):
            return _named(rule, name, brand, segments)
        case _:
            return _term(rule, list_of(brand))


def _grouped(rule: Rule, brand: Brand, segments: Mapping[str, Known]) -> str:
    """Return a part, in brackets where it joins others itself."""
    said = _said(rule, brand, segments)
    return f"({said})" if isinstance(rule, And | Or) else said


def _named(rule: InSegment | OnList, name: str, brand: Brand, segments: Mapping[str, Known]) -> str:
    known = found(name, segments)
    if known is None:
        kind = "in the segment" if isinstance(rule, InSegment) else "on the list"
        return f'who are {kind} "{name}"'
    if known.rule is None:
        return f'who are on the list "{known.name}"'
    return f'who are in the segment "{known.name}" (those {_said(known.rule, brand, segments)})'


def _condition(rule: Condition, brand: Brand) -> str:
    features = list_of(brand)
    if rule.over is not None:
        feature_over(rule.feature, features)
        return clause(rule, rule.feature, features.windowed[rule.feature], brand)
    feature_named(rule.feature, features)
    defined = defined_as(rule.feature, features)
    return clause(rule, rule.feature.removesuffix(f"_{defined.window}"), defined, brand)


def _term(rule: Did | DidNot | TextCompare | TextIn, features: FeatureList) -> str:
    match rule:
        case Did():
            return _did(rule, features)
        case DidNot():
            return _did_not(rule, features)
        case TextCompare(column, op, value):
            return f'whose {TEXT_COLUMNS[column]} {_TEXT_OPERATORS[op]} "{value}"'
        case TextIn(column, values):
            some = either([f'"{value}"' for value in values])
            return f"whose {TEXT_COLUMNS[column]} is {some}"


def _did(rule: Did, features: FeatureList) -> str:
    measure, when = measure_of(rule.event), during("", rule.over)
    if measure in VERBS:
        return f"who {VERBS[measure][0]} {when}"
    return f"for whom there were {_things(measure, features)} {when}"


def _did_not(rule: DidNot, features: FeatureList) -> str:
    measure, when = measure_of(rule.event), during("", rule.over)
    if measure in VERBS:
        said = did_not(measure, when)
    else:
        said = f"for whom there were no {_things(measure, features)} {when}"
    if rule.newcomers == "included":
        return f"{said} (newcomers too)"
    match rule.over:
        case LastDays(days):
            return f"{said} (of those known for {days} day{'s' if days != 1 else ''} or more)"
        case _:
            return f"{said} (of those known since before {rule.over.first})"


def _things(measure: str, features: FeatureList) -> str:
    feature_over(measure, features)
    definition = features.windowed[measure].definition
    return definition.meaning if isinstance(definition, Measure) else measure
