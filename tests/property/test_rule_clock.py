"""The clock alone changes a rule only where rule_clock.py says so, player by player."""

from __future__ import annotations

from datetime import date, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from crm.domain.brands import Brand
from crm.domain.event_columns import EventColumns
from crm.domain.events import LoggedEvent
from crm.domain.feature_list import features_of
from crm.domain.feature_table import FeatureTable
from crm.domain.rule_clock import has_fixed_dates, reads_24h, thresholds, windows
from crm.domain.rules import Rule
from crm.domain.segments import compile_mask, from_tree
from crm.domain.times import from_us, to_us
from tests.support.histories import ENDS, brands, histories
from tests.support.rule_trees import Tree, conditions, joined, terms


def _answerable(tree: Tree) -> bool:
    return tree["kind"] not in {"segment", "list"} and "dates" not in str(tree)


@st.composite
def _cases(draw: st.DrawFn) -> tuple[Brand, datetime, list[LoggedEvent], Rule]:
    brand, end = draw(brands()), draw(st.sampled_from(ENDS))
    events = draw(histories(brand, end))
    leaves = (conditions(brand) | terms(brand)).filter(_answerable)
    return brand, end, events, from_tree(draw(joined(leaves, 4)), brand)


@settings(max_examples=150)
@given(_cases(), st.lists(st.integers(1, 9 * 86_400), min_size=1, max_size=8))
def test_who_flips_without_an_event_was_to_be_looked_at(
    case: tuple[Brand, datetime, list[LoggedEvent], Rule], steps: list[int]
) -> None:
    brand, end, events, rule = case
    assert not has_fixed_dates(rule)
    events = [event for event in events if event.occurred_at <= end]
    table = FeatureTable(brand.zone, to_us(end), features_of(brand))
    table.apply(EventColumns.of(events, features_of(brand)))
    before = compile_mask(rule, brand, table, len(table)).tolist()
    for step in steps:
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
    hours = any(to_us(e.occurred_at) // 3_600_000_000 >= start // 3_600_000_000 - 23 for e in mine)
    return (
        reads_24h(rule, brand) and hours and start // 3_600_000_000 < table.now_us // 3_600_000_000
    )


def _leaving(first: date, last: date, length: int) -> set[date]:
    """Return the days that leave a window while it moves from one day to another."""
    return {first + timedelta(days=n - length) for n in range(1, (last - first).days + 1)}
