"""The live features of one brand's players: exact integer columns, right for any order of events.

The truth is what cannot be recomputed (lifetime totals, first and last times) and a ledger of
sparse day and hour buckets; the window columns are a cache over the ledger, rebuilt on load. A
window is a function of the table's own `now`, never of the wall clock. One thread applies and
advances.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
from numpy.typing import NDArray

from crm.domain.events import LoggedEvent
from crm.domain.features import (
    DAYS_OF_WINDOW,
    DIFFERENCES,
    HOURS_OF_24H,
    MEASURE_INDEX,
    MEASURES,
    MOMENTS,
    WINDOWS,
)
from crm.domain.ledger import Cells, Ledger

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
_Number = TypeVar("_Number", np.int16, np.int64)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US
_NEVER_FIRST = np.iinfo(np.int64).max
_NEVER_LAST = np.iinfo(np.int64).min
_FIRST_CAPACITY = 1024
_WINDOW_INDEX = {name: index for index, name in enumerate(WINDOWS)}
_DIFFERENCE = {difference.name: difference for difference in DIFFERENCES}
_MOMENT_INDEX = {moment.name: index for index, moment in enumerate(MOMENTS)}


def to_us(at: datetime) -> int:
    """Return `at` as microseconds since 1970."""
    return (at - _EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    """Return the instant `us` microseconds after 1970."""
    return _EPOCH + us * _MICROSECOND


# A kind is a (type, result) that some measure or moment distinguishes; 0 is every other event.
_KINDS: list[tuple[str, str | None]] = sorted(
    {(m.event_type, m.result) for m in MEASURES}
    | {(t, None) for m in MOMENTS for t in m.event_types if t},
    key=lambda kind: (kind[0], kind[1] or ""),
)
_KIND_INDEX = {kind: index for index, kind in enumerate([("", None), *_KINDS])}


def _kind_of(event: LoggedEvent) -> int:
    found = _KIND_INDEX.get((event.type, event.result))
    return found if found is not None else _KIND_INDEX.get((event.type, None), 0)


def _adds(kind: tuple[str, str | None]) -> list[int]:
    event_type, result = kind
    return [
        index
        for index, measure in enumerate(MEASURES)
        if measure.event_type == event_type and measure.result in {None, result}
    ]


_ADDS = [_adds(kind) for kind in _KIND_INDEX]
_ADD_COUNT = np.array([len(adds) for adds in _ADDS])
_ADD_START = np.concatenate(([0], np.cumsum(_ADD_COUNT)[:-1]))
_ADD_MEASURE = np.array([index for adds in _ADDS for index in adds], dtype=np.int64)
_IS_AMOUNT = np.array([measure.adds == "amount" for measure in MEASURES])
_MOMENT_OF_KIND = np.array(
    [
        [not moment.event_types[0] or kind[0] in moment.event_types for moment in MOMENTS]
        for kind in _KIND_INDEX
    ]
)


@dataclass(frozen=True)
class EventColumns:
    """Events as columns of one length: player ids, and int64 arrays. Times in microseconds."""

    player_ids: Sequence[str]
    shards: Ints
    kinds: Ints
    amounts: Ints
    at: Ints
    days: Ints

    @classmethod
    def of(cls, events: Sequence[LoggedEvent]) -> EventColumns:
        """Gather the columns of `events`."""
        return cls(
            [event.player_id for event in events],
            np.array([event.shard for event in events], dtype=np.int64),
            np.array([_kind_of(event) for event in events], dtype=np.int64),
            np.array([event.amount_minor or 0 for event in events], dtype=np.int64),
            np.array([to_us(event.occurred_at) for event in events], dtype=np.int64),
            np.array([event.local_day.toordinal() for event in events], dtype=np.int64),
        )

    def take(self, which: Mask) -> EventColumns:
        """Return the rows where `which` is set."""
        ids = [self.player_ids[i] for i in np.flatnonzero(which).tolist()]
        return EventColumns(
            ids,
            self.shards[which],
            self.kinds[which],
            self.amounts[which],
            self.at[which],
            self.days[which],
        )


class AheadEvent(msgspec.Struct, array_like=True, order=True):
    """An event whose time the table's clock has not reached (clients may be 5 minutes ahead)."""

    at: int
    player_id: str
    shard: int
    kind: int
    amount: int
    day: int


