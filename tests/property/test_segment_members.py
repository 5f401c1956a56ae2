"""Pages of members and explanations, held against the mask of the whole table."""

from __future__ import annotations

import asyncio
import contextlib
from decimal import Decimal

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from crm.domain.errors import InvalidJson, InvalidList, PlayerNotFound
from crm.domain.event_columns import EventColumns
from crm.domain.events import LoggedEvent
from crm.domain.feature_list import features_of
from crm.domain.feature_table import FeatureTable
from crm.domain.player_lists import cell, from_csv, from_json, uncell
from crm.domain.rules import to_tree
from crm.domain.saved_segments import Why
from crm.domain.segments import compile_mask, from_tree, parse, to_text
from crm.domain.shards import shard_of
from crm.domain.times import to_us
from crm.services import segment_members
from crm.services.segment_members import MemberPages, known
from crm.services.segment_why import explained, why
from tests.property import test_segments
from tests.property.test_rule_terms import History, tables
from tests.property.test_segments import BRAND
from tests.support.builders import NOON, a_brand, a_logged_event
from tests.support.columns import ListColumns
from tests.support.rule_trees import Tree, conditions, joined, terms

DEMO = a_brand()
FEATURES = features_of(DEMO)
PLAYERS = st.sampled_from([f"p{n}" for n in range(30)] + ["P", "ü", "\U0001f600", "\uffee", "=1"])
RULES = st.sampled_from(
    [
        "exists first_bet_at",
        "stake_amount_7d >= 20",
        "not bet_count_30d > 1",
        "bet_count_lifetime in (1, 3) or stake_amount_lifetime between 5 and 25",
        "bet_count_7d > 99",
    ]
)
BETS = st.lists(st.tuples(PLAYERS, st.integers(1, 30)), max_size=30)


def a_table() -> FeatureTable:
    return FeatureTable(DEMO.zone, to_us(NOON), FEATURES)


def take(table: FeatureTable, bets: list[tuple[str, int]], number: int) -> None:
    events: list[LoggedEvent] = [
        a_logged_event(event_id=f"{number}-{n}", player_id=player, amount=Decimal(amount))
        for n, (player, amount) in enumerate(bets)
    ]
    if events:
        table.apply(EventColumns.of(events, FEATURES))


def matching(table: FeatureTable, rule: str) -> list[str]:
    mask = compile_mask(parse(rule, DEMO), DEMO, table, len(table))
    return sorted(np.array(table.player_ids, dtype=object)[mask].tolist())


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_members, "_FIRST_BLOCK", 2)
    monkeypatch.setattr(segment_members, "_LARGEST_BLOCK", 4)
    monkeypatch.setattr(segment_members, "_TAIL", 3)


@given(
    steps=st.lists(st.tuples(BETS, st.none() | PLAYERS), min_size=1, max_size=5),
    rule=RULES,
    limit=st.integers(1, 9),
)
def test_pages_are_all_who_match_in_order_whoever_comes_or_goes(
    steps: list[tuple[list[tuple[str, int]], str | None]], rule: str, limit: int
) -> None:
    table, pages = a_table(), MemberPages()

    def check() -> None:
        expected, found = matching(table, rule), [""]
        while page := pages.page(table, DEMO, rule, found[-1], limit):
            assert len(page) <= limit
            found += page
            assert len(found) <= len(expected) + 1
        assert found[1:] == expected
        for after in ("p1", "p15", "\u0100"):
            later = pages.page(table, DEMO, rule, after, 99)
            assert later == [one for one in expected if one > after]

    for number, (bets, dropped) in enumerate(steps):
        take(table, bets, number)
        check()
        if dropped is not None:
            table.drop([shard_of(DEMO.id, dropped)])
            check()


@pytest.mark.parametrize("steps", range(20))
@pytest.mark.parametrize("meanwhile", ["nothing", "somebody goes", "somebody comes", "a page too"])
async def test_a_table_that_is_sorted_in_slices_may_change_at_any_step(
    meanwhile: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment_members, "_SLICE", 4)
    monkeypatch.setattr(segment_members, "_TAIL", 99)
    table, pages, rule = a_table(), MemberPages(), "exists first_bet_at"
    take(table, [(f"p{n}", 1) for n in range(29, -1, -1)], 0)
    sorting = asyncio.create_task(pages.prepare(table))
    for _ in range(steps):
        await asyncio.sleep(0)
    if meanwhile == "somebody goes":
        table.drop([shard_of(DEMO.id, "p7"), shard_of(DEMO.id, "p29")])
    elif meanwhile != "nothing":
        take(table, [("p05", 1), ("zz", 1), ("a", 1)], 1)
        if meanwhile == "a page too":
            assert pages.page(table, DEMO, rule, "p28", 2) == ["p29", "p3"]
    await sorting
    for after in ("", "p2"):
        expected = [player for player in matching(table, rule) if player > after]
        assert pages.page(table, DEMO, rule, after, 99) == expected


