"""The text form of a segment rule: a grammar that points at what is wrong, and the way back."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast, get_args

from crm.domain import rules
from crm.domain.brands import Brand
from crm.domain.errors import InvalidRule
from crm.domain.feature_list import FeatureList
from crm.domain.features import Feature
from crm.domain.rule_grammar import GRAMMAR, refuse
from crm.domain.rule_terms import (
    Dates,
    Did,
    DidNot,
    InSegment,
    LastDays,
    Newcomers,
    OnList,
    Over,
    Term,
    TextCompare,
    TextIn,
    TextOperator,
    over_text,
)
from crm.domain.rule_words import (
    TEXT_COLUMNS,
    TEXT_OPERATORS,
    check_over,
    date_named,
    event_named,
    readings,
    subject,
    term,
)
from crm.domain.rules import And, Between, Compare, Exists, In, Leaf, Not, Or, Rule, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import date

    from lark import Lark, Token

MAX_BYTES = 10_000
MAX_NUMBER_CHARS = 64
_TEXT_OPERATORS = get_args(TextOperator)


def parse(text: str, brand: Brand | None = None) -> Rule:
    """Return the rule that `text` states; with a `brand`, know its own measures, check decimals.

    Raises InvalidRule, whose position is the character (from 0) where the text goes wrong.
    """
    from lark.exceptions import UnexpectedInput  # noqa: PLC0415  # 40 ms that most processes save

    if len(text) > MAX_BYTES or len(text.encode(errors="surrogatepass")) > MAX_BYTES:
        raise InvalidRule(f"the rule is longer than {MAX_BYTES} bytes")
    try:
        whole = cast("_Part", _grammar(rules.list_for(brand)).parse(text))
    except UnexpectedInput as error:
        refuse(text, error)
    if brand is not None:
        _check_decimals(whole.literals, brand)
    if whole.terms > rules.MAX_TERMS:
        raise InvalidRule(rules.too_many())
    return bounded(whole.rule)


def to_text(rule: Rule) -> str:
    """Return the rule as text, in the one spelling that `parse` gives back as the same tree."""
    match rule:
        case And(terms):
            return " and ".join(_grouped(t) if isinstance(t, Or) else to_text(t) for t in terms)
        case Or(terms):
            return " or ".join(to_text(term) for term in terms)
        case Not(one):
            return f"not {_grouped(one)}"
        case Compare() | Between() | In() | Exists():
            return _condition(rule)
        case _:
            return _term(rule)


def bounded(rule: Rule) -> Rule:
    """Return `rule`; raises InvalidRule where its own text would be too long to be parsed again."""
    if len(to_text(rule)) > MAX_BYTES:
        raise InvalidRule(f"the rule is longer than {MAX_BYTES} bytes")
    return rule


def _condition(rule: rules.Condition) -> str:
    name = rule.feature if rule.over is None else f"{rule.feature} {over_text(rule.over)}"
    match rule:
        case Compare(_, op, value):
            return f"{name} {op} {_written(value)}"
        case Between(_, low, high):
            return f"{name} between {_written(low)} and {_written(high)}"
        case In(_, values):
            return f"{name} in ({', '.join(map(_written, values))})"
        case Exists():
            return f"exists {name}"


def _term(rule: Term) -> str:
    match rule:
        case Did(event, over):
            return f"did {event} {over_text(over)}"
        case DidNot(event, over, newcomers):
            return f"did not {event} {over_text(over)}, newcomers {newcomers}"
        case TextCompare(column, op, value):
            return f"{column} {op.replace('_', ' ')} {_quoted(value)}"
        case TextIn(column, values):
            return f"{column} in ({', '.join(map(_quoted, values))})"
        case InSegment(name):
            return f"segment {_quoted(name)}"
        case OnList(name):
            return f"list {_quoted(name)}"


def _check_decimals(literals: tuple[_Literal, ...], brand: Brand) -> None:
    for feature, value, position in literals:
        try:
            rules.bounds(feature, value, brand)
        except InvalidRule as error:
            raise InvalidRule(error.message, position) from None


def _grouped(rule: Rule) -> str:
    return f"({to_text(rule)})"


def _written(value: Value) -> str:
    """Return a literal; text that is no decimal is a time."""
    number = isinstance(value, int) or rules.DECIMAL.fullmatch(value)
    return str(value) if number else f'"{value}"'


def _quoted(text: str) -> str:
    """Return a text in quotes; one that stands in it is doubled."""
    return '"' + text.replace('"', '""') + '"'


class _Literal(NamedTuple):
    """A literal in canonical form, and where it stands in the text."""

    feature: Feature
    value: Value
    position: int


class _Days(NamedTuple):
    """A window that a rule states."""

    over: Over


class _Part(NamedTuple):
    """A rule as far as it has been read: how deep, how many terms, and its literals' places."""

    rule: Rule
    depth: int
    terms: int
    literals: tuple[_Literal, ...]


