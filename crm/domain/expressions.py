"""Expressions of import mappings: a small typed language over the columns of a row.

It looks like Python and is read with Python's grammar, but only what is listed here exists: no
attributes, no indexing, no loops, no powers. Numbers are exact decimals. Types are checked when the
mapping is read, so an expression that cannot work fails before the first row.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import (
    ROUND_HALF_EVEN,
    Context,
    Decimal,
    DecimalException,
    DivisionByZero,
    Inexact,
    InvalidOperation,
    Overflow,
    localcontext,
)
from typing import Any, Literal

import msgspec

from crm.domain.errors import EventRefused, InvalidMapping
from crm.domain.personal import holds_card, looks_personal

Kind = Literal["text", "decimal", "boolean", "time", "json"]
Row = Sequence[Any]

MAX_EXPRESSION = 2_000
MAX_EXPONENT = 40
# A result that would have to be rounded is an error: money is exact, or asked to be rounded.
_EXACT = Context(prec=100, traps=[DivisionByZero, Inexact, InvalidOperation, Overflow])
_ROUNDING = Context(prec=100, rounding=ROUND_HALF_EVEN)
_DIVIDING = Context(prec=40, rounding=ROUND_HALF_EVEN)


@dataclass(frozen=True)
class Expression:
    """A compiled expression: its type (None: always missing), and the columns that it reads."""

    text: str
    kind: Kind | None
    columns: frozenset[str]
    evaluate: Callable[[Row], Any]


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Within it, a decimal operation is exact or raises; rows are evaluated inside."""
    with localcontext(_EXACT):
        yield


def constant(value: object) -> Expression:
    """Return an expression that is always `value` (text, number, true or false)."""
    if isinstance(value, bool):
        kind: Kind = "boolean"
    elif isinstance(value, int | float | Decimal):
        kind, value = "decimal", parse_decimal(str(value))
    elif isinstance(value, str):
        kind = "text"
    else:
        raise InvalidMapping("a constant is a text, a number, true or false")
    return Expression(repr(value), kind, frozenset(), lambda _row: value)


