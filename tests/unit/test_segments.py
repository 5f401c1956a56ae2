"""Segment rules: what the text and the tree may say, and what is said when they are wrong."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime

import numpy as np
import pytest
from numpy.typing import NDArray

from crm.domain.brands import Brand, Currency
from crm.domain.errors import InvalidRule
from crm.domain.rules import conditions_of
from crm.domain.segments import (
    compile_mask,
    features_of,
    from_tree,
    parse,
    to_text,
    to_tree,
)
from tests.support.columns import ListColumns, NamedColumns

EURO = Brand("demo", "Demo", Currency("EUR", 2), "Europe/Lisbon", date(2020, 1, 1), "PT")
YEN = Brand("yen", "Yen", Currency("JPY", 0), "Asia/Tokyo", date(2020, 1, 1), "JP")


def members(text: str, brand: Brand = EURO, **columns: list[int | None]) -> list[bool]:
    n = len(next(iter(columns.values())))
    answer: list[bool] = compile_mask(parse(text), brand, ListColumns(columns), n).tolist()
    return answer


def micros(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("bet_count_7d>=10", "bet_count_7d >= 10"),
        ("bet_count_7d = 007", "bet_count_7d = 7"),
        ("stake_amount_7d > 1.50", "stake_amount_7d > 1.5"),
        ("stake_amount_7d > -0.00", "stake_amount_7d > 0"),
        ("ggr_amount_7d < -100", "ggr_amount_7d < -100"),
        ("NOT bet_count_7d = 1", "not (bet_count_7d = 1)"),
        (
            "bet_count_7d=1 or bet_count_7d=2 and bet_count_7d=3",
            "bet_count_7d = 1 or bet_count_7d = 2 and bet_count_7d = 3",
        ),
        (
            "(bet_count_7d=1 or bet_count_7d=2) and ((bet_count_7d=3))",
            "(bet_count_7d = 1 or bet_count_7d = 2) and bet_count_7d = 3",
        ),
        (
            "bet_count_7d=1 and (bet_count_7d=2 and bet_count_7d=3)",
            "bet_count_7d = 1 and bet_count_7d = 2 and bet_count_7d = 3",
        ),
        (
            "stake_amount_7d between 1 and 2 and exists first_bet_at",
            "stake_amount_7d between 1 and 2 and exists first_bet_at",
        ),
        ("bet_count_7d in(1,2 , 3)", "bet_count_7d in (1, 2, 3)"),
        ("first_bet_at < '2026-01-31'", 'first_bet_at < "2026-01-31"'),
        (
            "first_bet_at < '2026-01-31T10:00:00+02:00'",
            'first_bet_at < "2026-01-31T08:00:00Z"',
        ),
    ],
)
def test_text_has_one_canonical_spelling(text: str, canonical: str) -> None:
    assert to_text(parse(text)) == canonical
    assert parse(canonical) == parse(text)


@pytest.mark.parametrize(
    ("text", "position", "says"),
    [
        ("", 0, "ends here"),
        ("   ", 0, "ends here"),
        ("bet_count_7d > 1 and", 20, "ends here"),
        ("bet_count_7d in (1, 2", 21, "ends here; expected \\), a comma"),
        ("bet_count_7d 3", 13, "expected between, contains, from, in, one of = .*, starts with"),
        ("bet_count_7d > 5x", 15, "'5x' does not fit"),
        ("bet_count_7d > 5 6", 17, "expected and, or, the end"),
        ("bet_count_7d > 1 & bet_count_7d < 3", 17, "'&' does not fit"),
        ("bet_count_7d > 1)", 16, "'\\)' does not fit"),
        ("bet_count_7d > 1 and bet_countt_7d > 1", 21, "did you mean .*bet_count_7d"),
        ("Bet_Count_7d > 1", 0, "did you mean bet_count_7d"),
        ("exists qqqqqq", 7, "no feature 'qqqqqq'"),
        ("bet_count_7d > 1.5", 15, "whole number"),
        ("bet_count_7d > '2026-01-31'", 15, "whole number"),
        ("bet_count_7d > 1" + "0" * 18, 15, "18 digits"),
        ("stake_amount_7d between 1 and '2026-01-31'", 30, "is money"),
        ("stake_amount_7d > 1e5", 18, "'1e5' does not fit"),
        ("stake_amount_7d > .5", 18, "'.5' does not fit"),
        ("stake_amount_7d > 0.0000000000001", 18, "is money"),
        ("stake_amount_7d > \u0661", 18, "does not fit"),
        ("first_bet_at > 5", 15, "is a time"),
        ("first_bet_at > 'soon'", 15, "is a time"),
        ("first_bet_at > '2026-02-30'", 15, "is a time"),
        ("first_bet_at > '2026-01-31T10:00:00'", 15, "with its zone"),
        ("first_bet_at > '0001-01-01T00:00:00+14:00'", 15, "is a time"),
        ("first_bet_at > '9999-12-31'", 15, "is a time"),
        ("not " * 60 + "bet_count_7d > 1", 40, "nested over 50 deep"),
    ],
)
def test_an_error_points_at_the_character_and_says_what_to_write(
    text: str, position: int, says: str
) -> None:
    with pytest.raises(InvalidRule, match=says) as refused:
        parse(text)
    assert refused.value.position == position


def test_more_decimals_than_the_currency_has_are_an_error_that_says_so() -> None:
    text = "bet_count_7d > 1 and stake_amount_7d > 1.5"
    assert parse(text, EURO) == parse(text)
    with pytest.raises(InvalidRule, match="JPY, which has 0 decimals") as refused:
        parse(text, YEN)
    assert refused.value.position == text.index("1.5")
    with pytest.raises(InvalidRule, match="JPY, which has 0 decimals"):
        members("stake_amount_7d > 1.5", YEN, stake_amount_7d=[1])
    assert parse("stake_amount_7d > 1.0", YEN) == parse("stake_amount_7d > 1")


def test_an_error_says_where_in_one_sentence() -> None:
    with pytest.raises(InvalidRule) as raised:
        parse("bet_count_lifetime > 1 and bet_cnt > 1")
    assert str(raised.value).startswith("there is no feature 'bet_cnt'; did you mean")
    assert str(raised.value).endswith(" (at character 27)")


def test_length_depth_and_number_of_terms_are_bounded() -> None:
    condition = "bet_count_7d = 1"
    for text in (condition + " " * 10_000, "(" * 9_999, "not " * 2_400 + condition):
        with pytest.raises(InvalidRule):
            parse(text)
    assert parse("(" * 4_000 + condition + ")" * 4_000) == parse(condition)
    assert len(list(conditions_of(parse(" or ".join([condition] * 200))))) == 200
    with pytest.raises(InvalidRule, match="over 200 terms"):
        parse(" or ".join([condition] * 201))
    with pytest.raises(InvalidRule, match="over 200 terms"):
        parse(f"bet_count_7d in ({','.join(['1'] * 201)})")


def _nested(depth: int) -> object:
    tree: object = {"kind": "exists", "feature": "first_bet_at"}
    for _ in range(depth - 1):
        tree = {"kind": "not", "term": tree}
    return tree


@pytest.mark.parametrize("depth", [51, 900, 100_000])
def test_a_tree_too_deep_is_refused(depth: int) -> None:
    assert to_tree(from_tree(_nested(50))) == _nested(50)
    with pytest.raises(InvalidRule, match="nested over 50 deep"):
        from_tree(_nested(depth))


def test_half_a_surrogate_pair_in_a_tree_is_refused() -> None:
    with pytest.raises(InvalidRule, match="surrogate"):
        from_tree({"kind": "\ud800"})


def test_a_tree_goes_through_json_and_back() -> None:
    rule = parse(
        "not (bet_count_7d in (1, 2)) or first_bet_at between '2026-01-01' and '2026-01-02'"
        " and stake_amount_7d = 0.5"
    )
    assert from_tree(json.loads(json.dumps(to_tree(rule)))) == rule


@pytest.mark.parametrize(
    "tree",
    [
        None,
        [],
        {},
        {"kind": "xor", "terms": []},
        {"kind": "and", "terms": []},
        {"kind": "in", "feature": "bet_count_7d", "values": []},
        {"kind": "compare", "feature": "bet_count_7d", "op": "~", "value": 1},
        {"kind": "compare", "feature": "bet_count_7d", "op": "=", "value": "1"},
        {"kind": "compare", "feature": "bet_count_7d", "op": "=", "value": 10**5000},
        {"kind": "compare", "feature": "bet_count_7d", "op": "=", "value": True},
        {"kind": "compare", "feature": "stake_amount_7d", "op": "=", "value": 0.1},
        {"kind": "compare", "feature": "stake_amount_7d", "op": "=", "value": 10**5000},
        {"kind": "compare", "feature": "stake_amount_7d", "op": "=", "value": "NaN"},
        {"kind": "compare", "feature": "stake_amount_7d", "op": "=", "value": "1_000"},
        {"kind": "compare", "feature": "first_bet_at", "op": "=", "value": '"'},
        {"kind": "exists", "feature": "nothing"},
        {"kind": "exists", "feature": "first_bet_at", "more": 1},
        {"kind": "and", "terms": [{"kind": "exists", "feature": "first_bet_at"}] * 201},
    ],
)
def test_a_wrong_tree_is_refused(tree: object) -> None:
    with pytest.raises(InvalidRule):
        from_tree(tree)


def test_a_tree_whose_text_would_be_too_long_is_refused() -> None:
    one = {
        "kind": "between",
        "feature": "cancelled_withdrawal_count_lifetime",
        "low": 1,
        "high": 10**17,
    }
    with pytest.raises(InvalidRule, match="longer than 10000 bytes"):
        from_tree({"kind": "and", "terms": [one] * 200})


def test_a_comparison_with_a_missing_value_is_false_and_its_negation_true() -> None:
    days: list[int | None] = [None, 3, 9]
    assert members("days_since_last_bet > 7", days_since_last_bet=days) == [False, False, True]
    assert members("days_since_last_bet != 3", days_since_last_bet=days) == [False, False, True]
    assert members("not days_since_last_bet > 7", days_since_last_bet=days) == [True, True, False]
    assert members("exists days_since_last_bet", days_since_last_bet=days) == [False, True, True]
    assert members("exists bet_count_7d", bet_count_7d=[0, 1]) == [True, True]


def test_money_is_compared_in_minor_units_exactly() -> None:
    stakes: list[int | None] = [28, 29, 30]
    assert members("stake_amount_7d = 0.29", stake_amount_7d=stakes) == [False, True, False]
    assert members("stake_amount_7d in (0.28, 0.3)", stake_amount_7d=stakes) == [True, False, True]
    assert members("stake_amount_7d < 29", YEN, stake_amount_7d=stakes) == [True, False, False]


def test_a_share_is_compared_in_millionths_exactly() -> None:
    shares: list[int | None] = [333_333, 500_000, None]
    assert members("win_share_30d >= 0.333333", win_share_30d=shares) == [True, True, False]
    assert members("win_share_30d > 0.333333", win_share_30d=shares) == [False, True, False]
    assert to_text(parse("win_share_30d = 0.50")) == "win_share_30d = 0.5"
    with pytest.raises(InvalidRule, match="6 decimals"):
        members("win_share_30d > 0.1234567", win_share_30d=shares)


def test_a_literal_beyond_what_a_column_can_hold_is_still_compared() -> None:
    coin = Brand("coin", "Coin", Currency("XBT", 8), "UTC", date(2020, 1, 1), "XX")
    huge = "999999999999999"
    assert members(f"stake_amount_7d < {huge}", coin, stake_amount_7d=[1]) == [True]
    assert members(f"stake_amount_7d in ({huge}, -{huge})", coin, stake_amount_7d=[1]) == [False]


def test_a_date_stands_for_its_whole_day_where_the_brand_is() -> None:
    # Lisbon's clocks went forward on 2026-03-29: that day began at 00:00Z and had 23 hours
    day = [micros(f"2026-03-{at}+00:00") for at in ("28T23:59:59", "29T00:00:00", "29T22:59:59")]
    seen: list[int | None] = [*day, micros("2026-03-29T23:00:00+00:00")]
    date_ = '"2026-03-29"'
    assert members(f"first_bet_at = {date_}", first_bet_at=seen) == [False, True, True, False]
    assert members(f"first_bet_at != {date_}", first_bet_at=seen) == [True, False, False, True]
    assert members(f"first_bet_at < {date_}", first_bet_at=seen) == [True, False, False, False]
    assert members(f"first_bet_at <= {date_}", first_bet_at=seen) == [True, True, True, False]
    assert members(f"first_bet_at > {date_}", first_bet_at=seen) == [False, False, False, True]
    assert members(f"first_bet_at >= {date_}", first_bet_at=seen) == [False, True, True, True]
    assert members(f"first_bet_at in ({date_})", first_bet_at=seen) == [False, True, True, False]
    assert members(f"first_bet_at between {date_} and {date_}", first_bet_at=seen) == [
        False,
        True,
        True,
        False,
    ]
    assert members('first_bet_at = "2026-03-29T00:00:00Z"', first_bet_at=seen) == [
        False,
        True,
        False,
        False,
    ]


def test_a_mask_never_changes_the_tables_own_columns() -> None:
    values, missing = np.array([1, 2, 3]), np.array([True, False, False])

    class Frozen(NamedColumns):
        def column(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
            return values, missing

    values.setflags(write=False)
    missing.setflags(write=False)
    text = (
        "not exists first_bet_at or not (bet_count_7d in (1, 2)) and bet_count_7d between 1 and 3"
    )
    assert compile_mask(parse(text), EURO, Frozen(), 3).tolist() == [True, False, True]


def test_the_features_of_a_rule_are_those_that_it_reads() -> None:
    rule = parse("not exists first_bet_at or bet_count_7d in (1) and bet_count_7d > 0")
    assert features_of(rule) == {"first_bet_at", "bet_count_7d"}


def test_an_instant_keeps_its_microseconds() -> None:
    at = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
    raw = int((at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000)
    rule = f'first_bet_at = "{at.isoformat()}"'
    assert members(rule, first_bet_at=[raw - 1, raw, raw + 1]) == [False, True, False]
