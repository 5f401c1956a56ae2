"""Bugs that were met elsewhere, planted one at a time: the laws of the features find every one.

Each stands for a trap of window engines; none may survive what the properties look at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from crm.domain import event_columns, own_measures
from crm.domain.brands import Brand
from crm.domain.day_set import DaySet
from crm.domain.event_columns import EventColumns
from crm.domain.events import LoggedEvent
from crm.domain.feature_list import features_of
from crm.domain.feature_table import FeatureTable
from crm.domain.ledger import Cells, Ints, Ledger
from crm.domain.times import to_us
from crm.domain.windows import Window
from tests.support.brute_force import features_of as features_by_definition
from tests.support.histories import ENDS, brands, histories

Plant = Callable[[pytest.MonkeyPatch], None]
EXAMPLES = 400


def _silent_wrap(patch: pytest.MonkeyPatch) -> None:
    whole = Window.add

    def add(self: Window, cells: Cells) -> None:
        narrow = cells.values.astype(np.int32).astype(np.int64)
        whole(self, Cells(cells.rows, cells.measures, narrow))

    patch.setattr(Window, "add", add)


def _lost_repeated_index(patch: pytest.MonkeyPatch) -> None:
    def add(self: Window, cells: Cells) -> None:
        if not self._all:
            cells = cells.take(self._place[cells.measures] >= 0)
        new = cells.rows[self._slot[cells.rows] < 0]
        if len(new):
            self._give_slots(np.unique(new))
        self._totals.reshape(-1)[self._at(cells)] += cells.values

    patch.setattr(Window, "add", add)


def _bucket_dropped_before_it_is_subtracted(patch: pytest.MonkeyPatch) -> None:
    whole = FeatureTable._advance_days

    def advance(self: FeatureTable, day: int) -> None:
        self._days.pop_until(day - 7)
        whole(self, day)

    patch.setattr(FeatureTable, "_advance_days", advance)


def _late_event_without_its_bucket(patch: pytest.MonkeyPatch) -> None:
    whole = Ledger.add

    def add(self: Ledger, buckets: Ints, cells: Cells) -> None:
        newest = buckets == (buckets.max() if len(buckets) else 0)
        whole(self, buckets[newest], cells.take(newest))

    patch.setattr(Ledger, "add", add)


def _player_without_a_slot(patch: pytest.MonkeyPatch) -> None:
    def values(self: Window, measure: int, rows: slice | Ints) -> Ints:
        column: Ints = self._totals[self._place[measure]][self._slot[rows]]
        return column

    def take_away(self: Window, cells: Cells) -> None:
        whole(self, cells)
        self._totals[:, -1] += 1  # somebody else's column

    whole = Window.take_away
    patch.setattr(Window, "values", values)
    patch.setattr(Window, "take_away", take_away)


def _day_by_division(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(FeatureTable, "_local_day", lambda _self, us: us // 86_400_000_000 + 719_163)


def _night_as_start_and_six_hours(patch: pytest.MonkeyPatch) -> None:
    def night_end(day: int, zone: ZoneInfo) -> int:
        start = datetime.combine(date.fromordinal(day), time(), zone).astimezone(UTC)
        return to_us(start + timedelta(hours=6))

    patch.setattr(event_columns, "night_end", night_end)


def _active_day_counted_twice(patch: pytest.MonkeyPatch) -> None:
    whole = DaySet.add

    def add(
        self: DaySet, rows: Ints, days: Ints, measures: Ints
    ) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        whole(self, rows, days, measures)
        return np.ones(len(rows), dtype=bool)

    patch.setattr(DaySet, "add", add)


def _window_edge_off_by_one(patch: pytest.MonkeyPatch) -> None:
    whole = Ledger.between
    patch.setattr(Ledger, "between", lambda self, start, end: whole(self, start, end - 1))


def _advance_racing_apply(patch: pytest.MonkeyPatch) -> None:
    whole = FeatureTable.apply

    def apply(self: FeatureTable, events: EventColumns) -> None:
        day, self._day = self._day, self._day - 1  # what it read before the clock moved on
        whole(self, events)
        self._day = day

    patch.setattr(FeatureTable, "apply", apply)


def _number_through_a_double(patch: pytest.MonkeyPatch) -> None:
    whole = own_measures.scaled

    def scaled(json: str, decimals: int) -> int | None:
        return None if whole(json, decimals) is None else round(float(json) * 10**decimals)

    patch.setattr(own_measures, "scaled", scaled)


def _true_taken_for_one(patch: pytest.MonkeyPatch) -> None:
    whole = own_measures.canonical
    patch.setattr(own_measures, "canonical", lambda json: whole("1" if json == "true" else json))


def _own_cells_of_other_events(patch: pytest.MonkeyPatch) -> None:
    whole = EventColumns.take

    def take(self: EventColumns, which: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> EventColumns:
        own = self.own.take(which[self.own.rows])
        last = Cells(np.minimum(own.rows, int(which.sum()) - 1), own.measures, own.values)
        return replace(whole(self, which), own=last)

    patch.setattr(EventColumns, "take", take)


PLANTS: list[Plant] = [
    _silent_wrap, _lost_repeated_index, _bucket_dropped_before_it_is_subtracted,
    _late_event_without_its_bucket, _player_without_a_slot, _day_by_division,
    _night_as_start_and_six_hours, _active_day_counted_twice, _window_edge_off_by_one,
    _advance_racing_apply, _number_through_a_double, _true_taken_for_one,
    _own_cells_of_other_events,
]  # fmt: skip


@st.composite
def _cases(draw: st.DrawFn) -> tuple[Brand, datetime, list[LoggedEvent]]:
    brand, end = draw(brands()), draw(st.sampled_from(ENDS))
    return brand, end, draw(histories(brand, end))


def _live(table: FeatureTable) -> dict[str, dict[str, int | None]]:
    return {player: table.values(row) for row, player in enumerate(table.player_ids)}


def _look(examples: int) -> None:
    """Hold live features against their definition, in batches and while the clock moves on."""

    @settings(
        max_examples=examples, phases=[Phase.generate], database=None, derandomize=True,
        deadline=None, suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(_cases(), st.lists(st.integers(0, 9 * 86_400), min_size=2, max_size=4))
    def check(case: tuple[Brand, datetime, list[LoggedEvent]], steps_s: list[int]) -> None:
        brand, end, events = case
        features = features_of(brand)
        table = FeatureTable(brand.zone, to_us(end) - 10**6 * sum(steps_s), features)
        size = len(events) // len(steps_s) + 1
        for number, step_s in enumerate(steps_s):
            part = events[number * size : (number + 1) * size]
            table.apply(EventColumns.of(part, features))
            table.advance(table.now_us + 10**6 * step_s)
        players = {event.player_id for event in events if event.occurred_at <= end}
        expected = {
            player: features_by_definition([e for e in events if e.player_id == player], brand, end)
            for player in players
        }
        assert _live(table) == expected
        for name in ("bet_count_30d", "stake_amount_7d"):
            column, _ = table.column(name)
            assert column.tolist() == [expected[player][name] for player in table.player_ids]

    check()


def test_without_a_bug_nothing_is_found() -> None:
    _look(EXAMPLES)


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__.strip("_"))
def test_a_planted_bug_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises((AssertionError, IndexError, ValueError)):
        _look(
            5 * EXAMPLES
        )  # what is drawn depends on the modules that are loaded: the rarest need it
