"""The clock alone changes a rule only where rule_clock.py says so, player by player."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm.domain.brands import Brand
from crm.domain.event_columns import EventColumns
from crm.domain.events import LoggedEvent
from crm.domain.feature_list import features_of
from crm.domain.feature_table import FeatureTable
from crm.domain.rule_clock import has_fixed_dates, thresholds, windows
from crm.domain.rules import Rule
from crm.domain.segments import compile_mask, from_tree
from crm.domain.times import from_us, to_us
from tests.support.histories import ENDS, brands, histories
from tests.support.rule_trees import Tree, conditions, joined, of, terms


def _answerable(tree: Tree) -> bool:
    return tree["kind"] not in {"segment", "list"} and "dates" not in str(tree)


def _days() -> st.SearchStrategy[Tree]:
    return st.builds(lambda n: {"kind": "last_days", "days": n}, st.integers(1, 60))


def _leaves(kind: str, brand: Brand) -> st.SearchStrategy[Tree]:
    """Leaves that the clock changes in one way; whatever may be, for "any"."""
    few = st.integers(1, 3)
    match kind:
        case "since":
            name = st.sampled_from(["days_since_last_activity", "days_since_last_bet"])
            return name.flatmap(lambda name: of(st.integers(0, 40), {"feature": name}))
        case "newcomers":
            did_not = {"kind": "did_not", "event": "message_complained", "newcomers": "excluded"}
            return _days().map(lambda over: {**did_not, "over": over})
        case "trend":
            amount = st.sampled_from(["0.5", "1", "2"])
            return of(amount, {"feature": "bet_count_trend_7d"})
        case "days":
            return _days().flatmap(lambda over: of(few, {"feature": "event_count", "over": over}))
        case "named":
            window = st.sampled_from(["24h", "24h", "7d", "30d", "90d"])
            return window.flatmap(lambda name: of(few, {"feature": f"event_count_{name}"}))
        case _:
            return joined((conditions(brand) | terms(brand)).filter(_answerable), 4)


@pytest.mark.parametrize("kind", ["since", "newcomers", "trend", "days", "named", "any"])
@given(st.data())
def test_who_flips_without_an_event_was_to_be_looked_at(kind: str, data: st.DataObject) -> None:
    brand, end = data.draw(brands()), data.draw(st.sampled_from(ENDS))
    rule = from_tree(data.draw(_leaves(kind, brand)), brand)
    assert not has_fixed_dates(rule)
    events = [event for event in data.draw(histories(brand, end)) if event.occurred_at <= end]
    table = FeatureTable(brand.zone, to_us(end), features_of(brand))
    table.apply(EventColumns.of(events, features_of(brand)))
    before = compile_mask(rule, brand, table, len(table)).tolist()
    for step in data.draw(st.lists(st.integers(1, 9 * 86_400), min_size=1, max_size=8)):
        start = table.now_us
        table.advance(start + step * 1_000_000)
        now = compile_mask(rule, brand, table, len(table)).tolist()
        for row, player in enumerate(table.player_ids):
            if now[row] != before[row]:
                mine = [event for event in events if event.player_id == player]
                assert _may_flip(rule, brand, table, row, mine, start)
        before = now


def _may_flip(
    rule: Rule, brand: Brand, table: FeatureTable, row: int, mine: list[LoggedEvent], start: int
) -> bool:
    values = table.values(row)
    for name, days in thresholds(rule, brand):
        at = values[name]
        if at is not None and start < at + days * 86_400_000_000 <= table.now_us:
            return True
    first, last = (brand.local_day(from_us(at)) for at in (start, table.now_us))
    days_with_acts = {event.local_day for event in mine}
    for length in windows(rule, brand):
        if _leaving(first, last, length) & days_with_acts:
            return True
    # an hour that leaves the last 24
    hours = any(to_us(e.occurred_at) // 3_600_000_000 >= start // 3_600_000_000 - 23 for e in mine)
    return "_24h" in str(rule) and hours and start // 3_600_000_000 < table.now_us // 3_600_000_000


def _leaving(first: date, last: date, length: int) -> set[date]:
    """Return the days that leave a window while it moves from one day to another."""
    return {first + timedelta(days=n - length) for n in range(1, (last - first).days + 1)}
