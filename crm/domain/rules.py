"""The tree of a segment rule: its nodes, what their literals may be, and its JSON form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from crm.domain.brands import Brand
from crm.domain.errors import InvalidRule
from crm.domain.feature_list import BUILT_IN, FeatureList, features_of
from crm.domain.features import SHARE_DECIMALS, Feature
from crm.domain.rule_terms import LastDays, Node, Over, Term, TextIn
from crm.domain.rule_words import DATE, YEARS, check_over, readings, subject, term
from crm.domain.times import to_us

MAX_DEPTH = 50
MAX_TERMS = 200
MAX_COUNT = 10**18

Operator = Literal["=", "!=", "<", "<=", ">", ">="]
# Money (major units), shares and numbers are decimal text, a time is RFC 3339 or an ISO date, and
# the rest are integers.
Value: TypeAlias = int | str

DECIMAL = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,12})?")  # 27 digits: exact in decimal's 28


class And(Node, frozen=True, tag="and"):
    """True where all of `terms` are."""

    terms: Annotated[tuple[Rule, ...], Meta(min_length=1)]


class Or(Node, frozen=True, tag="or"):
    """True where any of `terms` is."""

    terms: Annotated[tuple[Rule, ...], Meta(min_length=1)]


class Not(Node, frozen=True, tag="not"):
    """True where `term` is false, so also where its feature is missing."""

    term: Rule


class Compare(Node, frozen=True, omit_defaults=True, tag="compare"):
    """A feature against one value; false where the feature is missing.

    With `over`, the feature's name is one without its window, and it is read over these days.
    """

    feature: str
    op: Operator
    value: Value
    over: Over | None = None


class Between(Node, frozen=True, omit_defaults=True, tag="between"):
    """A feature from `low` to `high`, both included."""

    feature: str
    low: Value
    high: Value
    over: Over | None = None


class In(Node, frozen=True, omit_defaults=True, tag="in"):
    """A feature that equals one of `values`."""

    feature: str
    values: Annotated[tuple[Value, ...], Meta(min_length=1)]
    over: Over | None = None


class Exists(Node, frozen=True, omit_defaults=True, tag="exists"):
    """A feature that is not missing."""

    feature: str
    over: Over | None = None


Condition: TypeAlias = Compare | Between | In | Exists
Leaf: TypeAlias = Condition | Term
Rule: TypeAlias = And | Or | Not | Leaf


def from_tree(tree: object, brand: Brand | None = None) -> Rule:
    """Return the rule of a decoded JSON tree, in its one canonical form; raises InvalidRule.

    With a `brand`, its own measures are known too, and its money's decimals are checked.
    """
    features = list_for(brand)
    try:
        rule = msgspec.convert(tree, Rule)
    except msgspec.ValidationError as error:
        which = f"; {readings('bet', LastDays(30))}" if "`newcomers`" in str(error) else ""
        raise InvalidRule(f"the rule's tree is not right: {error}{which}") from None
    except UnicodeEncodeError:
        raise InvalidRule("the rule's tree holds half a surrogate pair") from None
    except RecursionError:
        raise InvalidRule(too_deep()) from None
    rule = _canonical(rule, 1, features)
    if sum(map(terms_of, leaves_of(rule))) > MAX_TERMS:
        raise InvalidRule(too_many())
    if brand is not None:
        for one in conditions_of(rule):
            for value in literals_of(one):
                bounds(subject(one.feature, one.over, features), value, brand)
    return rule


def to_tree(rule: Rule) -> dict[str, Any]:
    """Return the rule as a tree of plain objects, ready for JSON."""
    tree: dict[str, Any] = msgspec.to_builtins(rule)
    return tree


def joined(kind: type[And | Or], terms: tuple[Rule, ...]) -> Rule:
    """Join `terms`, with nested ones of the same kind laid flat; one term stands for itself."""
    flat: list[Rule] = []
    for one in terms:
        flat.extend(one.terms if isinstance(one, kind) else (one,))
    if not flat:
        raise InvalidRule("and, or: at least one term")
    return flat[0] if len(flat) == 1 else kind(tuple(flat))


def condition(rule: Condition, features: FeatureList) -> Condition:
    """Return `rule` with its literals in canonical form; raises InvalidRule."""
    if isinstance(rule, In) and not rule.values:
        raise InvalidRule(f"{rule.feature} in (): at least one value")
    if rule.over is not None:
        check_over(rule.over)
    known = subject(rule.feature, rule.over, features)
    match rule:
        case Compare(feature, op, value, over):
            return Compare(feature, op, literal(known, value), over)
        case Between(feature, low, high, over):
            return Between(feature, literal(known, low), literal(known, high), over)
        case In(feature, values, over):
            return In(feature, tuple(literal(known, value) for value in values), over)
        case Exists():
            return rule


def leaves_of(rule: Rule) -> Iterator[Leaf]:
    """Return all that a rule joins, from left to right."""
    match rule:
        case And(terms) | Or(terms):
            for one in terms:
                yield from leaves_of(one)
        case Not(one):
            yield from leaves_of(one)
        case _:
            yield rule


def conditions_of(rule: Rule) -> Iterator[Condition]:
    """Return every condition on a feature, from left to right."""
    return (leaf for leaf in leaves_of(rule) if isinstance(leaf, Condition))


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


def terms_of(rule: Leaf) -> int:
    """Return what a leaf costs against MAX_TERMS: 1, or one for each value of a set."""
    return len(rule.values) if isinstance(rule, In | TextIn) else 1


def list_for(brand: Brand | None) -> FeatureList:
    """Return the features that a rule may name: a brand's, or the built-in ones."""
    return BUILT_IN if brand is None else features_of(brand)


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
    if not DATE.fullmatch(value):
        at = to_us(datetime.fromisoformat(value))
        return at, at
    day = date.fromisoformat(value)
    return midnight(day, brand), midnight(day + timedelta(days=1), brand) - 1


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
            laid = tuple(_canonical(one, depth + 1, features) for one in terms)
            return joined(type(rule), laid)
        case Not(one):
            return Not(_canonical(one, depth + 1, features))
        case Compare() | Between() | In() | Exists():
            return condition(rule, features)
        case _:
            return term(rule, features)


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
        if DATE.fullmatch(value):
            year = date.fromisoformat(value).year
        else:
            at = msgspec.convert(value, datetime)
            year = at.year
            value = at.astimezone(UTC).isoformat().replace("+00:00", "Z") if at.tzinfo else ""
    except (ValueError, OverflowError, msgspec.ValidationError):
        raise InvalidRule(wanted) from None
    if not value or year not in YEARS:
        raise InvalidRule(wanted)
    return value


def midnight(day: date, brand: Brand) -> int:
    """Return when a local day of the brand begins, in microseconds since 1970."""
    return to_us(datetime.combine(day, time(), brand.zone))
