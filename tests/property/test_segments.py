"""Laws of segment rules: both forms are equal, masks are right, and only InvalidRule escapes."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from crm.domain.brands import Brand, Currency
from crm.domain.errors import InvalidRule
from crm.domain.features import FEATURES
from crm.domain.segments import compile_mask, from_tree, parse, to_text, to_tree

BRAND = Brand("demo", "Demo", Currency("EUR", 2), "America/Sao_Paulo", date(2015, 1, 1), "BR")
NAMES = ("bet_count_7d", "days_since_last_bet", "ggr_amount_30d", "first_bet_at")
OPERATORS = ("=", "!=", "<", "<=", ">", ">=")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# around Sao Paulo's change of clocks of 2018-11-04, when the day began at 01:00
BASE = datetime(2018, 11, 3, tzinfo=UTC)
Tree = dict[str, Any]


def literals(name: str) -> st.SearchStrategy[int | str]:
    match FEATURES[name].unit:
        case "money":
            return st.integers(-300, 300).map(lambda n: str(Decimal(n).scaleb(-2)))
        case "time":
            instants = st.integers(0, 72).map(lambda h: (BASE + timedelta(hours=h)).isoformat())
            return instants | st.sampled_from(["2018-11-03", "2018-11-04", "2018-11-05"])
        case _:
            return st.integers(-1, 12)


def conditions() -> st.SearchStrategy[Tree]:
    return st.sampled_from(NAMES).flatmap(_conditions_on)


def _conditions_on(name: str) -> st.SearchStrategy[Tree]:
    value = literals(name)
    return st.one_of(
        st.builds(_node("compare", name), op=st.sampled_from(OPERATORS), value=value),
        st.builds(_node("between", name), low=value, high=value),
        st.builds(_node("in", name), values=st.lists(value, min_size=1, max_size=5)),
        st.just({"kind": "exists", "feature": name}),
    )


def _node(kind: str, feature: str) -> Any:
    return lambda **rest: {"kind": kind, "feature": feature, **rest}


def trees() -> st.SearchStrategy[Tree]:
    return st.recursive(
        conditions(),
        lambda term: st.one_of(
            st.builds(lambda t: {"kind": "not", "term": t}, term),
            st.builds(
                lambda kind, terms: {"kind": kind, "terms": terms},
                st.sampled_from(["and", "or"]),
                st.lists(term, min_size=1, max_size=3),
            ),
        ),
        max_leaves=12,
    )


@given(trees())
def test_text_and_tree_are_two_spellings_of_one_rule(tree: Tree) -> None:
    rule = from_tree(tree)
    text = to_text(rule)
    assert parse(text) == rule
    assert to_text(parse(text)) == text
    assert from_tree(json.loads(json.dumps(to_tree(rule)))) == rule


Player = dict[str, int | None]


def players() -> st.SearchStrategy[list[Player]]:
    hours = st.integers(-2, 74)
    at = hours.map(lambda h: (BASE + timedelta(hours=h) - EPOCH) // timedelta(microseconds=1))
    raw = {
        "bet_count_7d": st.integers(0, 12),
        "days_since_last_bet": st.none() | st.integers(0, 12),
        "ggr_amount_30d": st.integers(-310, 310),
        "first_bet_at": st.none() | at,
    }
    return st.lists(st.fixed_dictionaries(raw), min_size=1, max_size=20)


@settings(max_examples=300)
@given(trees(), players())
def test_a_mask_says_of_each_player_what_the_rule_says(tree: Tree, people: list[Player]) -> None:
    class Table:
        def column(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
            cells = [person[name] for person in people]
            missing = np.array([cell is None for cell in cells])
            values = np.array([-7 if cell is None else cell for cell in cells], np.int64)
            return values, missing if missing.any() else None

    mask = compile_mask(from_tree(tree), BRAND, Table(), len(people))
    assert mask.tolist() == [_holds(tree, person) for person in people]


def _holds(tree: Tree, player: Player) -> bool:  # noqa: PLR0911  # one return a kind
    """Evaluate a tree for one player, sharing nothing with the code."""
    match tree["kind"]:
        case "and":
            return all(_holds(term, player) for term in tree["terms"])
        case "or":
            return any(_holds(term, player) for term in tree["terms"])
        case "not":
            return not _holds(tree["term"], player)
    value = player[tree["feature"]]
    if value is None or tree["kind"] == "exists":
        return value is not None

    def compare(op: str, text: int | str) -> bool:
        return _compare(tree["feature"], value, op, text)

    match tree["kind"]:
        case "compare":
            return compare(tree["op"], tree["value"])
        case "between":
            return compare(">=", tree["low"]) and compare("<=", tree["high"])
        case _:
            return any(compare("=", text) for text in tree["values"])


def _compare(feature: str, raw: int, op: str, text: int | str) -> bool:
    left: Any
    right: Any
    left, right = raw, text
    if FEATURES[feature].unit == "money":
        left, right = Decimal(raw) / 100, Decimal(text)
    elif isinstance(text, str):
        at = EPOCH + timedelta(microseconds=raw)
        whole_day = len(text) == len("2018-11-03")
        left = at.astimezone(BRAND.zone).date() if whole_day else at
        right = date.fromisoformat(text) if whole_day else datetime.fromisoformat(text)
    verdicts: dict[str, bool] = {
        "=": left == right,
        "!=": left != right,
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
    }
    return verdicts[op]


WORDS = [
    *NAMES, *OPERATORS, "and", "or", "not", "in", "between", "exists", "(", ")", ",", " ", "\n",
    "1", "-1", "1.5", "1e9", "9" * 5000, '"2026-01-31"', "'2026-01-31T00:00:00Z'", '"', "'",
    "\x00", "\ud800", "\u0661", "x",
]  # fmt: skip


@settings(max_examples=500)
@given(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join) | st.text())
def test_no_text_makes_the_parser_raise_anything_but_invalid_rule(text: str) -> None:
    with contextlib.suppress(InvalidRule):
        rule = parse(text, BRAND)
        assert parse(to_text(rule)) == rule


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(WORDS)
)
KEYS = st.sampled_from(["kind", "terms", "term", "feature", "op", "value", "values", "low", "high"])
KINDS = st.sampled_from(
    ["and", "or", "not", "compare", "between", "in", "exists", *NAMES, *OPERATORS]
)


@given(
    st.recursive(
        SCALARS | KINDS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
        max_leaves=20,
    )
)
def test_no_tree_raises_anything_but_invalid_rule(tree: object) -> None:
    with contextlib.suppress(InvalidRule):
        rule = from_tree(tree)
        assert from_tree(to_tree(rule)) == rule
