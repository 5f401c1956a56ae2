"""The schema of a rule's tree: the published one is fresh, and says what a tree may be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from jsonschema import Draft202012Validator

from crm.domain.rule_schema import tree_schema
from crm.domain.segments import from_tree, to_tree
from tests.support.builders import a_brand
from tests.support.own_measures import OWN
from tests.support.rule_trees import Tree, trees

PUBLISHED = Path(__file__).parents[2] / "docs" / "rule.schema.json"
BRAND = a_brand(measures=OWN)
DAYS = {"kind": "last_days", "days": 14}
COMPARE = {"kind": "compare", "feature": "bet_count", "op": ">", "value": 3, "over": DAYS}
DID_NOT = {"kind": "did_not", "event": "bet", "over": DAYS, "newcomers": "included"}
OF_ANY = Draft202012Validator(tree_schema())
OF_BRAND = Draft202012Validator(tree_schema(BRAND))


def test_the_published_schema_is_fresh() -> None:
    fresh = json.dumps(tree_schema(), indent=1) + "\n"
    assert PUBLISHED.read_text() == fresh, (
        f"write json.dumps(tree_schema(), indent=1) to {PUBLISHED}"
    )


def test_both_are_schemas() -> None:
    for validator in (OF_ANY, OF_BRAND):
        validator.check_schema(validator.schema)


@given(trees(BRAND))
def test_every_valid_tree_validates(tree: Tree) -> None:
    for one in (tree, json.loads(json.dumps(to_tree(from_tree(tree, BRAND))))):
        OF_ANY.validate(one)
        OF_BRAND.validate(one)


def test_a_window_may_be_null() -> None:
    tree = {"kind": "exists", "feature": "bet_count_7d", "over": None}
    from_tree(tree, BRAND)
    OF_BRAND.validate(tree)


@pytest.mark.parametrize(
    "tree",
    [
        None,
        "bet_count_7d > 3",
        {},
        {"kind": "xor", "terms": [COMPARE]},
        {"kind": "and", "terms": []},
        {"kind": "and"},
        {"kind": "not", "term": "x"},
        {"kind": "or", "terms": [COMPARE, {**COMPARE, "op": "~"}]},
        {**COMPARE, "value": True},
        {**COMPARE, "value": 1.5},
        {**COMPARE, "value": None},
        {**COMPARE, "more": 1},
        {**COMPARE, "over": {"kind": "last_days", "days": 0}},
        {**COMPARE, "over": {"kind": "last_days", "days": 91}},
        {**COMPARE, "over": {"kind": "last_days", "days": "14"}},
        {**COMPARE, "over": {"kind": "dates", "first": "2026-11-01"}},
        {**COMPARE, "over": {"kind": "dates", "first": "2026-11-01", "last": "15.11.2026"}},
        {**COMPARE, "over": 14},
        {"kind": "in", "feature": "bet_count_7d", "values": []},
        {"kind": "between", "feature": "bet_count_7d", "low": 1},
        {"kind": "exists"},
        {"kind": "did", "event": "bet"},
        {"kind": "did_not", "event": "bet", "over": DAYS},
        {**DID_NOT, "newcomers": "some"},
        {"kind": "text", "column": "player_id", "op": ">", "value": "a"},
        {"kind": "text", "column": "player_id", "op": "=", "value": ""},
        {"kind": "text", "column": "email", "op": "=", "value": "a"},
        {"kind": "text_in", "column": "player_id", "values": []},
        {"kind": "segment", "segment": ""},
        {"kind": "segment", "name": "VIP"},
    ],
)
def test_a_wrong_tree_does_not(tree: Any) -> None:
    assert not OF_ANY.is_valid(tree)
    assert not OF_BRAND.is_valid(tree)


@pytest.mark.parametrize(
    "tree",
    [
        {**COMPARE, "feature": "bet_count_30d"},
        {**COMPARE, "feature": "bets"},
        {"kind": "exists", "feature": "bet_count"},
        {"kind": "exists", "feature": "tagged_sum_30d"},
        {**DID_NOT, "event": "bets"},
    ],
)
def test_a_brands_schema_knows_its_names(tree: Any) -> None:
    assert OF_ANY.is_valid(tree)
    assert not OF_BRAND.is_valid(tree)
