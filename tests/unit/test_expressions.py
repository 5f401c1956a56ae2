"""The language of mappings: exact, typed, and closed."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from crm.domain.errors import EventRefused, InvalidMapping
from crm.domain.expressions import Kind, compile_expression, exact_arithmetic, parse_decimal

COLUMNS: dict[str, tuple[int, Kind]] = {
    "stake": (0, "decimal"),
    "won": (1, "decimal"),
    "player": (2, "text"),
    "Number of CDs": (3, "text"),
    "at": (4, "time"),
}
ROW: list[Any] = [Decimal("0.10"), None, "-ABC", "007", None]


def evaluate(text: str, row: list[Any] | None = None) -> Any:
    with exact_arithmetic():
        return compile_expression(text, COLUMNS).evaluate(ROW if row is None else row)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("stake + 0.20", Decimal("0.30")),
        ("stake * 3 - 0.3", Decimal("0.00")),
        ("stake / 100", Decimal("0.001")),
        ("-stake", Decimal("-0.10")),
        ("round(1 / 3, 2)", Decimal("0.33")),
        ("round(2.5, 0)", Decimal(2)),
        ("abs(0 - stake)", Decimal("0.10")),
        ("'lost' if won is None else 'won'", "lost"),
        ("coalesce(won, stake, 0)", Decimal("0.10")),
        ("null_if(player, '-ABC')", None),
        ("lower(strip(' ' + player))", "-abc"),
        ("upper('x') + '!'", "X!"),
        ("replace(player, '-', '')", "ABC"),
        ("decimal(column('Number of CDs')) * 2", Decimal(14)),
        ("text(stake)", "0.10"),
        ("player in ('-ABC', 'x') and not stake > 1", True),
        ("starts_with(player, '-') or contains(player, 'z')", True),
        ("won == 1", False),
        ("json('{\"a\": 1}')", {"a": 1}),
        ("lower(null_if(player, '-ABC'))", None),
    ],
)
def test_an_expression_has_its_value(text: str, value: object) -> None:
    assert evaluate(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')", "player.upper()", "player[0]", "[c for c in player]", "lambda: 1",
        "stake ** 99", "stake % 2", "f'{player}'", "(yield)", "stake := 1", "1 < stake < 2",
        "row", "v0", "open('x')", "coalesce(*player)", "lower(x=player)", "b'bytes'", "...",
        "player is player", "1e999", "0x10", "'a' * 9", "", "(" * 500, "1" * 3_000, "stake\0",
    ],
)  # fmt: skip
def test_nothing_else_is_a_language(text: str) -> None:
    with pytest.raises(InvalidMapping):
        compile_expression(text, COLUMNS)


@pytest.mark.parametrize(
    "text",
    ["player + 1", "stake and won", "player > 1", "not stake", "lower(stake)", "player - player",
     "1 if player else 2", "'a' if stake > 1 else 2", "stake in ('1',)", "round(stake)"],
)  # fmt: skip
def test_types_are_checked_before_the_first_row(text: str) -> None:
    with pytest.raises(InvalidMapping):
        compile_expression(text, COLUMNS)


def test_an_unknown_column_is_told_with_those_there_are() -> None:
    with pytest.raises(InvalidMapping, match="no column 'stakes'; there are stake, won, player"):
        compile_expression("stakes * 2", COLUMNS)


def test_arithmetic_with_a_missing_value_is_an_error_and_not_zero() -> None:
    with pytest.raises(TypeError):
        evaluate("stake + won")


def test_a_result_that_would_be_rounded_is_an_error() -> None:
    with pytest.raises(ArithmeticError):
        evaluate("stake * stake * stake * stake", [Decimal("1." + "1" * 40)])


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1_000", "", "12a", "1e99999", "1e-99999"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(EventRefused) as refused:
        parse_decimal(text)
    assert refused.value.code == "invalid_number"


def test_a_number_may_be_written_as_a_spreadsheet_does() -> None:
    assert parse_decimal("2.00E+03") == 2000