class _Builder:
    """Makes parts while the parser reduces: bottom up, so no nesting can exhaust the stack."""

    def __init__(self, features: FeatureList) -> None:
        self._features = features

    def start(self, children: list[_Part]) -> _Part:
        return children[0]

    def grouped(self, children: list[_Part]) -> _Part:
        return children[0]

    def any(self, children: list[_Part | Token]) -> _Part:
        return _joined(Or, children)

    def all(self, children: list[_Part | Token]) -> _Part:
        return _joined(And, children)

    def negated(self, children: tuple[Token, _Part]) -> _Part:
        word, part = children
        return part._replace(rule=Not(part.rule), depth=_deeper(part.depth, word))

    def compare(self, children: list[Token | _Days]) -> _Part:
        *named, operator, value = cast("list[Token]", children)
        if named[0] in TEXT_COLUMNS:
            return self._text_compare(named, operator, value)
        feature, over = self._subject(named)
        found = _literal(feature, value)
        op = cast("rules.Operator", str(operator))
        return _Part(Compare(feature.name, op, found.value, over), 1, 1, (found,))

    def between(self, children: list[Token | _Days]) -> _Part:
        *named, _, low, _, high = cast("list[Token]", children)
        feature, over = self._subject(named)
        first, last = _literal(feature, low), _literal(feature, high)
        return _Part(Between(feature.name, first.value, last.value, over), 1, 1, (first, last))

    def member(self, children: list[Token | _Days]) -> _Part:
        at = 1 + isinstance(children[1], _Days)
        named, values = children[:at], cast("list[Token]", children[at + 1 :])
        if named[0] in TEXT_COLUMNS and at == 1:
            texts = tuple(self._text(named, value) for value in values)
            return self._leaf(TextIn(str(named[0]), texts), values[0])
        feature, over = self._subject(named)
        found = tuple(_literal(feature, value) for value in values)
        rule = In(feature.name, tuple(each.value for each in found), over)
        return _Part(rule, 1, rules.terms_of(rule), found)

    def exists(self, children: list[Token | _Days]) -> _Part:
        feature, over = self._subject(children[1:])
        return _Part(Exists(feature.name, over), 1, 1, ())

    def contains(self, children: tuple[Token, Token, Token]) -> _Part:
        name, operator, value = children
        return self._text_compare([name], operator, value)

    def starts_with(self, children: tuple[Token, Token, Token, Token]) -> _Part:
        name, operator, _, value = children
        return self._text_compare([name], operator, value)

    def last_days(self, children: tuple[Token, Token, Token]) -> _Days:
        _, days, _ = children
        number = int(days) if days.isdecimal() and len(days) <= MAX_NUMBER_CHARS else 0
        return self._over(LastDays(number), days)

    def dates(self, children: tuple[Token, Token, Token, Token]) -> _Days:
        _, first, _, last = children
        return self._over(Dates(_day(first), _day(last)), last)

    def did(self, children: tuple[Token, Token, _Days]) -> _Part:
        _, event, days = children
        return self._leaf(Did(_plain(event), days.over), event)

    def did_not(
        self, children: tuple[Token, Token, Token, _Days, Token | None, Token | None]
    ) -> _Part:
        word, _, event, days, _, reading = children
        if reading is None:
            name = _at(event, lambda: event_named(_plain(event), self._features))
            raise InvalidRule(readings(name, days.over), word.start_pos)
        newcomers: Newcomers = "included" if reading.lower() == "included" else "excluded"
        return self._leaf(DidNot(_plain(event), days.over, newcomers), event)

    def in_segment(self, children: tuple[Token, Token]) -> _Part:
        return self._leaf(InSegment(_plain(children[1])), children[1])

    def on_list(self, children: tuple[Token, Token]) -> _Part:
        return self._leaf(OnList(_plain(children[1])), children[1])

    def _subject(self, named: Sequence[Token | _Days]) -> tuple[Feature, Over | None]:
        name, *days = named
        over = cast("_Days", days[0]).over if days else None
        token = cast("Token", name)
        return _at(token, lambda: subject(str(token), over, self._features)), over

    def _text_compare(self, named: Sequence[Token | _Days], operator: Token, value: Token) -> _Part:
        text = self._text(named, value)
        op = {"starts": "starts_with"}.get(operator.lower(), operator.lower())
        if op not in _TEXT_OPERATORS:
            raise InvalidRule(
                f"{named[0]} is a text: it takes {TEXT_OPERATORS}", operator.start_pos
            )
        return self._leaf(TextCompare(str(named[0]), cast("TextOperator", op), text), value)

    def _text(self, named: Sequence[Token | _Days], value: Token) -> str:
        name = cast("Token", named[0])
        if len(named) > 1:
            self._subject(named)
        if name not in TEXT_COLUMNS:
            known = _at(name, lambda: subject(str(name), None, self._features))
            texts = ", ".join(TEXT_COLUMNS)
            raise InvalidRule(f"{known.name} is no text; texts are {texts}", name.start_pos)
        if value.type != "QUOTED":
            raise InvalidRule(f'{name} is a text: write "{value[:20]}"', value.start_pos)
        return _plain(value)

    def _leaf(self, rule: Term, token: Token) -> _Part:
        """Return a leaf in its one form; what is wrong with it is wrong at `token`."""
        found: Leaf = _at(token, lambda: term(rule, self._features))
        return _Part(found, 1, rules.terms_of(found), ())

    def _over(self, over: Over, token: Token) -> _Days:
        _at(token, lambda: check_over(over))
        return _Days(over)


