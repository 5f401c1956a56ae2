"""What players would be after each of some events, which nothing has been told of yet.

One row an event, each player's in their order: a rule that is read over these rows says at which
event its answer changes. The table stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from crm.domain.column_source import CodedTexts
from crm.domain.errors import InvalidRule
from crm.domain.event_columns import OF_MOMENT, EventColumns
from crm.domain.feature_list import FeatureList
from crm.domain.feature_values import column_of, value_of
from crm.domain.features import MOMENT_INDEX, Edge
from crm.domain.ledger import Cells, Ints, starts_of_runs
from crm.domain.live_scores import LiveScores, staged_column, staged_texts
from crm.domain.score_columns import RANK, SCORED

Mask = NDArray[np.bool_]
_NONE = np.zeros(0, dtype=np.int64)


class Before(Protocol):
    """What is known of players before the events: of rows below 0, nothing."""

    features: FeatureList
    now_us: int
    scores: LiveScores

    @property
    def lists(self) -> Mapping[str, Collection[str]]:
        """The players of static segments, by segment."""

    @property
    def today(self) -> int:
        """The ordinal of the brand's local day."""

    def totals(self, rows: Ints, measure: str, window: str) -> Ints:
        """Return new totals of some rows."""

    def totals_over(self, rows: Ints, measure: str, first: int, last: int) -> Ints:
        """Return new totals of some rows over local days."""

    def times(self, rows: Ints, edge: Edge) -> Ints:
        """Return new first or last times of some rows."""


class Places:
    """Events by player: `order` puts each player's side by side, in the order in which they came.

    All arrays have one entry an event, in that order. `players` are rows of the table, and numbers
    below 0 for who has none; `rows` is -1 for these.
    """

    def __init__(self, known: Mapping[str, int], player_ids: Sequence[str]) -> None:
        new: dict[str, int] = {}
        numbers = [
            known[player] if player in known else new.setdefault(player, -1 - len(new))
            for player in player_ids
        ]
        players = np.array(numbers, dtype=np.int64)
        self.order = np.argsort(players, kind="stable")
        self.players = players[self.order]
        self.rows = np.maximum(self.players, -1)
        starts = starts_of_runs(self.players)
        sizes = np.diff(np.append(starts, len(players)))
        self.start = np.repeat(starts, sizes)
        self.rank = np.arange(len(players)) - self.start

    def summed(self, added: Ints) -> Ints:
        """Return each player's running sum."""
        sums = np.cumsum(added)
        found: Ints = sums - (sums - added)[self.start]
        return found

    def running(self, better: Callable[[Ints, Ints], Ints], values: Ints) -> Ints:
        """Return each player's running minimum or maximum, in steps that double."""
        values, step = values.copy(), 1
        while step <= int(self.rank.max(initial=0)):
            later = np.flatnonzero(self.rank >= step)
            values[later] = better(values[later], values[later - step])
            step *= 2
        return values


class StagedEvents:
    """Columns over the events, in the order of `places`: their players as they are after each.

    `cells` are what the events add, by place, and `days` theirs; `inside` says of each window which
    cells it holds.
    """

    def __init__(
        self,
        before: Before,
        places: Places,
        events: EventColumns,
        cells: Cells,
        days: Ints,
        inside: Mapping[str, Mask],
    ) -> None:
        self._before = before
        self._places = places
        self._events = events
        self._cells = cells
        self._days = days
        self._inside = inside
        self._of_measure = _split(cells.measures)

    def __len__(self) -> int:
        return len(self._places.rows)

    def column(self, name: str) -> tuple[Ints, Mask | None]:
        """Return the values of a feature, and where they are missing (None: nowhere)."""
        if name in SCORED:
            return staged_column(self._scores, name)
        defined = self._before.features.defined[name]
        return column_of(defined, self._total, self._times, self._before.now_us)

    @property
    def now_us(self) -> int:
        """The table's moment."""
        return self._before.now_us

    @property
    def today(self) -> int:
        """The ordinal of the brand's local day."""
        return self._before.today

    def over(self, name: str, first: int, last: int) -> tuple[Ints, Mask | None]:
        """Return a value over some local days, and where it is missing."""

        def total(measure: str, _: str) -> Ints:
            before = self._before.totals_over(self._places.rows, measure, first, last)
            which = self._cells_of(measure)
            inside = (self._days[which] >= first) & (self._days[which] <= last)
            return before + self._added(which[inside])

        return value_of(self._before.features.windowed[name], total)

    def texts(self, name: str) -> tuple[Sequence[str], None] | tuple[CodedTexts, Mask]:
        """Return a column of text, and where it is missing: player_id, churn_rank."""
        if name == RANK:
            return staged_texts(self._before.scores.serving, self._scores)
        if name != "player_id":
            raise KeyError(name)
        return self._events.player_ids, None

    def on_list(self, segment: str) -> Mask:
        """Return who is on a list; raises InvalidRule for one that is not there."""
        if segment not in self._before.lists:
            raise InvalidRule(f'there is no list "{segment}"')
        held = self._before.lists[segment]
        return np.array([player in held for player in self._events.player_ids], dtype=bool)

    @cached_property
    def _scores(self) -> Ints:
        """What the serving models say of the players after each event."""
        return self._before.scores.serving.of(self.column, len(self))

    def _total(self, measure: str, window: str) -> Ints:
        before = self._before.totals(self._places.rows, measure, window)
        which = self._cells_of(measure)
        if window in self._inside:
            which = which[self._inside[window][which]]
        return before + self._added(which)

    def _cells_of(self, measure: str) -> Ints:
        return self._of_measure.get(self._before.features.index[measure], _NONE)

    def _added(self, which: Ints) -> Ints:
        """Return what some cells add up to until each event."""
        if not len(which):
            return np.zeros(len(self), dtype=np.int64)
        added = np.zeros(len(self), dtype=np.int64)
        np.add.at(added, self._cells.rows[which], self._cells.values[which])
        return self._places.summed(added)

    def _times(self, edge: Edge) -> Ints:
        better = np.minimum if edge.which == "first" else np.maximum
        times = self._before.times(self._places.rows, edge)
        of = OF_MOMENT[MOMENT_INDEX[edge.moment]][self._events.kinds]
        times[of] = better(times[of], self._events.at[of])
        return self._places.running(better, times)


def _split(measures: Ints) -> dict[int, Ints]:
    """Return by measure the places of its cells."""
    if not len(measures):
        return {}
    order = np.argsort(measures, kind="stable")
    parts = np.split(order, starts_of_runs(measures[order])[1:])
    return {int(measures[part[0]]): part for part in parts}
