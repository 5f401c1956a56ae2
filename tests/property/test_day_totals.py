"""Sums by day over all players: what the definition says, at any moment and after any changes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm.domain.brands import Brand
from crm.domain.day_totals import Days, DayTotals, TableDays, joined
from crm.domain.errors import InvalidRange
from crm.domain.event_columns import EventColumns
from crm.domain.events import LoggedEvent
from crm.domain.feature_list import features_of
from crm.domain.feature_table import FeatureTable
from crm.domain.times import from_us, to_us
from tests.support.builders import NOON, a_brand, a_logged_event
from tests.support.histories import ENDS, brands, histories
from tests.support.overview import COUNTS, SUMS, Numbers, by_definition


@st.composite
def _cases(draw: st.DrawFn) -> tuple[Brand, datetime, list[LoggedEvent]]:
    brand, end = draw(brands()), draw(st.sampled_from(ENDS))
    return brand, end, draw(histories(brand, end, max_size=60))


def _table(brand: Brand, at: datetime) -> FeatureTable:
    return FeatureTable(brand.zone, to_us(at), features_of(brand))


def _apply(table: FeatureTable, events: Sequence[LoggedEvent], brand: Brand) -> None:
    table.apply(EventColumns.of(events, features_of(brand)))


def _some_days(draw: st.DataObject, table: FeatureTable) -> tuple[Days, list[Days]]:
    """A range that the table holds, and parts of it: each day, one longer span, all."""
    held = table.days_held
    first = draw.draw(st.sampled_from([held.start, held.stop - 31, held.stop - 8, held.stop - 1]))
    asked = Days(first, draw.draw(st.integers(first, held.stop - 1)))
    middle = draw.draw(st.sampled_from(asked.days))
    return asked, [*[Days(day, day) for day in asked.days], Days(middle, asked.last), asked]


def _numbers(totals: DayTotals, asked: Days, span: Days, active: int) -> Numbers:
    days = slice(span.first - asked.first, span.end - asked.first)
    return {
        **{name: sum(totals.sums[name][days]) for name in (*SUMS, *COUNTS)},
        "active_players": active,
        "new_players": sum(totals.new[days]),
        "churned_players": sum(totals.churned[days]),
    }


def _hold(
    totals: DayTotals, events: Sequence[LoggedEvent], at: datetime, asked: Days, spans: list[Days]
) -> None:
    """Hold totals against the definition, span by span."""
    for span, active in zip(spans, totals.active, strict=True):
        first, last = date.fromordinal(span.first), date.fromordinal(span.last)
        expected = by_definition(events, at, first, last)
        assert _numbers(totals, asked, span, active) == expected, (first, last)


@given(_cases(), st.data())
def test_late_events_moving_clocks_and_moving_shards_leave_it_as_defined(
    case: tuple[Brand, datetime, list[LoggedEvent]], data: st.DataObject
) -> None:
    brand, end, events = case
    left = list(data.draw(st.permutations(events)))
    table, days = _table(brand, end - timedelta(days=data.draw(st.integers(0, 40)))), TableDays()
    applied: list[LoggedEvent] = []
    while True:
        at = from_us(table.now_us)
        asked, spans = _some_days(data, table)
        _hold(days.totals(table, brand.zone, asked, spans), applied, at, asked, spans)
        if not left:
            break
        table.advance(
            min(table.now_us + data.draw(st.integers(0, 20 * 86_400)) * 10**6, to_us(end))
        )
        size = data.draw(st.integers(1, len(left)))
        _apply(table, left[:size], brand)
        applied += left[:size]
        left = left[size:]
        shard = data.draw(st.sampled_from(applied)).shard
        part = table.export(shard)
        table.drop([shard])
        if data.draw(st.booleans()):  # it is away while somebody asks
            at = from_us(table.now_us)
            others = [event for event in applied if event.shard != shard]
            asked, spans = _some_days(data, table)
            _hold(days.totals(table, brand.zone, asked, spans), others, at, asked, spans)
        table.load(shard, part)
    table.advance(to_us(end + timedelta(minutes=10)))  # what came ahead of the clock is in
    asked, spans = _some_days(data, table)
    totals = days.totals(table, brand.zone, asked, spans)
    _hold(totals, applied, end + timedelta(minutes=10), asked, spans)


@given(_cases(), st.data())
def test_the_totals_of_several_tables_add_up(
    case: tuple[Brand, datetime, list[LoggedEvent]], data: st.DataObject
) -> None:
    brand, end, events = case
    tables = [_table(brand, end) for _ in range(3)]
    for number, table in enumerate(tables):
        _apply(table, [event for event in events if event.shard % 3 == number], brand)
    asked, spans = _some_days(data, tables[0])
    parts = [TableDays().totals(table, brand.zone, asked, spans) for table in tables]
    _hold(joined(parts), events, end, asked, spans)


def test_a_day_is_read_again_only_after_a_change() -> None:
    brand = a_brand()
    table, days = _table(brand, NOON), TableDays()
    today = table.days_held[-1]
    _apply(table, [a_logged_event()], brand)
    assert days.read(table, today)
    assert not days.read(table, today)
    _apply(table, [a_logged_event(event_id="e2", occurred_at=NOON - timedelta(days=1))], brand)
    assert not days.read(table, today)
    assert days.read(table, today - 1)
    table.drop([a_logged_event().shard])
    assert days.read(table, today)


def test_a_player_churns_once_an_absence_and_is_new_once() -> None:
    brand = a_brand()
    table = _table(brand, NOON)
    acts = [89, 59, 28, 10]  # days before: back on the 30th day, and on the 31st
    events = [
        a_logged_event(event_id=f"e{back}", occurred_at=NOON - timedelta(days=back))
        for back in acts
    ]
    _apply(table, events, brand)
    asked = Days(*table.days_held[:: len(table.days_held) - 1])
    totals = TableDays().totals(table, brand.zone, asked, [asked])
    today = asked.last
    churned = [today - day for day, count in zip(asked.days, totals.churned, strict=True) if count]
    assert churned == [29]
    assert [today - day for day, n in zip(asked.days, totals.new, strict=True) if n] == [89]
    assert totals.active == [1]


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        (0, -1, "ends before it begins"),
        (0, 1, "not after today"),
        (-90, 0, "not before 2025-12-11"),
    ],
)
def test_days_that_are_not_held_are_refused(first: int, last: int, said: str) -> None:
    table = _table(a_brand(), NOON)
    today = table.days_held[-1]
    with pytest.raises(InvalidRange, match=said):
        TableDays().totals(table, a_brand().zone, Days(today + first, today + last), [])
