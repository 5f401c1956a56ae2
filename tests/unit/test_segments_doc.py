"""docs/segments.md is true: each of its examples is read, and says and selects what it claims."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from crm.domain.errors import InvalidRule
from crm.domain.event_columns import EventColumns
from crm.domain.feature_list import BUILT_IN
from crm.domain.feature_table import FeatureTable
from crm.domain.rule_meaning import describe
from crm.domain.segments import compile_mask, from_tree, parse, to_text, to_tree
from crm.domain.times import to_us
from tests.support.builders import NOON, a_brand, a_logged_event

PAGE = (Path(__file__).parents[2] / "docs" / "segments.md").read_text()
BRAND = a_brand()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
RULES = [line for kind, block in BLOCKS if kind == "rule" for line in block.splitlines()]
PROSE = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
# parts of rules
PARTS = {
    "in N days", "from DAY to DAY", "in 1 day", "in 14 days", "in 7 days", "in 30 days", "!= 3",
    "<= 3", "> 3", ">= 3", "< 3", 'contains "test"', 'starts with "vip-"',
    "from 2026-11-01 to 2026-11-15", '{"kind": "list", "list": "its id"}',
}  # fmt: skip
SPANS = [one for one in re.findall(r"`([^`]+)`", PROSE) if " " in one and one not in PARTS]


@pytest.mark.parametrize("text", dict.fromkeys([*RULES, *SPANS]))
def test_each_rule_is_one(text: str) -> None:
    rule = parse(text, BRAND)
    assert parse(to_text(rule), BRAND) == rule
    assert from_tree(json.loads(json.dumps(to_tree(rule))), BRAND) == rule
    assert describe(rule, BRAND).startswith("players ")


def test_there_are_examples() -> None:
    assert len(RULES) >= 12
    assert len(SPANS) > 15


def test_the_first_one_reads_as_it_says() -> None:
    assert f"reads: {describe(parse(RULES[0]), BRAND)}." in PAGE


def test_each_mistake_is_answered_as_it_says() -> None:
    (block,) = [block for kind, block in BLOCKS if kind == "error"]
    lines = block.splitlines()
    assert len(lines) == 8
    for text, said in zip(lines[::2], lines[1::2], strict=True):
        with pytest.raises(InvalidRule) as refused:
            parse(text, BRAND)
        assert str(refused.value) == said


def test_the_tree_is_the_text_below_it() -> None:
    (tree,) = [json.loads(block) for kind, block in BLOCKS if kind == "json"]
    assert to_text(from_tree(tree, BRAND)) == RULES[-1]
    kinds = {"and", "or", *re.findall(r'"kind": "(\w+)"', PAGE)}
    published = json.loads((Path(__file__).parents[2] / "docs" / "rule.schema.json").read_text())
    every = {
        kind for one in published["$defs"].values()
        for kind in one.get("properties", {}).get("kind", {}).get("enum", [])
    }  # fmt: skip
    assert kinds == every


def _in(text: str, *acts: tuple[str, str, int]) -> list[bool]:
    """Say of players in the order of their first acts (player, type, days ago) who is in."""
    table = FeatureTable(BRAND.zone, to_us(NOON))
    free: dict[str, Any] = {"amount": None, "currency": None}
    events = [
        a_logged_event(
            event_id=f"{n}", player_id=player, type=kind, occurred_at=NOON - timedelta(days=ago),
            **({} if kind == "bet.placed" else free),
        )
        for n, (player, kind, ago) in enumerate(acts)
    ]  # fmt: skip
    table.apply(EventColumns.of(events, BUILT_IN))
    found: list[bool] = compile_mask(parse(text), BRAND, table, len(table)).tolist()
    return found


def test_the_two_readings_select_whom_the_table_says() -> None:
    rows = re.findall(r"^\| `(did not [^`]+)` \| (in|out) \| (in|out) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 2
    for text, new, known in rows:
        found = _in(
            text,
            ("new", "player.registered", 10),
            ("known", "player.registered", 40),
            ("known", "bet.placed", 35),
        )
        assert found == [new == "in", known == "in"]


def test_what_is_missing_is_as_the_table_says() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (true|false)\b", PAGE, re.MULTILINE)
    assert len(rows) == 4
    for text, verdict in rows:
        assert _in(text, ("never", "player.registered", 10)) == [verdict == "true"]
