"""Laws of windows that a rule states, and of did: a table's masks equal a recount of its events."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from crm.domain.brands import Brand
from crm.domain.event_columns import EventColumns
from crm.domain.events import LoggedEvent
from crm.domain.feature_list import features_of
from crm.domain.feature_table import FeatureTable
from crm.domain.rule_terms import Dates, Did, DidNot, LastDays, Newcomers, Over
from crm.domain.rules import Compare, Exists, Rule
from crm.domain.segments import compile_mask
from crm.domain.times import to_us
from tests.support.brute_force import over_days
from tests.support.histories import ENDS, brands, histories
from tests.support.rule_trees import events_of

OWN_TYPES = {
    "player.registered", "session.started", "session.ended", "deposit.requested",
    "deposit.completed", "deposit.failed", "withdrawal.requested", "withdrawal.completed",
    "withdrawal.cancelled", "bet.placed", "message.opened", "message.clicked",
}  # fmt: skip
History = tuple[Brand, datetime, list[LoggedEvent], FeatureTable]


@st.composite
def tables(draw: st.DrawFn) -> History:
    """A table that took in events in some order, in portions, while its clock went on."""
    brand, end = draw(brands()), draw(st.sampled_from(ENDS))
    events = draw(histories(brand, end))
    table = FeatureTable(brand.zone, to_us(end - timedelta(days=20)), features_of(brand))
    left = draw(st.permutations(events))
    while left:
        size = draw(st.integers(1, len(left)))
        table.apply(EventColumns.of(left[:size], features_of(brand)))
        left = left[size:]
        table.advance(min(to_us(end), table.now_us + draw(st.integers(0, 20)) * 86_400_000_000))
    end += timedelta(seconds=draw(st.integers(0, 20 * 86_400)))
    table.advance(to_us(end))
    if draw(st.booleans()) and len(table):  # some rows are dead, and their cells still there
        table.drop([draw(st.sampled_from(sorted(table.shards())))])
    return brand, end, events, table


@st.composite
def windows(draw: st.DrawFn, today: date, events: Sequence[LoggedEvent]) -> tuple[Over, date, date]:
    """A window, and its first and last day; often one that an event is just in, or just not."""
    ages = {(today - event.local_day).days + more for event in events for more in (0, 1)}
    near = sorted(age for age in ages if 1 <= age <= 90) or [1]
    some = st.sampled_from([1, 7, 8, 30, 31, 89, 90]) | st.integers(1, 90)
    days = draw(st.sampled_from(near) | some)
    first = today - timedelta(days=days - 1)
    if draw(st.booleans()):
        return LastDays(days), first, today
    last = first + timedelta(days=draw(st.integers(0, 89)))  # it may end in the future
    return Dates(first, last), first, last


def _recount(
    events: Sequence[LoggedEvent], players: Sequence[str], name: str, *of: object
) -> list[int | None]:
    return [
        over_days([e for e in events if e.player_id == player], *of)[name]  # type: ignore[arg-type]  # as given
        for player in players
    ]


@settings(max_examples=150)
@given(tables(), st.data())
def test_values_over_any_days_equal_a_recount(case: History, data: st.DataObject) -> None:
    brand, end, events, table = case
    name = data.draw(st.sampled_from(sorted(features_of(brand).windowed)))
    today = brand.local_day(end)
    _, first, last = data.draw(windows(today, events))
    values, missing = table.over(name, first.toordinal(), last.toordinal())
    found = [
        None if missing is not None and missing[row] else int(value)
        for row, value in enumerate(values)
    ]
    assert found == _recount(events, table.player_ids, name, brand, end, first, last)


@given(tables(), st.data())
def test_some_rows_read_what_all_rows_read(case: History, data: st.DataObject) -> None:
    brand, end, events, table = case
    name = data.draw(st.sampled_from(sorted(features_of(brand).windowed)))
    _, first, last = data.draw(windows(brand.local_day(end), events))
    places = data.draw(st.lists(st.integers(0, max(0, len(table) - 1)), unique=True))
    places = places if len(table) else []
    rows = np.array([table.row(table.player_ids[place]) for place in places], dtype=np.int64)
    days = first.toordinal(), last.toordinal()
    for some, every in zip(table.over(name, *days, rows), table.over(name, *days), strict=True):
        if every is None or not len(places):
            continue
        assert some is not None
        assert np.broadcast_to(some, len(places)).tolist() == every[places].tolist()
    assert list(table.texts("player_id", rows)[0]) == [table.player_ids[p] for p in places]


@settings(max_examples=150)
@given(tables(), st.data())
def test_masks_over_days_say_what_a_recount_says(case: History, data: st.DataObject) -> None:
    brand, end, events, table = case
    over, first, last = data.draw(windows(brand.local_day(end), events))
    counts = ("event_count", "event_count", "bet_count", "active_days", "product_count")
    name = data.draw(st.sampled_from(counts))
    value = data.draw(st.integers(1, 3))
    recounted = _recount(events, table.player_ids, name, brand, end, first, last)
    found = _members(Compare(name, ">=", value, over), brand, table)
    assert found == [one is not None and one >= value for one in recounted]
    share = _recount(events, table.player_ids, "weekend_bet_share", brand, end, first, last)
    found = _members(Exists("weekend_bet_share", over), brand, table)
    assert found == [one is not None for one in share]


@settings(max_examples=150)
@given(tables(), st.data())
def test_did_and_both_readings_of_did_not_equal_a_recount(
    case: History, data: st.DataObject
) -> None:
    brand, end, events, table = case
    over, first, last = data.draw(windows(brand.local_day(end), events))
    event = data.draw(st.just("event") | st.sampled_from(events_of(features_of(brand))))
    times = _recount(events, table.player_ids, f"{event}_count", brand, end, first, last)
    did = [one is not None and one > 0 for one in times]
    assert _members(Did(event, over), brand, table) == did
    both: tuple[Newcomers, Newcomers] = ("included", "excluded")
    found = {which: _members(DidNot(event, over, which), brand, table) for which in both}
    assert found["included"] == [not one for one in did]
    known = [_known(events, player, over, brand, end) for player in table.player_ids]
    assert found["excluded"] == [not one and judged for one, judged in zip(did, known, strict=True)]


def _known(
    events: Sequence[LoggedEvent], player: str, over: Over, brand: Brand, end: datetime
) -> bool:
    """Whether a player was there for the whole window."""
    acts = [
        event
        for event in events
        if event.player_id == player and event.type in OWN_TYPES and event.occurred_at <= end
    ]
    if isinstance(over, Dates):
        return any(event.local_day < over.first for event in acts)
    return any(end - event.occurred_at >= timedelta(days=over.days) for event in acts)


def _members(rule: Rule, brand: Brand, table: FeatureTable) -> list[bool]:
    found: list[bool] = compile_mask(rule, brand, table, len(table)).tolist()
    return found
