"""Who is in which saved segment, and who enters and leaves: at an event, or by the clock.

A bit a player and segment, as of the table's clock. Pure: whoever holds it writes the transitions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache, cached_property
from typing import NamedTuple, TypeAlias

import msgspec
import numpy as np

from crm.domain.brands import Brand
from crm.domain.column_source import Column, ColumnSource, Mask
from crm.domain.deadlines import Deadlines
from crm.domain.event_columns import EventColumns
from crm.domain.events import LoggedEvent
from crm.domain.feature_table import FeatureTable
from crm.domain.ledger import Ints, joined_ints
from crm.domain.rule_clock import asks_scores, thresholds, windows
from crm.domain.rule_matrix import RuleMatrix
from crm.domain.rules import Rule
from crm.domain.times import from_us

_HOUR_US = 3_600_000_000
_AT_ONCE = 16_384  # rows: what many rules make of more no longer fits a cache, nor one day memory
_Place: TypeAlias = int | slice
# An event that comes so late changes who is in, and triggers nothing (design.md 4).
TOO_LATE = timedelta(hours=72)


class WatchedSegment(msgspec.Struct, frozen=True):
    """A version of a saved segment; its rule refers to no other segment.

    `lists` are the lists that it asks, with their versions.
    """

    id: str
    version: int
    rule: Rule
    lists: tuple[tuple[str, int], ...] = ()


class Watched:
    """What is live, by brand, and the players of the lists that its rules name."""

    def __init__(
        self,
        segments: Mapping[str, Sequence[WatchedSegment]] | None = None,
        lists: Mapping[str, Mapping[str, Collection[str]]] | None = None,
    ) -> None:
        self.segments = segments or {}
        self.lists = lists or {}

    def __bool__(self) -> bool:
        return any(self.segments.values())

    @cached_property
    def asking(self) -> frozenset[str]:
        """The brands of which what models say can move somebody."""
        return frozenset(
            brand
            for brand, some in self.segments.items()
            if any(asks_scores(one.rule) for one in some)
        )


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
        self.table = table
        self._rows = rows

    @property
    def now_us(self) -> int:
        return self.table.now_us

    @property
    def today(self) -> int:
        return self.table.today

    def column(self, name: str) -> Column:
        return self.table.column(name, self._rows)

    def over(self, name: str, first: int, last: int) -> Column:
        return self.table.over(name, first, last, self._rows)

    def texts(self, name: str) -> tuple[Sequence[str], Mask | None]:
        return self.table.texts(name, self._rows)

    def on_list(self, segment: str) -> Mask:
        return self.table.on_list(segment, self._rows)


class _ReadOnce:
    """A source of which each column is read once for all segments."""

    def __init__(self, source: ColumnSource) -> None:
        self.now_us, self.today = source.now_us, source.today
        self.column = cache(source.column)
        self.over = cache(source.over)
        self.texts = cache(source.texts)
        self.on_list = cache(source.on_list)


class Caused(NamedTuple):
    """What events will cause, and who will be in then: a row a segment, a column a player."""

    transitions: list[Transition]
    segments: Sequence[WatchedSegment]
    player_ids: list[str]
    members: Mask
    now_us: int
    today: int


class Membership:
    """The members of a brand's live segments among the players of one table.

    `use` says which segments are live; who is found in then, has not entered. After that all that
    happens to the table must be told, in its order: `caused_by` before events are applied and
    `settle` after; `moved` whenever the clock has moved, and before events.
    """

    def __init__(self, brand: Brand, table: FeatureTable) -> None:
        self._brand = brand
        self.table = table
        self._segments: list[WatchedSegment] = []
        self._rules = RuleMatrix([], brand)
        self._in = np.zeros((0, table.capacity), dtype=bool)  # by segment and row of the table
        self._deadlines: dict[str, Deadlines] = {}  # by the first or last time that they count from

    # --- which segments are live ----------------------------------------------------------------

    def use(self, segments: Iterable[WatchedSegment]) -> None:
        """Have just these segments live; the members of new versions are in from the beginning."""
        wanted, rows = list(segments), self.table.living_rows()
        self._fit()
        known = {segment: place for place, segment in enumerate(self._segments)}
        members = np.zeros((len(wanted), self.table.capacity), dtype=bool)
        new = [place for place, segment in enumerate(wanted) if segment not in known]
        self._put_in(members, new, [wanted[place].rule for place in new], rows)
        for place, segment in enumerate(wanted):
            if segment in known:
                members[place] = self._in[known[segment]]
        self._segments, self._in = wanted, members
        self._rules = RuleMatrix([segment.rule for segment in wanted], self._brand)
        self.table.moved = (self.table.moved or []) if wanted else None
        self.table.scores.watched = any(asks_scores(segment.rule) for segment in wanted)
        self._watch_clock(rows)

    def take_scores(self) -> None:
        """Go over to the models to come; whoever is in or out by their scores was so all along."""
        self.table.scores.take_over()
        places = [n for n, segment in enumerate(self._segments) if asks_scores(segment.rule)]
        self._fit()
        rules = [self._segments[place].rule for place in places]
        self._put_in(self._in, places, rules, self.table.living_rows())

    def _watch_clock(self, rows: Ints) -> None:
        days: dict[str, set[int]] = {}
        self.table.watched_days = set()
        for segment in self._segments:
            self.table.watched_days |= windows(segment.rule, self._brand)
            for name, day in thresholds(segment.rule, self._brand):
                days.setdefault(name, set()).add(day)
        self._deadlines = {
            name: Deadlines(sorted(found), self.table.capacity) for name, found in days.items()
        }
        self._put(rows)

    # --- what changes who is in -----------------------------------------------------------------

    def caused_by(self, events: Sequence[LoggedEvent], seqs: Sequence[int]) -> Caused:
        """Return what events will cause that are about to be applied; nothing changes yet.

        Each player's must stand in their order. Those ahead of the clock cause something later.
        """
        now_us, today = self.table.now_us, self.table.today
        now = from_us(now_us)
        here = [place for place, event in enumerate(events) if event.occurred_at <= now]
        if not here or not self._segments:
            return Caused([], [], [], self._in[:0, :0], now_us, today)
        some = [events[place] for place in here]
        places, staged = self.table.stage(EventColumns.of(some, self.table.features))
        ordered = [(some[place], seqs[here[place]]) for place in places.order.tolist()]
        after = self._rules.masks(_ReadOnce(staged), len(ordered))
        first = places.rank == 0
        before = np.roll(after, 1, axis=1)  # where the player was after the event before
        before[:, first] = self._are_in(places.rows[first])
        told = ~np.array([_is_silent(event) for event, _ in ordered])
        transitions = [
            self._transition(self._segments[n], event.shard, event.player_id,
                             bool(after[n, place]), seq, event.occurred_at)
            for n, place in np.argwhere((after != before) & told).tolist()
            for event, seq in [ordered[place]]
        ]  # fmt: skip
        last = np.flatnonzero(np.roll(first, -1))  # before another player's first
        players = [ordered[place][0].player_id for place in last.tolist()]
        return Caused(transitions, self._segments, players, after[:, last], now_us, today)

    def settle(self, caused: Caused, events: Sequence[LoggedEvent]) -> None:
        """Take in what events have caused, now that they are applied.

        Where the clock has gone on meanwhile, and that may matter, it looks at them again.
        """
        self._fit()
        rows = self._rows_of(caused.player_ids)
        for place, segment in self._still_live(caused.segments):
            self._in[segment, rows[rows >= 0]] = caused.members[place, rows >= 0]
        touched = self._living(event.player_id for event in events)
        self._put(touched, caused.now_us)
        self.table.scores.expect(touched, caused.now_us, self.table)
        now_us, then = self.table.now_us, from_us(caused.now_us)
        if (now_us // _HOUR_US, self.table.today) != (caused.now_us // _HOUR_US, caused.today):
            self._look_again(touched)
        elif due := [event.player_id for event in events if event.occurred_at > then]:
            self._look_again(self._living(due))

    def _still_live(self, segments: Sequence[WatchedSegment]) -> list[tuple[_Place, _Place]]:
        """Return (place there, place here) of what is live as it was then; all at once if so."""
        if segments is self._segments:
            return [(slice(None), slice(None))]
        here = {segment: place for place, segment in enumerate(self._segments)}
        return [(place, here[one]) for place, one in enumerate(segments) if one in here]

    def moved(self) -> list[Transition]:
        """Return what the clock has caused since it was asked last, and take it in."""
        if not self._segments:
            return []
        rows, at = self._due()
        if not len(rows):
            return []
        self._fit()
        after = self._masks(self._rules, rows)
        shards, ids = self.table.shard_of(rows).tolist(), self.table.ids_of(rows)
        found = [
            self._transition(self._segments[n], shards[place], ids[place], bool(after[n, place]),
                             None, from_us(int(at[place])))
            for n, place in np.argwhere(after != self._in[:, rows]).tolist()
        ]  # fmt: skip
        self._in[:, rows] = after
        self._put(rows)
        return found

    def _masks(self, rules: RuleMatrix, rows: Ints) -> Mask:
        """Return by rule and row where it holds."""
        parts = np.array_split(rows, max(1, -(-len(rows) // _AT_ONCE)))
        sources = ((_ReadOnce(_Rows(self.table, part)), len(part)) for part in parts)
        return np.concatenate([rules.masks(*source) for source in sources], axis=1)

    def _put_in(
        self, members: Mask, places: Sequence[int], rules: Sequence[Rule], rows: Ints
    ) -> None:
        """Have some rows in the segments at some places where their rules hold."""
        if places:
            held = self._masks(RuleMatrix(rules, self._brand), rows)
            members[np.array(places)[:, None], rows] = held

    def _due(self) -> tuple[Ints, Ints]:
        """Return the rows that the clock may have changed, once each, and their last boundaries."""
        self.table.age_scores()
        now_us, parts = self.table.now_us, self.table.moved or []
        self.table.moved = []
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
        kept = last & self.table.lives(all_rows)
        return all_rows[kept], all_at[kept]

    def _put(self, rows: Ints, after_us: int | None = None) -> None:
        """Have rows in the wheels where their next deadlines are, after now or a moment before."""
        after_us = self.table.now_us if after_us is None else after_us
        for name, deadlines in self._deadlines.items():
            deadlines.put(after_us, rows, self._times(name, rows))

    def _look_again(self, rows: Ints) -> None:
        if self.table.moved is not None:
            self.table.moved.append((rows, self.table.now_us))

    def _times(self, name: str, rows: Ints) -> Ints:
        return self.table.times(rows, self.table.features.edges[name])

    def _fit(self) -> None:
        rows = self.table.capacity
        if self._in.shape[1] < rows:
            more = np.zeros((len(self._segments), rows - self._in.shape[1]), dtype=bool)
            self._in = np.concatenate((self._in, more), axis=1)
        for deadlines in self._deadlines.values():
            deadlines.fit(rows)

    # --- tables and shards come and go -----------------------------------------------------------

    def over(self, table: FeatureTable) -> Membership:
        """Return the same membership over a table that has the same players in other rows."""
        new = Membership(self._brand, table)
        new.use(self._segments)
        new.take(table.living_rows(), self)
        return new

    def take(self, rows: Ints, other: Membership) -> None:
        """Have players who have come with their rows in where they were; the clock looks again."""
        self._fit()
        theirs = other._are_in(other._rows_of(self.table.ids_of(rows)))  # its own kind
        known = {segment: place for place, segment in enumerate(other._segments)}
        new = [place for place, segment in enumerate(self._segments) if segment not in known]
        self._put_in(self._in, new, [self._segments[place].rule for place in new], rows)
        for place, segment in enumerate(self._segments):
            if segment in known:
                self._in[place, rows] = theirs[known[segment]]
        self._put(rows)
        self._look_again(rows)

    # --- reading --------------------------------------------------------------------------------

    def members(self) -> Mapping[str, set[str]]:
        """Return the players of each live segment."""
        rows = self.table.living_rows()
        return {
            segment.id: set(self.table.ids_of(rows[self._in[place, rows]]))
            for place, segment in enumerate(self._segments)
        }

    def _are_in(self, rows: Ints) -> Mask:
        """Return by segment and row who is in; nobody of rows below 0."""
        found: Mask = self._in[:, np.maximum(rows, 0)] & (rows >= 0)
        return found

    def _living(self, player_ids: Iterable[str]) -> Ints:
        """Return the rows of those of some players who have one, each once."""
        rows = self._rows_of(sorted(set(player_ids)))
        return rows[rows >= 0]

    def _rows_of(self, player_ids: Iterable[str]) -> Ints:
        """Return the rows of players; -1 of those who have none."""
        rows = [self.table.row(player) for player in player_ids]
        return np.array([-1 if row is None else row for row in rows], dtype=np.int64)

    def _transition(
        self,
        segment: WatchedSegment,
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
