"""The text form of a segment rule: a grammar that points at what is wrong, and the way back."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, cast

from crm.domain import rules
from crm.domain.brands import Brand
from crm.domain.errors import InvalidRule
from crm.domain.feature_list import FeatureList
from crm.domain.features import Feature
from crm.domain.rules import And, Between, Compare, Exists, In, Not, Or, Rule, Value

if TYPE_CHECKING:
    from lark import Lark, Token
    from lark.exceptions import UnexpectedInput

MAX_BYTES = 10_000
MAX_NUMBER_CHARS = 64

_GRAMMAR = r"""
start: any
any: all (OR all)*
all: unit (AND unit)*
?unit: NOT unit                                 -> negated
     | "(" any ")"                              -> grouped
     | NAME OPERATOR literal                    -> compare
     | NAME BETWEEN literal AND literal         -> between
     | NAME IN "(" literal ("," literal)* ")"   -> member
     | EXISTS NAME                              -> exists
?literal: NUMBER | QUOTED

AND.2: /and\b/i
OR.2: /or\b/i
NOT.2: /not\b/i
BETWEEN.2: /between\b/i
IN.2: /in\b/i
EXISTS.2: /exists\b/i
OPERATOR: "=" | "!=" | "<=" | "<" | ">=" | ">"
NAME: /[A-Za-z_][A-Za-z0-9_.]*/
NUMBER: /-?[0-9]+(\.[0-9]+)?(?![A-Za-z0-9_.])/
QUOTED: /"[^"\n]*"|'[^'\n]*'/
%ignore /\s+/
"""

_WORDS = {
    "NAME": "a feature",
    "NUMBER": "a number",
    "QUOTED": "a quoted time",
    "OPERATOR": "one of = != < <= > >=",
    "LPAR": "(",
    "RPAR": ")",
    "COMMA": "a comma",
    "$END": "the end",
}


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
        _refuse(text, error)
    if brand is not None:
        _check_decimals(whole.literals, brand)
    if whole.terms > rules.MAX_TERMS:
        raise InvalidRule(rules.too_many())
    return bounded(whole.rule)


def to_text(rule: Rule) -> str:  # noqa: PLR0911  # one return a kind of node
    """Return the rule as text, in the one spelling that `parse` gives back as the same tree."""
    match rule:
        case And(terms):
            return " and ".join(_grouped(t) if isinstance(t, Or) else to_text(t) for t in terms)
        case Or(terms):
            return " or ".join(to_text(term) for term in terms)
        case Not(term):
            return f"not {_grouped(term)}"
        case Compare(feature, op, value):
            return f"{feature} {op} {_written(value)}"
        case Between(feature, low, high):
            return f"{feature} between {_written(low)} and {_written(high)}"
        case In(feature, values):
            return f"{feature} in ({', '.join(map(_written, values))})"
        case Exists(feature):
            return f"exists {feature}"


def bounded(rule: Rule) -> Rule:
    """Return `rule`; raises InvalidRule where its own text would be too long to be parsed again."""
    if len(to_text(rule)) > MAX_BYTES:
        raise InvalidRule(f"the rule is longer than {MAX_BYTES} bytes")
    return rule


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


class _Literal(NamedTuple):
    """A literal in canonical form, and where it stands in the text."""

    feature: Feature
    value: Value
    position: int


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

    def compare(self, children: tuple[Token, Token, Token]) -> _Part:
        name, operator, value = children
        found = _literal(self._feature(name), value)
        op = cast("rules.Operator", str(operator))
        return _Part(Compare(str(name), op, found.value), 1, 1, (found,))

    def between(self, children: tuple[Token, Token, Token, Token, Token]) -> _Part:
        name, _, low, _, high = children
        feature = self._feature(name)
        first, last = _literal(feature, low), _literal(feature, high)
        return _Part(Between(str(name), first.value, last.value), 1, 1, (first, last))

    def member(self, children: list[Token]) -> _Part:
        name, _, *values = children
        feature = self._feature(name)
        found = tuple(_literal(feature, value) for value in values)
        rule = In(str(name), tuple(each.value for each in found))
        return _Part(rule, 1, rules.terms_of(rule), found)

    def exists(self, children: tuple[Token, Token]) -> _Part:
        _, name = children
        return _Part(Exists(self._feature(name).name), 1, 1, ())

    def _feature(self, name: Token) -> Feature:
        try:
            return rules.feature_named(str(name), self._features)
        except InvalidRule as error:
            raise InvalidRule(error.message, name.start_pos) from None


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
    text = str(token)
    try:
        value = rules.literal(feature, text[1:-1] if token.type == "QUOTED" else _number(text))
    except InvalidRule as error:
        raise InvalidRule(error.message, token.start_pos) from None
    return _Literal(feature, value, cast("int", token.start_pos))


def _number(text: str) -> Value:
    """Return an integer, or decimal text; what is too long stays text, and is refused as such."""
    return text if "." in text or len(text) > MAX_NUMBER_CHARS else int(text)


@lru_cache(maxsize=64)
def _grammar(features: FeatureList) -> Lark:
    from lark import Lark  # noqa: PLC0415 - likewise

    builder = cast("Any", _Builder(features))  # any object with a method for each rule
    return Lark(_GRAMMAR, parser="lalr", transformer=builder)


def _refuse(text: str, error: UnexpectedInput) -> NoReturn:
    """Raise InvalidRule for what the parser met, with what could stand there instead."""
    ended = getattr(getattr(error, "token", None), "type", None) == "$END"
    position = len(text.rstrip()) if ended else cast("int", error.pos_in_stream)
    if ended:
        met = "the rule ends here"
    else:
        met = f"{text[position : position + 20].split(maxsplit=1)[0]!r} does not fit here"
    wanted = getattr(error, "accepts", None) or getattr(error, "allowed", None) or ()
    words = sorted(_WORDS.get(name, name.lower()) for name in wanted)
    hint = f"; expected {', '.join(words)}" if words else ""
    raise InvalidRule(f"{met}{hint}", position) from None
