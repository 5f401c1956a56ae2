"""The tree of a segment rule: its nodes, what their literals may be, and its JSON form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from difflib import get_close_matches
from typing import Any, Literal, TypeAlias

import msgspec

from crm.domain.brands import Brand
from crm.domain.errors import InvalidRule
from crm.domain.feature_list import BUILT_IN, FeatureList, features_of
from crm.domain.features import SHARE_DECIMALS, Feature
from crm.domain.times import to_us

MAX_DEPTH = 50
MAX_TERMS = 200
MAX_COUNT = 10**18

Operator = Literal["=", "!=", "<", "<=", ">", ">="]
# Money (major units), shares and numbers are decimal text, a time is RFC 3339 or an ISO date, and
# the rest are integers.
Value: TypeAlias = int | str

DECIMAL = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,12})?")  # 27 digits: exact in decimal's 28
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_YEARS = range(1900, 2200)  # zones and the next day stay within what a datetime can hold


class _Node(msgspec.Struct, frozen=True, tag_field="kind", forbid_unknown_fields=True):
    """What all nodes share: they never change, and `kind` tells them apart in JSON."""


class And(_Node, frozen=True, tag="and"):
    """True where all of `terms` are."""

    terms: tuple[Rule, ...]


class Or(_Node, frozen=True, tag="or"):
    """True where any of `terms` is."""

    terms: tuple[Rule, ...]


class Not(_Node, frozen=True, tag="not"):
    """True where `term` is false, so also where its feature is missing."""

    term: Rule


class Compare(_Node, frozen=True, tag="compare"):
    """A feature against one value; false where the feature is missing."""

    feature: str
    op: Operator
    value: Value


class Between(_Node, frozen=True, tag="between"):
    """A feature from `low` to `high`, both included."""

    feature: str
    low: Value
    high: Value


class In(_Node, frozen=True, tag="in"):
    """A feature that equals one of `values`."""

    feature: str
    values: tuple[Value, ...]


class Exists(_Node, frozen=True, tag="exists"):
    """A feature that is not missing."""

    feature: str


Rule: TypeAlias = And | Or | Not | Compare | Between | In | Exists
Condition: TypeAlias = Compare | Between | In | Exists


def from_tree(tree: object, brand: Brand | None = None) -> Rule:
    """Return the rule of a decoded JSON tree, in its one canonical form; raises InvalidRule.

    With a `brand`, its own measures are known too, and its money's decimals are checked.
    """
    features = list_for(brand)
    try:
        rule = msgspec.convert(tree, Rule)
    except msgspec.ValidationError as error:
        raise InvalidRule(f"the rule's tree is not right: {error}") from None
    except UnicodeEncodeError:
        raise InvalidRule("the rule's tree holds half a surrogate pair") from None
    except RecursionError:
        raise InvalidRule(too_deep()) from None
    rule = _canonical(rule, 1, features)
    if sum(terms_of(condition) for condition in conditions_of(rule)) > MAX_TERMS:
        raise InvalidRule(too_many())
    if brand is not None:
        for one in conditions_of(rule):
            for value in literals_of(one):
                bounds(feature_named(one.feature, features), value, brand)
    return rule


def to_tree(rule: Rule) -> dict[str, Any]:
    """Return the rule as a tree of plain objects, ready for JSON."""
    tree: dict[str, Any] = msgspec.to_builtins(rule)
    return tree


def joined(kind: type[And | Or], terms: tuple[Rule, ...]) -> Rule:
    """Join `terms`, with nested ones of the same kind laid flat; one term stands for itself."""
    flat: list[Rule] = []
    for term in terms:
        flat.extend(term.terms if isinstance(term, kind) else (term,))
    if not flat:
        raise InvalidRule("and, or: at least one term")
    return flat[0] if len(flat) == 1 else kind(tuple(flat))


def condition(rule: Condition, features: FeatureList) -> Condition:
    """Return `rule` with its literals in canonical form; raises InvalidRule."""
    if isinstance(rule, In) and not rule.values:
        raise InvalidRule(f"{rule.feature} in (): at least one value")
    known = feature_named(rule.feature, features)
    match rule:
        case Compare(feature, op, value):
            return Compare(feature, op, literal(known, value))
        case Between(feature, low, high):
            return Between(feature, literal(known, low), literal(known, high))
        case In(feature, values):
            return In(feature, tuple(literal(known, value) for value in values))
        case Exists():
            return rule


def conditions_of(rule: Rule) -> Iterator[Condition]:
    """Return every condition of the rule, from left to right."""
    match rule:
        case And(terms) | Or(terms):
            for term in terms:
                yield from conditions_of(term)
        case Not(term):
            yield from conditions_of(term)
        case _:
            yield rule


def literals_of(rule: Condition) -> tuple[Value, ...]:
    """Return the values that a condition compares with."""
    match rule:
        case Compare():
            return (rule.value,)
        case Between():
            return (rule.low, rule.high)
        case In():
            return rule.values
        case Exists():
            return ()


def terms_of(rule: Condition) -> int:
    """Return what a condition costs against MAX_TERMS: 1, or one for each value of a set."""
    return len(rule.values) if isinstance(rule, In) else 1


def list_for(brand: Brand | None) -> FeatureList:
    """Return the features that a rule may name: a brand's, or the built-in ones."""
    return BUILT_IN if brand is None else features_of(brand)


