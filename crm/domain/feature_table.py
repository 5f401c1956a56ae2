"""The live features of one brand's players: exact integer columns, right for any order of events.

The truth is what cannot be recomputed (lifetime totals, first and last times, which days counted)
and a ledger of sparse day and hour buckets; the windows are a cache over the ledger, rebuilt on
load. A window is a function of the table's own `now`, never of the wall clock. One thread applies
and advances.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime, time
from functools import partial
from typing import TypeVar
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
from numpy.typing import NDArray

from crm.domain.column_source import CodedTexts
from crm.domain.day_set import DaySet
from crm.domain.errors import InvalidRule
from crm.domain.event_columns import OF_MOMENT, AheadEvent, EventColumns
from crm.domain.feature_list import BUILT_IN, FeatureList
from crm.domain.feature_values import DAY_US, NEVER, column_of, measures_of, value_of
from crm.domain.features import (
    DAYS_OF_WINDOW,
    HIDDEN_DAYS,
    HOURS_OF_24H,
    MEASURE_INDEX,
    MOMENT_INDEX,
    MOMENTS,
    TRENDS,
    Defined,
    Edge,
    Trend,
)
from crm.domain.ledger import Cells, Ints, Ledger, joined
from crm.domain.live_scores import NO_SCORES, LiveScores, ServingScores
from crm.domain.score_columns import RANK, SCORED
from crm.domain.spans import Spans
from crm.domain.staged_events import Places, StagedEvents
from crm.domain.times import from_us, to_us
from crm.domain.windows import EVENTS, Lifetime, Window

Mask = NDArray[np.bool_]
_Number = TypeVar("_Number", np.int16, np.int64)

_HOUR_US = 3_600_000_000
_FIRST_CAPACITY = 1024
_READ = 10  # to read a window takes as long as to add up so many days
_NOBODY = -1  # the shard of a row that is no player's
_DAYS = {**DAYS_OF_WINDOW, **HIDDEN_DAYS}
_LONGEST = max(_DAYS.values())
_NO_CELLS = Cells(*np.zeros((3, 0), dtype=np.int64))
_COMPARED = [EVENTS, *sorted({MEASURE_INDEX[trend.measure] for trend in TRENDS})]


class TableSlice(msgspec.Struct):
    """All that one virtual shard knows of one brand, for a snapshot; arrays are raw int64."""

    measures: list[bytes]  # their digests: what the numbers of measures below stand for
    player_ids: list[str]
    lifetime: bytes  # (measures, players)
    first: bytes  # (moments, players), microseconds
    last: bytes
    once: bytes  # (3, n): player, day, measure that counted once that day
    days: bytes  # (4, cells): bucket, player, measure, value
    hours: bytes
    ahead: list[AheadEvent]


class FeatureTable:
    """Features of a brand's players that one owner holds; rows are players, of several shards."""

    def __init__(
        self,
        zone: ZoneInfo,
        now_us: int,
        features: FeatureList = BUILT_IN,
        serving: ServingScores = NO_SCORES,
    ) -> None:
        self.features = features
        self.scores = LiveScores(features, 0, serving)
        self.lists: dict[str, Collection[str]] = {}  # players of static segments, by segment
        self._zone = zone
        self._ids: list[str] = []
        self._row: dict[str, int] = {}
        self._ahead: list[AheadEvent] = []
        self._once = DaySet()
        self._days = Ledger()
        self._hours = Ledger()
        total = len(features.measures)
        self._windows = {
            "24h": Window(range(total), total),
            **{name: Window(range(total), total) for name in DAYS_OF_WINDOW},
            **{name: Window(_COMPARED, total) for name in HIDDEN_DAYS},
        }
        self._lifetime = Lifetime(features.measures)
        self._shard = np.zeros(0, dtype=np.int16)
        self._first = np.zeros((len(MOMENTS), 0), dtype=np.int64)
        self._last = np.zeros((len(MOMENTS), 0), dtype=np.int64)
        self._grow(_FIRST_CAPACITY)
        self.now_us = now_us
        self._hour = now_us // _HOUR_US
        self._day = self._local_day(now_us)
        self.moved: list[tuple[Ints, int | Ints]] | None = None  # see _note
        self.watched_days: set[int] = set()  # windows of so many days are to be noted too

    def __len__(self) -> int:
        return len(self._row)

    # --- what changes a table -------------------------------------------------------------------

    def apply(self, events: EventColumns) -> None:
        """Add events, once each; those ahead of the table's clock wait for it."""
        ahead = events.at > self.now_us
        if ahead.any():
            self._wait(events.take(ahead))
            events = events.take(~ahead)
        if not len(events.at):
            return
        rows = self._rows(events.player_ids, events.shards)
        self.scores.mark(rows)
        for index, kinds in enumerate(OF_MOMENT):
            of_moment = kinds[events.kinds]
            np.minimum.at(self._first[index], rows[of_moment], events.at[of_moment])
            np.maximum.at(self._last[index], rows[of_moment], events.at[of_moment])
        self._count(events, *events.cells(rows, self._zone))

    def backfill(self, events: EventColumns, measures: Sequence[int]) -> None:
        """Count events of before by some measures alone, which the table lacked when they came."""
        rows = self._rows(events.player_ids, events.shards)
        self.scores.mark(rows)
        cells, event = events.cells(rows, self._zone)
        lacked = np.isin(cells.measures, measures)
        self._count(events, cells.take(lacked), event[lacked])

    def _count(self, events: EventColumns, cells: Cells, event: Ints) -> None:
        """File what events add; `event` is the place of each cell's."""
        counts = self._count_once_a_day(cells, events.days[event])
        self._file(cells.take(counts), events.days[event[counts]], events.at[event[counts]])

    def advance(self, now_us: int) -> None:
        """Move the clock on, never back: buckets leave their windows, waiting events come in."""
        if now_us <= self.now_us:
            return
        self.now_us = now_us
        self._advance_hours(now_us // _HOUR_US)
        self._advance_days(max(self._day, self._local_day(now_us)))
        due = []
        while self._ahead and to_us(self._ahead[0].occurred_at) <= now_us:
            due.append(heapq.heappop(self._ahead))
        if due:
            self.apply(EventColumns.of(due, self.features))
            for event in due:
                self._note(np.array([self._row[event.player_id]]), to_us(event.occurred_at))

    def _count_once_a_day(self, cells: Cells, days: Ints) -> Mask:
        """Return which cells count: of a measure that counts once a day, a player's first."""
        counts = np.ones(len(cells.rows), dtype=bool)
        once = np.flatnonzero(self.features.once_a_day[cells.measures])
        counts[once] = self._once.add(cells.rows[once], days[once], cells.measures[once])
        return counts

    def _advance_hours(self, hour: int) -> None:
        if hour == self._hour:
            return
        for bucket, leaving in self._hours.pop_until(hour - HOURS_OF_24H):
            cells = self._of_players(leaving)
            self._windows["24h"].take_away(cells)
            self._note(cells.rows, (bucket + HOURS_OF_24H) * _HOUR_US, "24h")
        self._hour = hour

    def _advance_days(self, day: int) -> None:
        if day == self._day:
            return
        for name, length in _DAYS.items():
            for bucket, leaving in self._days.between(self._day - length + 1, day - length + 1):
                cells = self._of_players(leaving)
                self._windows[name].take_away(cells)
                self._note(cells.rows, self._midnight(bucket + length), name)
        for length in self.watched_days - set(_DAYS.values()):
            for bucket, leaving in self._days.between(self._day - length + 1, day - length + 1):
                self._note(self._of_players(leaving).rows, self._midnight(bucket + length))
        self._days.pop_until(day - _LONGEST)
        self._day = day

    def _file(self, cells: Cells, days: Ints, at: Ints) -> None:
        """Count cells for ever, put them into their buckets, and into every window with these."""
        self._lifetime.add(cells)
        self._file_days(cells, days)
        self._file_hours(cells, at // _HOUR_US)

    def _file_days(self, cells: Cells, days: Ints) -> None:
        recent = days > self._day - _LONGEST
        cells, days = cells.take(recent), days[recent]
        self._days.add(days, cells)
        for name, length in _DAYS.items():
            inside = days > self._day - length
            self._windows[name].add(cells if inside.all() else cells.take(inside))

    def _file_hours(self, cells: Cells, hours: Ints) -> None:
        """File what lies in the last 24 hours; what counts once a day has no hour of its own."""
        once_a_day = self.features.once_a_day[cells.measures]
        inside = (hours > self._hour - HOURS_OF_24H) & ~once_a_day
        cells = cells.take(inside)
        self._hours.add(hours[inside], cells)
        self._windows["24h"].add(cells)

    def _wait(self, events: EventColumns) -> None:
        for event in events.events:
            heapq.heappush(self._ahead, AheadEvent.of(event))

    def _local_day(self, at_us: int) -> int:
        return from_us(at_us).astimezone(self._zone).toordinal()

    def _midnight(self, day: int) -> int:
        return to_us(datetime.combine(date.fromordinal(day), time(), self._zone))

    def _note(self, rows: Ints, at_us: int, window: str = "") -> None:
        """Keep who was changed by the clock, and by which of its boundaries, if that is asked."""
        self.scores.mark(rows, window)
        if self.moved is not None and len(rows):
            self.moved.append((np.unique(rows), at_us))

    # --- scores ---------------------------------------------------------------------------------

    def serve(self, serving: ServingScores) -> None:
        """Have these models score the players, in slices: see LiveScores."""
        self.scores.serve(serving, self.living_rows())

    def age_scores(self) -> None:
        """Let the scores follow the clock, which changes those that count whole days."""
        rows, at = self.scores.age(self)
        if self.moved is not None and self.scores.watched and len(rows):
            self.moved.append((rows, at))

    def renew_scores(self, most: int) -> None:
        """Score so many of the players who have changed."""
        self.age_scores()
        self.scores.renew(self, most)

    def scores_column(self, name: str) -> tuple[Ints, int]:
        """Return a column of scores by row, and what stands where it is missing."""
        self.age_scores()
        return self.scores.raw(name, self._rows_held, self)

    # --- what would be --------------------------------------------------------------------------

    def stage(self, events: EventColumns) -> tuple[Places, StagedEvents]:
        """Return what players would be after each of some events, none of them ahead."""
        places = Places(self._row, events.player_ids)
        events = events.at_places(places.order)
        cells, event = events.cells(np.arange(len(places.order)), self._zone)
        once = np.flatnonzero(self.features.once_a_day[cells.measures])
        # who is new stands behind all rows: nothing is known of them
        players = np.where(places.rows < 0, len(self._ids) - places.players, places.players)
        counts = np.ones(len(cells.rows), dtype=bool)
        counts[once] = self._once.would_add(
            players[event[once]], events.days[event[once]], cells.measures[once]
        )
        cells, event = cells.take(counts), event[counts]
        inside = {n: events.days[event] > self._day - length for n, length in _DAYS.items()}
        inside["24h"] = events.at[event] // _HOUR_US > self._hour - HOURS_OF_24H
        return places, StagedEvents(self, places, events, cells, events.days[event], inside)

    def totals(self, rows: Ints, measure: str, window: str) -> Ints:
        """Return new totals of some rows: 0 of rows below 0."""
        found = self._total(np.maximum(rows, 0), measure, window)
        return np.where(rows < 0, 0, found)

    def totals_over(self, rows: Ints, measure: str, first: int, last: int) -> Ints:
        """Return new totals of some rows over local days: 0 of rows below 0."""
        known, place = np.unique(np.maximum(rows, 0), return_inverse=True)
        found = self._days.totals_of(self.features.index[measure], first, last + 1, known)
        return np.where(rows < 0, 0, found[place])

    def times(self, rows: Ints, edge: Edge) -> Ints:
        """Return new first or last times of some rows: none of rows below 0."""
        side, never = self._side(edge)
        return np.where(rows < 0, never, side[MOMENT_INDEX[edge.moment], np.maximum(rows, 0)])

    # --- rows -----------------------------------------------------------------------------------

    def _rows(self, player_ids: Sequence[str], shards: Ints) -> Ints:
        """Return the row of each player, making rows for new ones."""
        known = self._row
        rows = [known.get(player_id, -1) for player_id in player_ids]
        if -1 in rows:
            new = [place for place, row in enumerate(rows) if row < 0]
            self._add_players({player_ids[place]: int(shards[place]) for place in new})
            rows = [known[player_id] for player_id in player_ids]
        return np.array(rows, dtype=np.int64)

    def _add_players(self, shards: Mapping[str, int]) -> None:
        """Make rows for new players, whose shards are given."""
        first, end = len(self._ids), len(self._ids) + len(shards)
        if end > len(self._shard):
            self._grow(max(2 * len(self._shard), end))
        self._ids += shards
        self._row.update(zip(shards, range(first, end), strict=True))
        self._shard[first:end] = list(shards.values())

    @property
    def _all_totals(self) -> list[Lifetime | Window]:
        return [self._lifetime, *self._windows.values()]

    @property
    def _all_rows(self) -> slice | Ints:
        """The rows of all players, ascending."""
        rows = len(self._ids)
        return np.flatnonzero(self._shard[:rows] != _NOBODY) if self.dead_rows else slice(0, rows)

    def _of_players(self, cells: Cells) -> Cells:
        """Return the cells of rows that are some player's: a window knows no others."""
        return cells.take(self._shard[cells.rows] != _NOBODY) if self.dead_rows else cells

    def _grow(self, capacity: int) -> None:
        self._shard = _wider(self._shard, capacity, _NOBODY)
        self._first = _wider(self._first, capacity, NEVER["first"])
        self._last = _wider(self._last, capacity, NEVER["last"])
        self.scores.fit(capacity)
        for totals in self._all_totals:
            totals.fit(capacity)

    # --- reading --------------------------------------------------------------------------------

    @property
    def player_ids(self) -> Sequence[str]:
        """All players, in the order of their rows, which is that of a whole column."""
        return list(self._row) if self.dead_rows else self._ids

    @property
    def ids(self) -> Sequence[str]:
        """The player of each row; "" where it is dead."""
        return self._ids

    @property
    def dead_rows(self) -> int:
        """How many rows are of shards that were dropped: they are left out of every answer."""
        return len(self._ids) - len(self._row)

    def row(self, player_id: str) -> int | None:
        """Return the row of a player, or None."""
        return self._row.get(player_id)

    def shards(self) -> set[int]:
        """Return the virtual shards of which something is known."""
        held = np.flatnonzero(np.bincount(self._shard[self._all_rows], minlength=1))
        return {*held.tolist(), *(event.shard for event in self._ahead)}

    @property
    def capacity(self) -> int:
        """For how many rows there is room; every row is below it."""
        return len(self._shard)

    def living_rows(self) -> Ints:
        """Return the rows of all players, ascending."""
        return np.flatnonzero(self._shard[: len(self._ids)] != _NOBODY)

    def lives(self, rows: Ints) -> Mask:
        """Return which rows are some player's."""
        living: Mask = self._shard[rows] != _NOBODY
        return living

    def shard_of(self, rows: Ints) -> NDArray[np.int16]:
        """Return the virtual shards of some rows."""
        return self._shard[rows]

    def rows_of(self, shard: int) -> Ints:
        """Return the rows of a virtual shard."""
        return np.flatnonzero(self._shard[: len(self._ids)] == shard)

    def ids_of(self, rows: Ints) -> list[str]:
        """Return the players of some rows."""
        return [self._ids[row] for row in rows.tolist()]

    def ids_at(self, places: Ints) -> list[str]:
        """Return the players in some places of a whole column."""
        rows = self._all_rows
        return self.ids_of(places if isinstance(rows, slice) else rows[places])

    def column(self, name: str, rows: Ints | None = None) -> tuple[Ints, Mask | None]:
        """Return the values of a feature by row, and where they are missing (None: nowhere).

        Of all players, if `rows` does not say which. Raises KeyError for a name that is neither in
        the list nor a score's.
        """
        which = self._all_rows if rows is None else rows
        if name in SCORED:
            self.age_scores()
            return self.scores.column(name, which, self)
        return column_of(
            self.features.defined[name], partial(self._total, which), partial(self._times, which),
            self.now_us,
        )  # fmt: skip

    @property
    def today(self) -> int:
        """The ordinal of the brand's local day."""
        return self._day

    def over(
        self, name: str, first: int, last: int, rows: Ints | None = None
    ) -> tuple[Ints, Mask | None]:
        """Return a value (of FeatureList.windowed) over some local days, as `column` does.

        They are ordinals, both included; days of more than 90 days ago are no longer kept. Each of
        `rows` comes at most once.
        """

        def total(measure: str, _: str) -> Ints:
            place = self.features.index[measure]
            if rows is not None:
                return self._days.totals_of(place, first, last + 1, rows)
            return self._over_days(place, first, last)

        return value_of(self.features.windowed[name], total)

    def _over_days(self, measure: int, first: int, last: int) -> Ints:
        """Return a measure's totals over some days.

        Up to today they are the nearest window that is ready, and the days between the two, where
        that is less work than to add up all days.
        """
        nearest, days = "", self._day - first + 1
        if last >= self._day:
            lengths = {"": 0, **DAYS_OF_WINDOW}
            nearest = min(lengths, key=lambda w: abs(lengths[w] - days) + _READ * bool(w))
        if not nearest:
            return self._days.totals(measure, first, last + 1, len(self._ids))[self._all_rows]
        start = self._day - DAYS_OF_WINDOW[nearest] + 1
        older, newer = min(start, first), max(start, first)
        between = self._days.totals(measure, older, newer, len(self._ids))
        ready = self._windows[nearest].values(measure, self._all_rows)
        change = between[self._all_rows]
        return ready + change if first < start else ready - change

    def texts(
        self, name: str, rows: Ints | None = None
    ) -> tuple[Sequence[str], None] | tuple[CodedTexts, Mask]:
        """Return a column of text, and where it is missing: player_id, churn_rank."""
        if name == RANK:
            self.age_scores()
            return self.scores.texts(self._all_rows if rows is None else rows, self)
        if name != "player_id":
            raise KeyError(name)
        return self.player_ids if rows is None else self.ids_of(rows), None

    def on_list(self, segment: str, rows: Ints | None = None) -> Mask:
        """Return who is on a list of `lists`; raises InvalidRule for one that is not there."""
        if segment not in self.lists:
            raise InvalidRule(f'there is no list "{segment}"')
        found = np.zeros(len(self._ids), dtype=bool)
        held = (self._row.get(player_id) for player_id in self.lists[segment])
        found[[row for row in held if row is not None]] = True
        return found[self._all_rows if rows is None else rows]

    def within(self, name: str, spans: Spans) -> Mask:
        """Return, of all players, where a feature is in `spans`; false where it is missing.

        What everybody without a part in a window has in common is looked at once.
        """
        if name in SCORED:
            values, missing = self.scores_column(name)
            mask = spans.without(missing).hold(values)
            return mask[self._all_rows] if self.dead_rows else mask
        defined = self.features.defined[name]
        match defined.definition:
            case Edge() as edge:
                mask = self._edge_within(edge, spans)
            case Trend(since=since):
                mask = self._made_within(defined, spans, self._windows[since])
            case _:
                window = self._window_of(defined)
                if window is None:
                    mask = _held(spans, *value_of(defined, partial(self._total, self._rows_held)))
                else:
                    mask = self._slots_within(defined, spans, window)
        return mask[self._all_rows] if self.dead_rows else mask

    def values(self, row: int) -> dict[str, int | None]:
        """Return every feature of one player; missing ones are None."""
        index = self.features.index
        totals = {name: window.of_row(row) for name, window in self._windows.items()}
        totals["lifetime"] = self._lifetime.of_row(row)

        def total(measure: str, window: str) -> int:
            return totals[window][index[measure]]

        found: dict[str, int | None] = {}
        for window, names in self.features.plain.items():
            found.update(zip(names, totals[window], strict=True))
        for name, defined in self.features.made.items():
            value, missing = value_of(defined, total)
            found[name] = None if missing else int(value)
        for name, edge in self.features.edges.items():
            found[name] = self._edge_of(edge, row)
        return {name: found[name] for name in self.features.defined}

    # --- by day, over all players ---------------------------------------------------------------

    @property
    def days_held(self) -> range:
        """The local days, as ordinals, of which the ledger holds every cell; the last is today."""
        return days_held(self._day)

    def day_state(self, day: int) -> tuple[int, int]:
        """Return what is another one whenever `day_cells` may be."""
        return self._days.changes(day), self.dead_rows

    def day_cells(self, day: int) -> Cells:
        """Return what the players did on a local day that is held; pairs may repeat."""
        cells = [cells for _, cells in self._days.between(day, day + 1)]
        return self._of_players(joined([_NO_CELLS, *cells]))

    def counted_between(self, first: int, last: int, measure: int) -> tuple[Ints, Ints]:
        """Return (row, day) of what counts once a day, from one day to another, of all time."""
        rows, days = self._once.between(first, last, measure)
        live = self._shard[rows] != _NOBODY
        return rows[live], days[live]

    def _total(self, rows: slice | Ints, measure: str, window: str) -> Ints:
        totals = self._lifetime if window == "lifetime" else self._windows[window]
        return totals.values(self.features.index[measure], rows)

    def _times(self, rows: slice | Ints, edge: Edge) -> Ints:
        return self._side(edge)[0][MOMENT_INDEX[edge.moment], rows]

    @property
    def _rows_held(self) -> slice:
        return slice(0, len(self._ids))

    def _window_of(self, defined: Defined) -> Window | None:
        """Return the window that has all that a feature is made of, if one has."""
        if defined.window != "lifetime":
            return self._windows[defined.window]
        return self._lifetime.rest([self.features.index[name] for name in measures_of(defined)])

    def _slots_within(self, defined: Defined, spans: Spans, window: Window) -> Mask:
        """Look at a window's slots, and once at nothing, which is what all others have there."""
        index = self.features.index
        by_slot = _held(spans, *value_of(defined, lambda name, _: window.by_slot(index[name])))
        nothing, missing = value_of(defined, lambda *_: 0)
        return window.spread(by_slot, not missing and nothing in spans, len(self._ids))

    def _made_within(self, defined: Defined, spans: Spans, longest: Window) -> Mask:
        """Look at the rows of the longest of several windows; without a past there is no trend."""
        rows = longest.active(len(self._ids))
        mask = np.zeros(len(self._ids), np.bool_)
        mask[rows] = _held(spans, *value_of(defined, partial(self._total, rows)))
        return mask

    def _edge_within(self, edge: Edge, spans: Spans) -> Mask:
        """Compare the times themselves: whole days since are a range of times."""
        side, never = self._side(edge)
        times = spans.as_times(self.now_us, DAY_US) if edge.days_since else spans
        return times.without(never).hold(side[MOMENT_INDEX[edge.moment], self._rows_held])

    def _edge_of(self, edge: Edge, row: int) -> int | None:
        side, never = self._side(edge)
        at = int(side[MOMENT_INDEX[edge.moment], row])
        if at == never:
            return None
        return (self.now_us - at) // DAY_US if edge.days_since else at

    def _side(self, edge: Edge) -> tuple[Ints, int]:
        return (self._first if edge.which == "first" else self._last), NEVER[edge.which]

    # --- slices: snapshot, restore, move --------------------------------------------------------

    def export(self, shard: int) -> TableSlice:
        """Return all that `shard` knows, in an order that depends on nothing but its events."""
        ascending = self.rows_of(shard)
        rows = np.array(sorted(ascending.tolist(), key=self._ids.__getitem__), dtype=np.int64)
        place = np.full(len(self._ids), -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        measures = range(len(self.features.measures))
        lifetime = np.stack([self._lifetime.values(measure, rows) for measure in measures])
        return TableSlice(
            measures=self.features.digests,
            player_ids=self.ids_of(rows),
            lifetime=lifetime.tobytes(),
            first=self._first[:, rows].tobytes(),
            last=self._last[:, rows].tobytes(),
            once=self._once.export(ascending, place).tobytes(),
            days=self._days.export(ascending, place).tobytes(),
            hours=self._hours.export(ascending, place).tobytes(),
            ahead=sorted(event for event in self._ahead if event.shard == shard),
        )

    @property
    def nbytes(self) -> int:
        """The bytes of its arrays: all but the players' ids, and how they are found."""
        columns = self._shard.nbytes + self._first.nbytes + self._last.nbytes
        ledgers = self._once.nbytes + self._days.nbytes + self._hours.nbytes
        return columns + ledgers + sum(totals.nbytes for totals in self._all_totals)

    def load(self, shard: int, part: TableSlice) -> None:
        """Add a slice to what is here of its players; it may be of another list of features.

        What it says of measures that are not ours is left out. Of ours that it lacks
        (`features.lacking`) nothing is known then: see `backfill`.
        """
        ours = self.features.places(part.measures)
        kept = np.flatnonzero(ours >= 0)
        players = len(part.player_ids)
        rows = self._rows(part.player_ids, np.full(players, shard))
        self.scores.mark(rows)
        lifetime = _int64(part.lifetime, (len(ours), players))
        measure, player = np.nonzero(lifetime[kept])
        values = lifetime[kept[measure], player]
        self._lifetime.add(Cells(rows[player], ours[kept[measure]], values))
        shape = (len(MOMENTS), players)
        self._first[:, rows] = np.minimum(self._first[:, rows], _int64(part.first, shape))
        self._last[:, rows] = np.maximum(self._last[:, rows], _int64(part.last, shape))
        player, day, measure = _int64(part.once, (3, -1))
        known = ours[measure] >= 0
        self._once.add(rows[player[known]], day[known], ours[measure[known]])
        days, cells = _placed(part.days, rows, ours)
        self._file_days(cells, days)
        hours, cells = _placed(part.hours, rows, ours)
        self._file_hours(cells, hours)
        for event in part.ahead:
            heapq.heappush(self._ahead, event)
        ahead = [to_us(event.occurred_at) - 1 for event in part.ahead]
        now, self.now_us = self.now_us, min([self.now_us, *ahead])
        self.advance(now)

    def drop(self, shards: Iterable[int]) -> None:
        """Forget shards: their rows are dead from now on, and no other row is touched."""
        dropped = set(shards)
        rows = np.flatnonzero(np.isin(self._shard[: len(self._ids)], list(dropped)))
        for row in rows.tolist():
            del self._row[self._ids[row]]
            self._ids[row] = ""
        self._shard[rows] = _NOBODY
        for totals in self._all_totals:
            totals.forget(rows)
        self._ahead = [event for event in self._ahead if event.shard not in dropped]
        heapq.heapify(self._ahead)

    def empty(self) -> FeatureTable:
        """Return a table of the same brand without players."""
        table = FeatureTable(self._zone, self.now_us, self.features, self.scores.serving)
        table.serve(self.scores.wanted)
        table.scores.watched = self.scores.watched
        table.lists, table.watched_days = self.lists, self.watched_days
        return table

    def catch_up(self, other: FeatureTable) -> None:
        """Move the clock to where `other`'s is: only then may a slice of it be loaded."""
        self.advance(other.now_us)
        self._advance_days(max(self._day, other._day))  # its own kind


def _held(spans: Spans, values: Ints, missing: Mask | None) -> Mask:
    mask = spans.hold(values)
    if missing is not None:
        mask &= ~missing
    return mask


def days_held(today: int) -> range:
    """Return the local days of which a table holds every cell; the last is today."""
    return range(today - _LONGEST + 1, today + 1)


def _placed(raw: bytes, rows: Ints, ours: Ints) -> tuple[Ints, Cells]:
    """Return a slice's buckets and its cells, in this table's rows and measures."""
    buckets, players, measures, values = _int64(raw, (4, -1))
    known = ours[measures] >= 0
    return buckets[known], Cells(rows[players], ours[measures], values).take(known)


def _int64(raw: bytes, shape: tuple[int, int]) -> Ints:
    array: Ints = np.frombuffer(raw, dtype=np.int64).reshape(shape)
    return array


def _wider(array: NDArray[_Number], capacity: int, fill: int) -> NDArray[_Number]:
    """Return `array` with its last axis grown to `capacity`."""
    grown = np.zeros((*array.shape[:-1], capacity), dtype=array.dtype)  # costs nothing before use
    if fill:
        grown[..., array.shape[-1] :] = fill
    grown[..., : array.shape[-1]] = array
    return grown
