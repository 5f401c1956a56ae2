"""No leak: nothing that came after a cut-off, or was heard of after it, is in a training feature;
and what is in it is what the online engine answered at that moment.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crm.domain.brands import Brand
from crm.domain.clustering import Floats, in_units
from crm.domain.event_columns import EventColumns
from crm.domain.events import LoggedEvent
from crm.domain.feature_list import features_of
from crm.domain.feature_table import FeatureTable
from crm.domain.times import to_us
from pipelines.score_inputs import Rows, candidates, joined, rows_at
from pipelines.score_plan import Cut
from tests.support.histories import ENDS, brands, histories
from tests.support.lake import lake_rows

_TICK = timedelta(microseconds=1)


@st.composite
def _pasts(draw: st.DrawFn) -> tuple[Brand, Cut, list[LoggedEvent]]:
    """A brand, a cut-off, and events until weeks after it, each known when it happened or later."""
    brand, end = draw(brands()), draw(st.sampled_from(ENDS))
    cut = Cut(
        end - timedelta(days=draw(st.integers(0, 40)), seconds=draw(st.integers(0, 9_999))), 30
    )
    late = st.sampled_from([timedelta(0), timedelta(hours=1), timedelta(days=9)])
    events = [_changed(e, known_at=e.occurred_at + draw(late)) for e in draw(histories(brand, end))]
    return brand, cut, events


def _changed(event: LoggedEvent, **fields: object) -> LoggedEvent:
    return LoggedEvent(**{n: getattr(event, n) for n in event.__struct_fields__} | fields)


def _rows(events: list[LoggedEvent], brand: Brand, cut: Cut) -> Rows:
    return rows_at(lake_rows(events).lazy(), brand, cut)


def _features(rows: Rows, brand: Brand) -> dict[str, list[float | None]]:
    """Return every training feature of every player, comparable (missing as None)."""
    values = rows.values(candidates(brand), brand)
    bare = [[None if np.isnan(value) else value for value in row] for row in values.tolist()]
    return dict(zip(rows.players, bare, strict=True))


@given(_pasts(), st.data())
def test_an_event_moved_behind_the_cut_or_heard_of_behind_it_is_as_if_it_had_never_been(
    past: tuple[Brand, Cut, list[LoggedEvent]], data: st.DataObject
) -> None:
    brand, cut, events = past
    gone = data.draw(st.sets(st.integers(0, max(len(events) - 1, 0))))
    behind = cut.as_of + data.draw(st.sampled_from([_TICK, timedelta(days=3), timedelta(days=60)]))
    without = [event for number, event in enumerate(events) if number not in gone]
    moved = [
        _moved(event, brand, behind) if number in gone else event
        for number, event in enumerate(events)
    ]
    untold = [
        _changed(event, known_at=max(behind, event.occurred_at)) if number in gone else event
        for number, event in enumerate(events)
    ]
    expected = _rows(without, brand, cut)
    for changed in (moved, untold):
        found = _rows(changed, brand, cut)
        assert _features(found, brand) == _features(expected, brand)
        for label in ("bet_days", "deposit_days"):
            assert _purchases(found, label) == _purchases(expected, label)
        assert found.at_risk(30).tolist() == expected.at_risk(30).tolist()


def _moved(event: LoggedEvent, brand: Brand, at: datetime) -> LoggedEvent:
    return _changed(event, occurred_at=at, known_at=at, local_day=brand.local_day(at))


def _purchases(rows: Rows, label: str) -> list[list[float]]:
    found = rows.purchases(label)  # type: ignore[arg-type]  # one of the labels
    return [found.repeats.tolist(), found.last.tolist(), found.observed.tolist()]


@given(_pasts())
def test_a_training_feature_is_what_the_online_engine_answered_at_that_moment(
    past: tuple[Brand, Cut, list[LoggedEvent]],
) -> None:
    brand, cut, events = past
    told = [event for event in events if event.known_at <= cut.as_of]
    told.sort(key=lambda event: event.known_at)
    table = FeatureTable(brand.zone, to_us(cut.as_of), features_of(brand))
    table.apply(EventColumns.of(told, features_of(brand)))
    rows = _rows(events, brand, cut)
    names = candidates(brand)
    for player, values in _features(rows, brand).items():
        row = table.row(player)
        assert row is not None
        answered = table.values(row)
        online = [_online(brand, name, answered[name]) for name in names]
        assert dict(zip(names, values, strict=True)) == dict(zip(names, online, strict=True))


def _online(brand: Brand, name: str, value: int | None) -> float | None:
    if value is None:
        return None
    feature = features_of(brand).features[name]
    return float(in_units(feature, np.array([value]), None, brand.currency)[0])


@given(_pasts())
def test_labels_are_what_players_did_in_the_days_after_and_nothing_else(
    past: tuple[Brand, Cut, list[LoggedEvent]],
) -> None:
    brand, cut, events = past
    rows = _rows(events, brand, cut)
    ends = cut.as_of + timedelta(days=cut.days)
    after = [e for e in events if cut.as_of < e.occurred_at <= ends]
    left, deposit_days = rows.label("active", brand), rows.label("deposit_days", brand)
    money = rows.label("deposit_amount", brand)
    for place, player in enumerate(rows.players):
        of_player = [event for event in after if event.player_id == player]
        deposits = [event for event in of_player if event.type == "deposit.completed"]
        bets = [event for event in of_player if event.type == "bet.placed"]
        assert left[place] == (not deposits and not bets)
        assert deposit_days[place] == len({event.local_day for event in deposits})
        cents = sum(event.amount_minor or 0 for event in deposits)
        assert money[place] == pytest.approx(cents / 10**brand.currency.decimals)


@settings(max_examples=15)
@given(_pasts(), st.integers(2, 3))
def test_parts_of_the_shards_together_are_the_whole(
    past: tuple[Brand, Cut, list[LoggedEvent]], count: int
) -> None:
    brand, cut, events = past
    whole = _rows(events, brand, cut)
    parts = [
        _rows([e for e in events if e.shard % count == number], brand, cut)
        for number in range(count)
    ]
    together = joined(parts)
    assert together.players == whole.players
    assert _features(together, brand) == _features(whole, brand)
    one, other = (_labels(rows, brand) for rows in (together, whole))
    assert np.array_equal(one, other)


def _labels(rows: Rows, brand: Brand) -> Floats:
    return np.column_stack(
        [
            rows.label("active", brand),
            rows.label("ngr_amount", brand),
            rows.label("bet_days", brand),
        ]
    )