def feature_named(name: str, features: FeatureList) -> Feature:
    """Return the feature; raises InvalidRule with the nearest names that there are."""
    feature = features.features.get(name)
    if feature is None:
        near = get_close_matches(name[:64].lower(), features.features, n=3, cutoff=0.6)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise InvalidRule(f"there is no feature {name[:64]!r}{hint}")
    return feature


def literal(feature: Feature, value: Value) -> Value:
    """Return `value` in the one form in which it is kept; raises InvalidRule for a wrong type."""
    if feature.unit == "money":
        return _decimal(feature, value, "money: a decimal such as 500 or 12.50")
    if feature.unit == "share":
        return _decimal(feature, value, "a share: a decimal such as 0.25")
    if feature.unit == "number":
        return _decimal(feature, value, "a number: a decimal such as 1.27")
    if feature.unit == "time":
        return _time(feature, value)
    if not isinstance(value, int) or abs(value) >= MAX_COUNT:
        raise InvalidRule(f"{feature.name} is a whole number such as 10, of at most 18 digits")
    return value


def bounds(feature: Feature, value: Value, brand: Brand) -> tuple[int, int]:
    """Return the first and last raw integer that a canonical literal stands for.

    They are equal but for a date, which stands for its whole day where the brand is. Raises
    InvalidRule for more decimals than the feature has: of money, those of the brand's currency.
    """
    if feature.unit == "money":
        minor = brand.currency.to_minor(Decimal(value))
        if minor is None:
            code, decimals = brand.currency.code, brand.currency.decimals
            raise InvalidRule(f"{feature.name} is in {code}, which has {decimals} decimals")
        return minor, minor
    if feature.unit in {"share", "number"}:
        decimals = SHARE_DECIMALS if feature.decimals is None else feature.decimals
        units = Decimal(value).scaleb(decimals)
        if units != int(units):
            raise InvalidRule(f"{feature.name} has {decimals} decimals")
        return int(units), int(units)
    if isinstance(value, int):
        return value, value
    if not _DATE.fullmatch(value):
        at = to_us(datetime.fromisoformat(value))
        return at, at
    day = date.fromisoformat(value)
    return _midnight(day, brand), _midnight(day + timedelta(days=1), brand) - 1


def too_deep() -> str:
    """What is said of a rule that is nested too deep."""
    return f"the rule is nested over {MAX_DEPTH} deep"


def too_many() -> str:
    """What is said of a rule with too many conditions."""
    return f"the rule has over {MAX_TERMS} terms"


def _canonical(rule: Rule, depth: int, features: FeatureList) -> Rule:
    if depth > MAX_DEPTH:
        raise InvalidRule(too_deep())
    match rule:
        case And(terms) | Or(terms):
            laid = tuple(_canonical(term, depth + 1, features) for term in terms)
            return joined(type(rule), laid)
        case Not(term):
            return Not(_canonical(term, depth + 1, features))
        case _:
            return condition(rule, features)


def _decimal(feature: Feature, value: Value, what: str) -> str:
    text = str(value) if isinstance(value, str) or abs(value) < MAX_COUNT else ""
    if not DECIMAL.fullmatch(text):
        raise InvalidRule(f"{feature.name} is {what}")
    amount = Decimal(text).normalize()
    return format(abs(amount) if amount.is_zero() else amount, "f")


def _time(feature: Feature, value: Value) -> str:
    wanted = f'{feature.name} is a time: "2026-01-31", or "2026-01-31T18:00:00Z" with its zone'
    if isinstance(value, int):
        raise InvalidRule(wanted)
    try:
        if _DATE.fullmatch(value):
            year = date.fromisoformat(value).year
        else:
            at = msgspec.convert(value, datetime)
            year = at.year
            value = at.astimezone(UTC).isoformat().replace("+00:00", "Z") if at.tzinfo else ""
    except (ValueError, OverflowError, msgspec.ValidationError):
        raise InvalidRule(wanted) from None
    if not value or year not in _YEARS:
        raise InvalidRule(wanted)
    return value


def _midnight(day: date, brand: Brand) -> int:
    return to_us(datetime.combine(day, time(), brand.zone))
