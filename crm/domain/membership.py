"""Who is in which saved segment, and who enters and leaves: at an event, or by the clock.

A bit a player and segment, as of the table's clock. Pure: whoever holds it writes the transitions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import NamedTuple

import msgspec
import numpy as np

from crm.domain.brands import Brand
from crm.domain.column_source import Column, ColumnSource, Mask
from crm.domain.deadlines import Deadlines
from crm.domain.event_columns import EventColumns
from crm.domain.events import LoggedEvent
from crm.domain.feature_table import FeatureTable
from crm.domain.ledger import Ints, joined_ints
from crm.domain.rule_clock import thresholds, windows
from crm.domain.segments import Rule, compile_mask
from crm.domain.times import from_us

# An event that comes so late changes who is in, and triggers nothing (design.md 4).
TOO_LATE = timedelta(hours=72)


class LiveSegment(msgspec.Struct, frozen=True):
    """A version of a saved segment; its rule refers to no other segment."""

    id: str
    version: int
    rule: Rule


class Transition(NamedTuple):
    """One player enters or leaves a segment: at the event `seq`, or (None) at a clock boundary."""

    shard: int
    brand: str
    segment: str
    version: int
    player_id: str
    entered: bool
    seq: int | None
    at: datetime


class _Rows:
    """Some rows of a table as a source of columns; each row once."""

    def __init__(self, table: FeatureTable, rows: Ints) -> None:
        self._table = table
        self._rows = rows

    @property
    def now_us(self) -> int:
        return self._table.now_us

    @property
    def today(self) -> int:
        return self._table.today

    def column(self, name: str) -> Column:
        return self._table.column(name, self._rows)

    def over(self, name: str, first: int, last: int) -> Column:
        return self._table.over(name, first, last, self._rows)

    def texts(self, name: str) -> tuple[Sequence[str], Mask | None]:
        return self._table.texts(name, self._rows)

    def on_list(self, segment: str) -> Mask:
        return self._table.on_list(segment, self._rows)


class _ReadOnce:
    """A source of which each column is read once for all segments."""

    def __init__(self, source: ColumnSource) -> None:
        self.now_us, self.today = source.now_us, source.today
        self.column = cache(source.column)
        self.over = cache(source.over)
        self.texts = cache(source.texts)
        self.on_list = cache(source.on_list)


class Caused(NamedTuple):
    """What events will cause, and who will be a member then: of each player, once."""

    transitions: list[Transition]
    player_ids: list[str]
    members: Mapping[str, Mask]  # by segment, over `player_ids`
    now_us: int


class Membership:
    """The members of a brand's live segments among the players of one table.

    `use` says which segments are live; who is found in then, has not entered. After that all that
    happens to the table must be told, in its order: `caused_by` before events are applied and
    `settle` after; `moved` whenever the clock has moved, and before events.
    """

    def __init__(self, brand: Brand, table: FeatureTable) -> None:
        self._brand = brand
        self._table = table
        self._segments: dict[str, LiveSegment] = {}
        self._members: dict[str, Mask] = {}  # by segment and row
        self._deadlines: dict[str, Deadlines] = {}  # by the feature that counts days since
        table.moved = []

    # --- which segments are live ----------------------------------------------------------------

    def use(self, segments: Iterable[LiveSegment]) -> None:
        """Have just these segments live; the members of new versions are in from the beginning."""
        wanted = {segment.id: segment for segment in segments}
        rows = self._table.living_rows()
        columns = _ReadOnce(_Rows(self._table, rows))
        for gone in self._segments.keys() - wanted.keys():
            del self._members[gone]
        for id_, segment in wanted.items():
            if self._segments.get(id_) != segment:
                members = np.zeros(self._table.capacity, dtype=bool)
                members[rows] = compile_mask(segment.rule, self._brand, columns, len(rows))
                self._members[id_] = members
        self._segments = wanted
        self._watch_clock(rows)

    def _watch_clock(self, rows: Ints) -> None:
        days: dict[str, set[int]] = {}
        self._table.watched_days = set()
        for segment in self._segments.values():
            self._table.watched_days |= windows(segment.rule, self._brand)
            for name, day in thresholds(segment.rule, self._brand):
                days.setdefault(name, set()).add(day)
        self._deadlines = {
            name: Deadlines(sorted(found), self._table.capacity) for name, found in days.items()
        }
        self._put(rows)

    # --- what changes who is in -----------------------------------------------------------------

    def caused_by(self, events: Sequence[LoggedEvent], seqs: Sequence[int]) -> Caused:
        """Return what events will cause that are about to be applied; nothing changes yet.

        Each player's must stand in their order. Those ahead of the clock cause something later.
        """
        now_us = self._table.now_us
        now = from_us(now_us)
        here = [place for place, event in enumerate(events) if event.occurred_at <= now]
        if not here or not self._segments:
            return Caused([], [], {}, now_us)
        some = [events[place] for place in here]
        places, staged = self._table.stage(EventColumns.of(some, self._table.features))
        ordered = [(some[place], seqs[here[place]]) for place in places.order.tolist()]
        told = ~np.array([_is_silent(event) for event, _ in ordered])
        last = np.roll(places.rank == 0, -1)  # before another player's first
        columns, transitions = _ReadOnce(staged), list[Transition]()
        members: dict[str, Mask] = {}
        for segment in self._segments.values():
            after = compile_mask(segment.rule, self._brand, columns, len(ordered))
            before = np.roll(after, 1)
            before[places.rank == 0] = self._is_member(segment, places.rows[places.rank == 0])
            members[segment.id] = after[last]
            for place in np.flatnonzero((after != before) & told).tolist():
                event, seq = ordered[place]
                transitions.append(
                    self._transition(segment, event.shard, event.player_id, bool(after[place]), seq,
                                     event.occurred_at)
                )  # fmt: skip
        players = [ordered[place][0].player_id for place in np.flatnonzero(last).tolist()]
        return Caused(transitions, players, members, now_us)

    def settle(self, caused: Caused, player_ids: Iterable[str]) -> None:
        """Take in what events of these players have caused, now that they are applied."""
        self._fit()
        rows = self._rows_of(caused.player_ids)
        for id_, members in caused.members.items():
            if id_ in self._members:
                self._members[id_][rows[rows >= 0]] = members[rows >= 0]
        rows = self._rows_of(sorted(set(player_ids)))
        rows = rows[rows >= 0]
        self._put(rows)
        if self._table.now_us != caused.now_us and self._table.moved is not None:
            # the clock went on meanwhile, and met them as they were before: it looks again
            self._table.moved.append((rows, self._table.now_us))

    def moved(self) -> list[Transition]:
        """Return what the clock has caused since it was asked last, and take it in."""
        rows, at = self._due()
        if not len(rows) or not self._segments:
            return []
        self._fit()
        columns, found = _ReadOnce(_Rows(self._table, rows)), list[Transition]()
        shards, ids = self._table.shard_of(rows).tolist(), self._table.ids_of(rows)
        for segment in self._segments.values():
            after = compile_mask(segment.rule, self._brand, columns, len(rows))
            members = self._members[segment.id]
            for place in np.flatnonzero(after != members[rows]).tolist():
                found.append(
                    self._transition(segment, shards[place], ids[place], bool(after[place]), None,
                                     from_us(int(at[place])))
                )  # fmt: skip
            members[rows] = after
        self._put(rows)
        return found

    def _due(self) -> tuple[Ints, Ints]:
        """Return the rows that the clock may have changed, once each, and their last boundaries."""
        now_us, parts = self._table.now_us, self._table.moved or []
        self._table.moved = []
        rows = [rows for rows, _ in parts]
        at = [np.full(len(rows), at_us) for rows, at_us in parts]
        for name, deadlines in self._deadlines.items():
            popped = deadlines.pop(now_us)
            times = self._times(name, popped)
            rows.append(popped)
            at.append(deadlines.last_until(now_us, times))
        all_rows, all_at = joined_ints(rows), joined_ints(at)
        order = np.lexsort((all_at, all_rows))
        all_rows, all_at = all_rows[order], all_at[order]
        last = np.ones(len(all_rows), dtype=bool)
        last[:-1] = all_rows[1:] != all_rows[:-1]
        kept = last & self._table.lives(all_rows)
        return all_rows[kept], all_at[kept]

    def _put(self, rows: Ints) -> None:
        """Have rows in the wheels where their next deadlines are."""
        for name, deadlines in self._deadlines.items():
            deadlines.put(self._table.now_us, rows, self._times(name, rows))

    def _times(self, name: str, rows: Ints) -> Ints:
        return self._table.times(rows, self._table.features.edges[name])

    def _fit(self) -> None:
        rows = self._table.capacity
        for id_, members in self._members.items():
            if len(members) < rows:
                self._members[id_] = np.concatenate((members, np.zeros(rows - len(members), bool)))
        for deadlines in self._deadlines.values():
            deadlines.fit(rows)

    # --- reading --------------------------------------------------------------------------------

    def members(self) -> Mapping[str, set[str]]:
        """Return the players of each live segment."""
        rows = self._table.living_rows()
        return {
            id_: set(self._table.ids_of(rows[members[rows]]))
            for id_, members in self._members.items()
        }

    def _is_member(self, segment: LiveSegment, rows: Ints) -> Mask:
        return (rows >= 0) & self._members[segment.id][np.maximum(rows, 0)]

    def _rows_of(self, player_ids: Iterable[str]) -> Ints:
        """Return the rows of players; -1 of those who have none."""
        rows = [self._table.row(player) for player in player_ids]
        return np.array([-1 if row is None else row for row in rows], dtype=np.int64)

    def _transition(
        self,
        segment: LiveSegment,
        shard: int,
        player_id: str,
        entered: bool,
        seq: int | None,
        at: datetime,
    ) -> Transition:
        return Transition(
            shard, self._brand.id, segment.id, segment.version, player_id, entered, seq, at
        )


def _is_silent(event: LoggedEvent) -> bool:
    """Whether an event triggers nothing: it tells of the past."""
    return event.backfill or event.received_at - event.occurred_at > TOO_LATE