class TableSlice(msgspec.Struct):
    """All that one virtual shard knows of one brand, for a snapshot; arrays are raw int64."""

    measures: list[str]
    moments: list[str]
    player_ids: list[str]
    lifetime: bytes  # (measures, players)
    first: bytes  # (moments, players), microseconds
    last: bytes
    days: bytes  # (4, cells): bucket, player, measure, value
    hours: bytes
    ahead: list[AheadEvent]


class FeatureTable:
    """Features of a brand's players that one owner holds; rows are players, of several shards."""

    def __init__(self, zone: ZoneInfo, now_us: int) -> None:
        self._zone = zone
        self._ids: list[str] = []
        self._row: dict[str, int] = {}
        self._ahead: list[AheadEvent] = []
        self._days = Ledger()
        self._hours = Ledger()
        self._shard = np.zeros(0, dtype=np.int16)
        self._totals = np.zeros((len(WINDOWS), len(MEASURES), 0), dtype=np.int64)
        self._first = np.zeros((len(MOMENTS), 0), dtype=np.int64)
        self._last = np.zeros((len(MOMENTS), 0), dtype=np.int64)
        self._grow(_FIRST_CAPACITY)
        self.now_us = now_us
        self._hour = now_us // _HOUR_US
        self._day = self._local_day(now_us)

    def __len__(self) -> int:
        return len(self._ids)

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
        for index in range(len(MOMENTS)):
            of_moment = _MOMENT_OF_KIND[events.kinds, index]
            np.minimum.at(self._first[index], rows[of_moment], events.at[of_moment])
            np.maximum.at(self._last[index], rows[of_moment], events.at[of_moment])
        cells = _cells(rows, events)
        if len(cells.rows):
            self._add("lifetime", cells)
            self._file(cells, events)

    def advance(self, now_us: int) -> None:
        """Move the clock on, never back: buckets leave their windows, waiting events come in."""
        if now_us <= self.now_us:
            return
        self.now_us = now_us
        self._advance_hours(now_us // _HOUR_US)
        self._advance_days(max(self._day, self._local_day(now_us)))
        due = []
        while self._ahead and self._ahead[0].at <= now_us:
            due.append(heapq.heappop(self._ahead))
        if due:
            self.apply(_columns_of(due))

    def _advance_hours(self, hour: int) -> None:
        if hour == self._hour:
            return
        for leaving in self._hours.pop_until(hour - HOURS_OF_24H):
            self._add("24h", leaving, sign=-1)
        self._hour = hour

    def _advance_days(self, day: int) -> None:
        if day == self._day:
            return
        for window, length in DAYS_OF_WINDOW.items():
            for leaving in self._days.between(self._day - length + 1, day - length + 1):
                self._add(window, leaving, sign=-1)
        self._days.pop_until(day - max(DAYS_OF_WINDOW.values()))
        self._day = day

    def _file(self, cells: Cells, events: EventColumns) -> None:
        """Put cells into their buckets, and into every window that holds the bucket."""
        counts = _ADD_COUNT[events.kinds]
        days = np.repeat(events.days, counts)
        hours = np.repeat(events.at // _HOUR_US, counts)
        for window, length in DAYS_OF_WINDOW.items():
            self._add(window, cells.take(days > self._day - length))
        in_24h = hours > self._hour - HOURS_OF_24H
        self._add("24h", cells.take(in_24h))
        self._hours.add(hours[in_24h], cells.take(in_24h))
        in_days = days > self._day - max(DAYS_OF_WINDOW.values())
        self._days.add(days[in_days], cells.take(in_days))

    def _add(self, window: str, cells: Cells, sign: int = 1) -> None:
        totals = self._totals[_WINDOW_INDEX[window]]
        at = cells.measures * totals.shape[1] + cells.rows
        np.add.at(totals.reshape(-1), at, cells.values if sign == 1 else -cells.values)

    def _wait(self, events: EventColumns) -> None:
        for i, player_id in enumerate(events.player_ids):
            numbers = (
                events.at[i],
                events.shards[i],
                events.kinds[i],
                events.amounts[i],
                events.days[i],
            )
            at, shard, kind, amount, day = (int(number) for number in numbers)
            heapq.heappush(self._ahead, AheadEvent(at, player_id, shard, kind, amount, day))

    def _local_day(self, at_us: int) -> int:
        return from_us(at_us).astimezone(self._zone).toordinal()

    # --- rows -----------------------------------------------------------------------------------

    def _rows(self, player_ids: Sequence[str], shards: Ints) -> Ints:
        """Return the row of each player, making rows for new ones."""
        known = self._row
        rows = [known.get(player_id, -1) for player_id in player_ids]
        if -1 in rows:
            for i, player_id in enumerate(player_ids):
                if rows[i] < 0:
                    rows[i] = self._row_of_new(player_id, int(shards[i]))
        return np.array(rows, dtype=np.int64)

    def _row_of_new(self, player_id: str, shard: int) -> int:
        row = self._row.get(player_id)
        if row is not None:
            return row
        row = len(self._ids)
        if row == len(self._shard):
            self._grow(2 * row)
        self._ids.append(player_id)
        self._row[player_id] = row
        self._shard[row] = shard
        return row

    def _grow(self, capacity: int) -> None:
        self._shard = _wider(self._shard, capacity, -1)
        self._totals = _wider(self._totals, capacity, 0)
        self._first = _wider(self._first, capacity, _NEVER_FIRST)
        self._last = _wider(self._last, capacity, _NEVER_LAST)

    # --- reading --------------------------------------------------------------------------------

    @property
    def player_ids(self) -> Sequence[str]:
        """Players by row."""
        return self._ids

    def row(self, player_id: str) -> int | None:
        """Return the row of a player, or None."""
        return self._row.get(player_id)

    def shards(self) -> NDArray[np.int16]:
        """Return the virtual shard of each row."""
        return self._shard[: len(self._ids)]

    def column(self, name: str) -> tuple[Ints, Mask | None]:
        """Return the values of a feature by row, and where they are missing (None: nowhere)."""
        return self.feature(name, slice(0, len(self._ids)))

    def feature(self, name: str, rows: slice) -> tuple[Ints, Mask | None]:
        """Return a feature for some rows; raises KeyError for a name that is not in the list."""
        base, _, window = name.rpartition("_")
        if window in _WINDOW_INDEX:
            return self._total(base, window, rows), None
        if window == "at":
            edge, _, moment = base.partition("_")
            times = (self._first if edge == "first" else self._last)[_MOMENT_INDEX[moment], rows]
            return times, times == (_NEVER_FIRST if edge == "first" else _NEVER_LAST)
        if name == "days_since_registration":
            return self._days_since(self._first[_MOMENT_INDEX["registration"], rows], _NEVER_FIRST)
        return self._days_since(
            self._last[_MOMENT_INDEX[name.removeprefix("days_since_last_")], rows], _NEVER_LAST
        )

    def _total(self, base: str, window: str, rows: slice) -> Ints:
        totals = self._totals[_WINDOW_INDEX[window]]
        difference = _DIFFERENCE.get(base)
        if difference is None:
            measure: Ints = totals[MEASURE_INDEX[base], rows]
            return measure
        value: Ints = totals[MEASURE_INDEX[difference.plus], rows].copy()
        for minus in difference.minus:
            value -= totals[MEASURE_INDEX[minus], rows]
        return value

    def _days_since(self, times: Ints, never: int) -> tuple[Ints, Mask]:
        missing = times == never
        return np.where(missing, 0, (self.now_us - np.where(missing, 0, times)) // _DAY_US), missing

    # --- slices: snapshot, restore, move --------------------------------------------------------

    def export(self, shard: int) -> TableSlice:
        """Return all that `shard` knows, in an order that depends on nothing but its events."""
        of_shard = np.flatnonzero(self.shards() == shard)
        rows = np.array(sorted(of_shard.tolist(), key=self._ids.__getitem__), dtype=np.int64)
        place = np.full(len(self._ids), -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        return TableSlice(
            measures=[measure.name for measure in MEASURES],
            moments=[moment.name for moment in MOMENTS],
            player_ids=[self._ids[row] for row in rows],
            lifetime=self._totals[_WINDOW_INDEX["lifetime"]][:, rows].tobytes(),
            first=self._first[:, rows].tobytes(),
            last=self._last[:, rows].tobytes(),
            days=self._days.export(place).tobytes(),
            hours=self._hours.export(place).tobytes(),
            ahead=sorted(event for event in self._ahead if event.shard == shard),
        )

    def load(self, shard: int, part: TableSlice) -> None:
        """Take in a slice of players not here yet; measures that it lacks start at 0."""
        players = len(part.player_ids)
        rows = self._rows(part.player_ids, np.full(players, shard))
        into = np.array([MEASURE_INDEX[name] for name in part.measures], dtype=np.int64)
        lifetime = self._totals[_WINDOW_INDEX["lifetime"]]
        lifetime[into[:, None], rows] = _int64(part.lifetime, (len(into), players))
        moments = np.array([_MOMENT_INDEX[name] for name in part.moments], dtype=np.int64)
        self._first[moments[:, None], rows] = _int64(part.first, (len(moments), players))
        self._last[moments[:, None], rows] = _int64(part.last, (len(moments), players))
        self._load_days(*_placed(part.days, rows, into))
        self._load_hours(*_placed(part.hours, rows, into))
        for event in part.ahead:
            heapq.heappush(self._ahead, event)
        now, self.now_us = self.now_us, min([self.now_us, *(event.at - 1 for event in part.ahead)])
        self.advance(now)

    def _load_days(self, days: Ints, cells: Cells) -> None:
        for window, length in DAYS_OF_WINDOW.items():
            self._add(window, cells.take(days > self._day - length))
        kept = days > self._day - max(DAYS_OF_WINDOW.values())
        self._days.add(days[kept], cells.take(kept))

    def _load_hours(self, hours: Ints, cells: Cells) -> None:
        kept = hours > self._hour - HOURS_OF_24H
        self._add("24h", cells.take(kept))
        self._hours.add(hours[kept], cells.take(kept))

    def without(self, shards: Iterable[int]) -> FeatureTable:
        """Return a table of all players but those of `shards`."""
        rest = FeatureTable(self._zone, self.now_us)
        rest._day = self._day  # its own kind
        held = {*np.unique(self.shards()).tolist(), *(event.shard for event in self._ahead)}
        for shard in sorted(held.difference(shards)):
            rest.load(shard, self.export(shard))
        return rest


def _cells(rows: Ints, events: EventColumns) -> Cells:
    """Return what the events add: one cell per event and measure, in event order."""
    counts = _ADD_COUNT[events.kinds]
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    measures = _ADD_MEASURE[np.repeat(_ADD_START[events.kinds], counts) + offsets]
    values = np.where(_IS_AMOUNT[measures], np.repeat(events.amounts, counts), 1)
    return Cells(np.repeat(rows, counts), measures, values)


def _columns_of(events: Sequence[AheadEvent]) -> EventColumns:
    def column(name: str) -> Ints:
        return np.array([getattr(event, name) for event in events], dtype=np.int64)

    ids = [event.player_id for event in events]
    return EventColumns(
        ids, column("shard"), column("kind"), column("amount"), column("at"), column("day")
    )


def _placed(raw: bytes, rows: Ints, measures: Ints) -> tuple[Ints, Cells]:
    """Return a slice's buckets and its cells, in this table's rows and measures."""
    buckets, players, measure, values = _int64(raw, (4, -1))
    return buckets, Cells(rows[players], measures[measure], values)


def _int64(raw: bytes, shape: tuple[int, int]) -> Ints:
    array: Ints = np.frombuffer(raw, dtype=np.int64).reshape(shape)
    return array


def _wider(array: NDArray[_Number], capacity: int, fill: int) -> NDArray[_Number]:
    """Return `array` with its last axis grown to `capacity`."""
    grown = np.full((*array.shape[:-1], capacity), fill, dtype=array.dtype)
    grown[..., : array.shape[-1]] = array
    return grown
