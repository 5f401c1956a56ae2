"""Laws of segment rules: both forms are equal, masks are right, and only InvalidRule escapes."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crm.domain.brands import Brand, Currency
from crm.domain.errors import InvalidRule
from crm.domain.features import FEATURES
from crm.domain.rule_matrix import RuleMatrix
from crm.domain.rule_text import MAX_BYTES
from crm.domain.segments import compile_mask, from_tree, parse, to_text, to_tree
from tests.support.columns import ListColumns
from tests.support.hostile_rules import hostile_texts
from tests.support.own_measures import OWN
from tests.support.rule_trees import OPERATORS, TEXT_OPERATORS, Tree, joined, of, trees

BRAND = Brand(
    "demo", "Demo", Currency("EUR", 2), "America/Sao_Paulo", date(2015, 1, 1), "BR", (), OWN
)
NAMES = ("bet_count_7d", "days_since_last_bet", "ggr_amount_30d", "first_bet_at")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# around Sao Paulo's change of clocks of 2018-11-04, when the day began at 01:00
BASE = datetime(2018, 11, 3, tzinfo=UTC)


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
    return st.sampled_from(NAMES).flatmap(lambda name: of(literals(name), {"feature": name}))


IDS = ["p1", "p12", "P1", "é", "x p1"]


def texts() -> st.SearchStrategy[Tree]:
    value = st.sampled_from([*IDS, "p", "1", " "])
    return st.one_of(
        st.builds(
            lambda op, text: {"kind": "text", "column": "player_id", "op": op, "value": text},
            st.sampled_from(TEXT_OPERATORS),
            value,
        ),
        st.builds(
            lambda some: {"kind": "text_in", "column": "player_id", "values": some},
            st.lists(value, min_size=1, max_size=3),
        ),
        st.just({"kind": "list", "list": "vip"}),
    )


@given(trees(BRAND))
def test_text_and_tree_are_two_spellings_of_one_rule(tree: Tree) -> None:
    rule = from_tree(tree, BRAND)
    text = to_text(rule)
    assert parse(text, BRAND) == rule
    assert to_text(parse(text, BRAND)) == text
    assert from_tree(json.loads(json.dumps(to_tree(rule))), BRAND) == rule


Player = dict[str, Any]


def players() -> st.SearchStrategy[list[Player]]:
    hours = st.integers(-2, 74)
    at = hours.map(lambda h: (BASE + timedelta(hours=h) - EPOCH) // timedelta(microseconds=1))
    raw = {
        "bet_count_7d": st.integers(0, 12),
        "days_since_last_bet": st.none() | st.integers(0, 12),
        "ggr_amount_30d": st.integers(-310, 310),
        "first_bet_at": st.none() | at,
        "player_id": st.sampled_from(IDS),
        "vip": st.booleans(),
    }
    return st.lists(st.fixed_dictionaries(raw), min_size=1, max_size=20)


def _table(people: list[Player]) -> ListColumns:
    return ListColumns(
        {name: [person[name] for person in people] for name in NAMES},
        {"player_id": [person["player_id"] for person in people]},
        {"vip": [person["vip"] for person in people]},
    )


@settings(max_examples=300)
@given(joined(conditions() | texts()), players())
def test_a_mask_says_of_each_player_what_the_rule_says(tree: Tree, people: list[Player]) -> None:
    table = _table(people)
    mask = compile_mask(from_tree(tree), BRAND, table, len(people))
    assert mask.tolist() == [_holds(tree, person) for person in people]


@given(st.lists(joined(conditions() | texts()), max_size=6), players())
def test_many_rules_at_once_say_what_each_says(trees_: list[Tree], people: list[Player]) -> None:
    table = _table(people)
    rules = [from_tree(tree) for tree in trees_]
    masks = RuleMatrix(rules, BRAND).masks(table, len(people))
    assert masks.shape == (len(rules), len(people))
    for rule, mask in zip(rules, masks, strict=True):
        assert mask.tolist() == compile_mask(rule, BRAND, table, len(people)).tolist()


def _holds(tree: Tree, player: Player) -> bool:  # noqa: PLR0911  # one return a kind
    """Evaluate a tree for one player, sharing nothing with the code."""
    match tree["kind"]:
        case "and":
            return all(_holds(term, player) for term in tree["terms"])
        case "or":
            return any(_holds(term, player) for term in tree["terms"])
        case "not":
            return not _holds(tree["term"], player)
        case "list" | "text_in" | "text":
            return _term_holds(tree, player)
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


def _term_holds(tree: Tree, player: Player) -> bool:
    text = player["player_id"]
    if tree["kind"] == "list":
        return bool(player[tree["list"]])
    if tree["kind"] == "text_in":
        return text in tree["values"]
    value = tree["value"]
    verdicts: dict[str, bool] = {
        "=": text == value,
        "!=": text != value,
        "contains": text.find(value) >= 0,
        "starts_with": text[: len(value)] == value,
    }
    return verdicts[tree["op"]]


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
    "\x00", "\ud800", "\u0661", "x", "did", "did not", "bet", "bet.placed", "segment", "list",
    "days", "from", "to", "2026-11-01", "in 14 days", "from 2026-11-01 to 2026-11-15",
    "newcomers included", "newcomers", "excluded", "contains", "starts with", "player_id",
    "bet_count", '"a"', "'b''c'", "0",
]  # fmt: skip


@settings(max_examples=500)
@given(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join) | st.text())
def test_no_text_makes_the_parser_raise_anything_but_invalid_rule(text: str) -> None:
    with contextlib.suppress(InvalidRule):
        rule = parse(text, BRAND)
        assert parse(to_text(rule)) == rule


@pytest.mark.parametrize(("what", "text"), hostile_texts().items())
def test_no_text_made_to_break_something_passes_a_bound(what: str, text: str) -> None:
    assert len(text.encode()) <= MAX_BYTES, what
    with contextlib.suppress(InvalidRule):
        rule = parse(text, BRAND)
        assert parse(to_text(rule), BRAND) == rule
        assert from_tree(to_tree(rule), BRAND) == rule


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(WORDS)
)
KEYS = st.sampled_from(
    ["kind", "terms", "term", "feature", "op", "value", "values", "low", "high", "over", "days",
     "first", "last", "event", "newcomers", "column", "segment", "list"]
)  # fmt: skip
KINDS = st.sampled_from(
    ["and", "or", "not", "compare", "between", "in", "exists", "last_days", "dates", "did",
     "did_not", "text", "text_in", "segment", "list", *NAMES, *OPERATORS]
)  # fmt: skip


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


@settings(max_examples=300)
@given(trees(BRAND), st.data())
def test_no_tree_that_was_nearly_right_raises_anything_but_invalid_rule(
    tree: Tree, data: st.DataObject
) -> None:
    places: list[tuple[Any, Any]] = []
    _walk(tree, places)
    inside, key = data.draw(st.sampled_from(places))
    inside[key] = data.draw(SCALARS | KINDS)
    with contextlib.suppress(InvalidRule):
        rule = from_tree(tree, BRAND)
        assert parse(to_text(rule), BRAND) == rule


def _walk(node: Any, places: list[tuple[Any, Any]]) -> None:
    for key in node if isinstance(node, dict) else range(len(node)):
        places.append((node, key))
        if isinstance(node[key], dict | list):
            _walk(node[key], places)


@settings(max_examples=300)
@given(trees(BRAND), st.data())
def test_a_text_that_was_nearly_right_is_read_or_refused(tree: Tree, data: st.DataObject) -> None:
    text = to_text(from_tree(tree, BRAND))
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 5))
    text = text[:at] + data.draw(st.sampled_from([*WORDS, ""])) + text[at + cut :]
    with contextlib.suppress(InvalidRule):
        rule = parse(text, BRAND)
        assert parse(to_text(rule), BRAND) == rule