@given(BETS, st.lists(PLAYERS, unique=True))
def test_who_is_known_is_who_has_a_row(bets: list[tuple[str, int]], asked: list[str]) -> None:
    table = a_table()
    take(table, bets, 0)
    assert known(table, asked) == len(set(asked) & {player for player, _ in bets})


@settings(max_examples=200)
@given(joined(test_segments.conditions() | test_segments.texts()), test_segments.players())
def test_an_explanation_has_the_truth_of_the_mask_at_every_node(
    tree: Tree, people: list[test_segments.Player]
) -> None:
    player, rule = people[0], from_tree(tree, BRAND)
    row = ListColumns(
        {name: [player[name]] for name in test_segments.NAMES},
        {"player_id": [player["player_id"]]},
        {"vip": [player["vip"]]},
    )
    told = why(rule, BRAND, row)
    assert told.holds == compile_mask(rule, BRAND, row, 1)[0]
    _hangs_together(told, to_tree(rule), player)


def _hangs_together(told: Why, tree: Tree, player: test_segments.Player) -> None:
    """Each node says what its terms say together; each leaf is one of the rule's."""
    if told.terms is UNSET:
        assert to_text(from_tree(tree, BRAND)) == told.text
        if told.kind == "condition":
            name = tree.get("feature") or tree["column"]
            assert told.feature == name
            assert (told.value is None) == (player[name] is None)
            assert told.raw in (player[name], UNSET)
        return
    assert told.kind == tree["kind"]
    truths = [term.holds for term in told.terms]
    together = {"and": all(truths), "or": any(truths), "not": not truths[0]}[told.kind]
    assert told.holds is together
    branches = tree.get("terms") or [tree["term"]]
    for term, branch in zip(told.terms, branches, strict=True):
        _hangs_together(term, branch, player)


def _answerable(leaf: Tree) -> Tree:
    """Return a leaf that every table can answer: of a list that is there, of days that are kept."""
    if leaf["kind"] in {"segment", "list"}:
        return {"kind": "list", "list": "vip"}
    if leaf.get("over", {}).get("kind") == "dates":
        return {**leaf, "over": {"kind": "last_days", "days": 40}}
    return leaf


@settings(max_examples=100)
@given(tables(), st.data())
def test_whatever_the_rule_pages_and_explanations_say_what_the_mask_of_all_says(
    case: History, data: st.DataObject
) -> None:
    brand, _, _, table = case
    leaves = (conditions(brand) | terms(brand)).map(_answerable)
    rule = from_tree(data.draw(joined(leaves)), brand)
    players = list(table.player_ids)
    table.lists = {"vip": players[::2]}
    mask = compile_mask(rule, brand, table, len(table))
    members = {player for player, holds in zip(players, mask, strict=True) if holds}
    assert MemberPages().page(table, brand, to_text(rule), "", 999) == sorted(members)
    for player in players:
        found = explained(table, brand, to_text(rule), player, 7, 1)
        assert found.why.holds == (player in members)
        assert msgspec.json.encode(found)
    with pytest.raises(PlayerNotFound):
        explained(table, brand, to_text(rule), "nobody", 7, 1)


@given(st.text())
def test_a_cell_comes_back_as_it_was_and_is_no_formula(text: str) -> None:
    assert uncell(cell(text)) == text
    assert not cell(text).startswith(("=", "+", "-", "@", "\t", "\r"))


@given(st.binary(max_size=200) | st.text(alphabet="p1,;\"\n\r\0\t'=", max_size=60).map(str.encode))
def test_no_file_raises_anything_but_that_the_list_is_bad(body: bytes) -> None:
    for reader in (from_csv, from_json):
        with contextlib.suppress(InvalidList, InvalidJson):
            found = reader(body)
            assert found.read == len(found.players) + found.duplicates + found.rejected


def test_a_row_that_cannot_be_read_spoils_no_other() -> None:
    found = from_csv(b'p1\na\0b\np2\n"' + b"x" * 140_000 + b'"\np3\n')
    assert found.players == ["p1", "p2", "p3"]
    assert [error.line for error in found.errors] == [2, 4]
    with pytest.raises(InvalidList, match="line 2"):
        from_csv(b"p1\n\xffp2")