_Found = TypeVar("_Found")


def _at(token: Token, found: Callable[[], _Found]) -> _Found:
    """Return what is found; what is wrong with it stands at `token`."""
    try:
        return found()
    except InvalidRule as error:
        raise InvalidRule(error.message, token.start_pos) from None


def _day(token: Token) -> date:
    return _at(token, lambda: date_named(_plain(token)))


def _plain(token: Token) -> str:
    """Return a token's text, without its quotes."""
    text = str(token)
    if token.type != "QUOTED":
        return text
    return text[1:-1].replace(text[0] * 2, text[0])


def _joined(kind: type[And | Or], children: list[_Part | Token]) -> _Part:
    parts = [child for child in children if isinstance(child, _Part)]
    if len(parts) == 1:
        return parts[0]
    # terms of the same kind are laid flat, so they add no depth
    depth = max(part.depth - isinstance(part.rule, kind) for part in parts)
    return _Part(
        rules.joined(kind, tuple(part.rule for part in parts)),
        _deeper(depth, cast("Token", children[1])),
        sum(part.terms for part in parts),
        tuple(literal for part in parts for literal in part.literals),
    )


def _deeper(depth: int, word: Token) -> int:
    if depth >= rules.MAX_DEPTH:
        raise InvalidRule(rules.too_deep(), word.start_pos)
    return depth + 1


def _literal(feature: Feature, token: Token) -> _Literal:
    number = token.type == "NUMBER"
    value = _at(
        token, lambda: rules.literal(feature, _number(str(token)) if number else _plain(token))
    )
    return _Literal(feature, value, cast("int", token.start_pos))


def _number(text: str) -> Value:
    """Return an integer, or decimal text; what is too long stays text, and is refused as such."""
    return text if "." in text or len(text) > MAX_NUMBER_CHARS else int(text)


@lru_cache(maxsize=64)
def _grammar(features: FeatureList) -> Lark:
    from lark import Lark  # noqa: PLC0415 - likewise

    builder = cast("Any", _Builder(features))  # any object with a method for each rule
    return Lark(GRAMMAR, parser="lalr", transformer=builder)