def compile_expression(text: str, columns: Mapping[str, tuple[int, Kind]]) -> Expression:
    """Compile `text` over `columns` (name to place in the row, and type); raises InvalidMapping."""
    if len(text) > MAX_EXPRESSION:
        raise InvalidMapping(f"an expression has at most {MAX_EXPRESSION} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        compiler = _Compiler(text.strip(), columns)
        body, kind = compiler.compile(tree.body)
        code = compile(ast.fix_missing_locations(_row_function(body)), "<mapping>", "eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else "cannot be read"
        raise InvalidMapping(f"{text!r}: {reason}; {_ALLOWED}") from error
    # Only names that the compiler itself made are in the code, and these are all that it can reach.
    function = eval(code, {"__builtins__": {}, **compiler.names})  # noqa: S307 - our own compiler's
    return Expression(text, kind, frozenset(compiler.used), function)


def parse_decimal(text: str) -> Decimal:
    """Return the exact value of a number's text; raises EventRefused(invalid_number)."""
    try:
        value = Decimal(text)
    except DecimalException:
        raise EventRefused("invalid_number", "not a number") from None
    if "_" in text or not value.is_finite():
        raise EventRefused("invalid_number", "not a number")
    exponent = value.as_tuple().exponent
    if value.adjusted() > MAX_EXPONENT or (isinstance(exponent, int) and exponent < -MAX_EXPONENT):
        raise EventRefused("invalid_number", "a number out of range")
    return value


_ALLOWED = (
    "an expression has columns, numbers, 'texts', + - * /, comparisons, in (...), and, or, not, "
    "x if y else z, is None, and functions"
)


def _row_function(body: ast.expr) -> ast.Expression:
    argument = ast.arguments(
        posonlyargs=[], args=[ast.arg("row")], kwonlyargs=[], kw_defaults=[], defaults=[]
    )
    return ast.Expression(ast.Lambda(argument, body))


def _lower(text: str | None) -> str | None:
    return None if text is None else text.lower()


def _upper(text: str | None) -> str | None:
    return None if text is None else text.upper()


def _strip(text: str | None) -> str | None:
    return None if text is None else text.strip()


def _replace(text: str | None, old: str, new: str) -> str | None:
    return None if text is None else text.replace(old, new)


def _contains(text: str | None, part: str) -> bool:
    return text is not None and part in text


def _starts_with(text: str | None, part: str) -> bool:
    return text is not None and text.startswith(part)


def _to_decimal(text: str | None) -> Decimal | None:
    return None if text is None else parse_decimal(text.strip())


def _to_text(number: Decimal | None) -> str | None:
    return None if number is None else f"{number:f}"


def _absolute(number: Decimal | None) -> Decimal | None:
    return None if number is None else abs(number)


def _round(number: Decimal | None, places: Decimal) -> Decimal | None:
    """Round half to even, as banks do."""
    if number is None:
        return None
    return number.quantize(Decimal(1).scaleb(-int(places)), context=_ROUNDING)


def _divide(dividend: Decimal, divisor: Decimal) -> Decimal:
    """Divide to 40 digits: enough for what divides evenly, and `round` is there for the rest."""
    return _DIVIDING.divide(dividend, divisor)


def _to_json(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        raise EventRefused("invalid_json", "not JSON") from None


def _coalesce(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _null_if(value: Any, other: Any) -> Any:
    return None if value == other else value


_FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[Kind, ...], Kind]] = {
    "lower": (_lower, ("text",), "text"),
    "upper": (_upper, ("text",), "text"),
    "strip": (_strip, ("text",), "text"),
    "replace": (_replace, ("text", "text", "text"), "text"),
    "contains": (_contains, ("text", "text"), "boolean"),
    "starts_with": (_starts_with, ("text", "text"), "boolean"),
    "decimal": (_to_decimal, ("text",), "decimal"),
    "text": (_to_text, ("decimal",), "text"),
    "abs": (_absolute, ("decimal",), "decimal"),
    "round": (_round, ("decimal", "decimal"), "decimal"),
    "json": (_to_json, ("text",), "json"),
}
# These take values of any one type, and give that type.
_GENERIC: dict[str, Callable[..., Any]] = {"coalesce": _coalesce, "null_if": _null_if}
_ORDERED: tuple[Kind, ...] = ("text", "decimal", "time")

_Typed = tuple[ast.expr, Kind | None]


class _Compiler:
    """Turns an allowed tree into one over `row[i]`, and knows the type of each part."""

    def __init__(self, text: str, columns: Mapping[str, tuple[int, Kind]]) -> None:
        self.names: dict[str, object] = {}
        self.used: set[str] = set()
        self._text = text
        self._columns = columns

    def compile(self, node: ast.expr) -> _Typed:  # noqa: PLR0911  # one a kind of node
        """Return the tree to run for `node`, and its type."""
        match node:
            case ast.Constant():
                return self._constant(node)
            case ast.Name():
                return self._column(node.id)
            case ast.BinOp():
                return self._arithmetic(node)
            case ast.UnaryOp():
                return self._unary(node)
            case ast.BoolOp():
                parts = [self._of(value, "boolean") for value in node.values]
                return ast.BoolOp(node.op, parts), "boolean"
            case ast.Compare():
                return self._comparison(node)
            case ast.IfExp():
                test = self._of(node.test, "boolean")
                (body, orelse), kind = self._same(node.body, node.orelse)
                return ast.IfExp(test, body, orelse), kind
            case ast.Call():
                return self._call(node)
            case _:
                raise self._wrong(node, _ALLOWED)

    def _wrong(self, node: ast.AST, reason: str) -> InvalidMapping:
        part = ast.get_source_segment(self._text, node) or self._text
        return InvalidMapping(f"{part!r} in {self._text!r}: {reason}")

    def _name(self, value: object) -> ast.expr:
        name = f"v{len(self.names)}"
        self.names[name] = value
        return ast.Name(name, ast.Load())

    def _constant(self, node: ast.Constant) -> _Typed:
        if node.value is None:
            return node, None
        if isinstance(node.value, bool):
            return node, "boolean"
        if isinstance(node.value, str):
            return node, "text"
        if isinstance(node.value, int | float):
            # The number as written: 0.1 is a tenth, not the double beside it.
            written = ast.get_source_segment(self._text, node) or ""
            try:
                return self._name(parse_decimal(written)), "decimal"
            except EventRefused as error:
                raise self._wrong(node, error.message) from error
        raise self._wrong(node, _ALLOWED)

    def _column(self, name: str) -> _Typed:
        if name not in self._columns:
            raise InvalidMapping(f"there is no column {name!r}; there are {listed(self._columns)}")
        self.used.add(name)
        place, kind = self._columns[name]
        row = ast.Name("row", ast.Load())
        return ast.Subscript(row, ast.Constant(place), ast.Load()), kind

    def _of(self, node: ast.expr, wanted: Kind) -> ast.expr:
        """Compile `node`, which must be of type `wanted` or missing."""
        tree, kind = self.compile(node)
        if kind not in (wanted, None):
            raise self._wrong(node, f"is a {kind}, and a {wanted} is wanted")
        return tree

    def _same(self, *nodes: ast.expr) -> tuple[list[ast.expr], Kind | None]:
        """Compile nodes that must be of one type."""
        typed = [self.compile(node) for node in nodes]
        kinds = {kind for _, kind in typed if kind is not None}
        if len(kinds) > 1:
            raise self._wrong(nodes[-1], f"types differ: {' and '.join(sorted(kinds))}")
        return [tree for tree, _ in typed], next(iter(kinds), None)

    def _arithmetic(self, node: ast.BinOp) -> _Typed:
        (left, right), kind = self._same(node.left, node.right)
        if isinstance(node.op, ast.Add) and kind == "text":
            return ast.BinOp(left, node.op, right), "text"
        if kind != "decimal":
            raise self._wrong(node, "arithmetic needs decimals; write decimal(...) around a text")
        if isinstance(node.op, ast.Div):
            return ast.Call(self._name(_divide), [left, right], []), "decimal"
        if isinstance(node.op, ast.Add | ast.Sub | ast.Mult):
            return ast.BinOp(left, node.op, right), "decimal"
        raise self._wrong(node, _ALLOWED)

    def _unary(self, node: ast.UnaryOp) -> _Typed:
        if isinstance(node.op, ast.Not):
            return ast.UnaryOp(node.op, self._of(node.operand, "boolean")), "boolean"
        if isinstance(node.op, ast.USub | ast.UAdd):
            return ast.UnaryOp(node.op, self._of(node.operand, "decimal")), "decimal"
        raise self._wrong(node, _ALLOWED)

    def _comparison(self, node: ast.Compare) -> _Typed:
        if len(node.ops) != 1:
            raise self._wrong(node, "compare two values at a time, joined by and")
        op, right = node.ops[0], node.comparators[0]
        if isinstance(op, ast.Is | ast.IsNot):
            if not (isinstance(right, ast.Constant) and right.value is None):
                raise self._wrong(node, "`is` asks only for None")
            return ast.Compare(self.compile(node.left)[0], [op], [right]), "boolean"
        if isinstance(op, ast.In | ast.NotIn):
            if not isinstance(right, ast.Tuple | ast.List):
                raise self._wrong(right, "`in` needs a list in brackets")
            trees, _ = self._same(node.left, *right.elts)
            return ast.Compare(trees[0], [op], [ast.Tuple(trees[1:], ast.Load())]), "boolean"
        (left, compared), kind = self._same(node.left, right)
        if not isinstance(op, ast.Eq | ast.NotEq) and kind not in _ORDERED:
            raise self._wrong(node, f"a {kind} has no order")
        return ast.Compare(left, [op], [compared]), "boolean"

    def _call(self, node: ast.Call) -> _Typed:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if node.keywords or any(isinstance(arg, ast.Starred) for arg in node.args):
            raise self._wrong(node, "functions take plain values")
        if name == "column":
            if len(node.args) == 1 and isinstance(node.args[0], ast.Constant):
                return self._column(str(node.args[0].value))
            raise self._wrong(node, "write column('its name')")
        if name in _GENERIC:
            trees, result = self._same(*node.args)
            return ast.Call(self._name(_GENERIC[name]), trees, []), result
        if name not in _FUNCTIONS:
            raise self._wrong(node, f"the functions are {listed([*_FUNCTIONS, *_GENERIC])}")
        function, kinds, kind = _FUNCTIONS[name]
        if len(kinds) != len(node.args):
            raise self._wrong(node, f"{name} takes {len(kinds)} value(s)")
        args = [self._of(arg, wanted) for arg, wanted in zip(node.args, kinds, strict=True)]
        return ast.Call(self._name(function), args, []), kind


def listed(names: Mapping[str, object] | Sequence[str]) -> str:
    """Return up to 30 names for a message; of a file without a header they may be anybody's."""
    shown = ["?" if looks_personal(name) or holds_card(name) else name for name in list(names)[:30]]
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "")
