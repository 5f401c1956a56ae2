"""What the serving models say of a table's players: columns that are right whenever they are read.

A change to a player marks the row; a row that is marked is scored before anybody reads it. Whoever
has time renews marked rows in slices, so that readers find few.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from crm.domain.clustering import PlayerClusters, placed
from crm.domain.column_source import CodedTexts, Column, Mask
from crm.domain.deadlines import EveryDay
from crm.domain.feature_list import FeatureList
from crm.domain.features import SHARE_DECIMALS, Edge, Trend
from crm.domain.ledger import Ints, joined_ints
from crm.domain.models import ModelKind, ScoreModel
from crm.domain.predictions import BrandModels
from crm.domain.score_columns import CLUSTER, PROBABILITY, RANK, VALUE
from crm.domain.scores import ranks_of, values_of

Floats = NDArray[np.float64]
ReadColumn = Callable[[str], Column]
TellFailure = Callable[[ModelKind, str | None, Exception], None]  # of a model, by its id

_PLACE = {CLUSTER: 0, PROBABILITY: 1, RANK: 2, VALUE: 3}
_MISSING = np.iinfo(np.int64).min
_LARGEST = 1e15  # minor units: a larger value says nothing more
_TREND = "7d"
_NEARLY = 1e-4  # a half, but for what a double rounds


def _tell_nobody(_kind: ModelKind, _model: str | None, _error: Exception) -> None:
    """Nobody asks which models fail."""


class ServingScores:
    """What a brand's serving models say of players: a row of integers for each column."""

    def __init__(self, models: BrandModels, tell: TellFailure = _tell_nobody) -> None:
        self.models = models
        self._tell = tell
        self._failed: set[ModelKind] = set()  # of which it was told
        value = models.value
        # what counts days is no money
        self._value = value if value and value.model.in_money else None

    def __bool__(self) -> bool:
        return bool(self.models.features)

    @cached_property
    def ranks(self) -> tuple[str, ...]:
        """The names of the ranks of churn, ascending."""
        churn = self.models.churn
        return tuple(rank.name for rank in churn.model.ranks) if churn else ()

    def windows(self, features: FeatureList) -> set[str]:
        """Return the windows that are read: one that moves, moves the scores of who is in it."""
        found = set()
        for name in self.models.features:
            defined = features.defined[name]
            if isinstance(defined.definition, Trend):
                found |= {_TREND, defined.definition.since}
            elif defined.window:
                found.add(defined.window)
        return found

    def edges(self, features: FeatureList) -> dict[str, Edge]:
        """Return the first and last times, by name, since which the models count whole days."""
        edges = [features.edges[name] for name in self.models.features if name in features.edges]
        return {f"{edge.which}_{edge.moment}_at": edge for edge in edges if edge.days_since}

    def of(self, read: ReadColumn, players: int) -> Ints:
        """Return the scores of so many players; `read` gives their features.

        Of a model that fails, they are missing: it is told once.
        """
        found = np.full((len(_PLACE), players), _MISSING, dtype=np.int64)
        if not players:
            return found
        column = cache(read)

        def values(model: PlayerClusters | ScoreModel) -> Floats:
            columns = {name: column(name) for name in model.features}
            raw = {name: of for name, (of, _) in columns.items()}
            return values_of(model, raw, {name: of for name, (_, of) in columns.items()})

        if (model := self.models.clusters) is not None:
            with self._told("clusters"):
                found[_PLACE[CLUSTER]] = placed(model, values(model))
        if (churn := self.models.churn) is not None:
            with self._told("churn"):
                scores = churn.scores(values(churn.model))
                places = ranks_of(churn.model.ranks, scores)
                ranks = np.where(places < 0, _MISSING, places)
                both = _rounded(scores, SHARE_DECIMALS), ranks
                found[[_PLACE[PROBABILITY], _PLACE[RANK]]] = both
        if (value := self._value) is not None:
            with self._told("value"):
                scores = value.scores(values(value.model))
                found[_PLACE[VALUE]] = _rounded(scores, value.model.currency.decimals)
        return found

    @contextmanager
    def _told(self, kind: ModelKind) -> Iterator[None]:
        """Tell that a model fails, the first time, and go on: an owner does not end by it."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a model is foreign code
            if kind not in self._failed:
                self._failed.add(kind)
                self._tell(kind, self.models.ids.get(kind), error)

    def texts(self, codes: Ints) -> tuple[CodedTexts, Mask]:
        """Return ranks as texts, and where there is none."""
        missing = codes == _MISSING
        return CodedTexts((*self.ranks, ""), np.where(missing, len(self.ranks), codes)), missing


NO_SCORES = ServingScores(BrandModels())


def _rounded(scores: Floats, decimals: int) -> Ints:
    """Return scores with so many decimals, as integers, rounded as Python's `round` does."""
    known = ~np.isnan(scores)
    scaled = np.clip(np.where(known, scores, 0) * 10.0**decimals, -_LARGEST, _LARGEST)
    whole = np.rint(scaled).astype(np.int64)
    for place in np.flatnonzero(np.abs(np.abs(scaled - whole) - 0.5) < _NEARLY):
        whole[place] = round(round(float(scores[place]), decimals) * 10.0**decimals)
    return np.where(known, whole, _MISSING)


class Scored(Protocol):
    """The table whose players are scored."""

    features: FeatureList
    now_us: int

    def column(self, name: str, rows: Ints) -> Column:
        """Return a feature of some rows."""

    def times(self, rows: Ints, edge: Edge) -> Ints:
        """Return first or last times of some rows."""

    def lives(self, rows: Ints) -> Mask:
        """Return which rows are some player's."""


class _Scores:
    """The columns of one set of models."""

    def __init__(self, serving: ServingScores, features: FeatureList, rows: int) -> None:
        self.serving = serving
        self.windows = serving.windows(features)
        self.waiting = 0  # rows that are marked
        self._edges = serving.edges(features)
        self._days = {name: EveryDay(rows) for name in self._edges}
        self._values = np.full((len(_PLACE), rows if serving else 0), _MISSING, dtype=np.int64)
        self._marked = np.zeros(rows, dtype=np.bool_)
        self._queue: deque[Ints] = deque()

    def fit(self, rows: int) -> None:
        """Make room for so many rows."""
        if not self.serving:
            return
        wider = np.full((len(_PLACE), rows), _MISSING, dtype=np.int64)
        wider[:, : self._values.shape[1]] = self._values
        self._values = wider
        self._marked = np.concatenate((self._marked, np.zeros(rows - len(self._marked), np.bool_)))
        for days in self._days.values():
            days.fit(rows)

    def mark(self, rows: Ints) -> None:
        """Have rows scored anew before they are read."""
        if self.serving:
            new = np.unique(rows[~self._marked[rows]])
            self._marked[new] = True
            self._queue.append(new)
            self.waiting += len(new)

    def age(self, table: Scored) -> tuple[Ints, Ints]:
        """Mark the rows of which one more whole day has passed; return them, and when it had."""
        found, at = [], []
        for name, days in self._days.items():
            rows = days.pop(table.now_us)
            if len(rows):
                found.append(rows)
                at.append(days.last_until(table.now_us, table.times(rows, self._edges[name])))
                self.mark(rows)
        return joined_ints(found), joined_ints(at)

    def expect(self, rows: Ints, after_us: int, table: Scored) -> None:
        """Know when the next whole day of some rows will have passed."""
        for name, days in self._days.items():
            days.put(after_us, rows, table.times(rows, self._edges[name]))

    def renew(self, table: Scored, most: int) -> None:
        """Score so many of the marked rows."""
        taken: list[Ints] = []
        while self._queue and most > 0:
            rows = self._queue.popleft()
            if len(rows) > most:
                self._queue.appendleft(rows[most:])
                rows = rows[:most]
            taken.append(rows)
            most -= len(rows)
        rows = joined_ints(taken)
        try:
            self.fresh(table, rows)
        except Exception:
            self._queue.appendleft(rows)  # they are marked still
            raise

    def fresh(self, table: Scored, rows: Ints) -> None:
        """Score those of some rows (each once) that are marked."""
        late = np.unique(rows[self._marked[rows]]) if self.waiting else rows[:0]
        if not len(late):
            return
        rows = late[table.lives(late)]
        self._values[:, rows] = self.serving.of(lambda name: table.column(name, rows), len(rows))
        self.expect(rows, table.now_us, table)
        self._marked[late] = False  # not before: else what an error left would look right
        self.waiting -= len(late)

    def marked(self, rows: slice) -> Ints:
        """Return the rows that are marked."""
        return np.flatnonzero(self._marked[rows])

    def values(self, name: str, rows: slice | Ints) -> Ints:
        """Return a column of some rows."""
        if not self.serving:
            count = rows.stop if isinstance(rows, slice) else len(rows)
            return np.full(count, _MISSING, dtype=np.int64)
        found: Ints = self._values[_PLACE[name], rows]
        return found


class LiveScores:
    """The scores of one table's players, and those of models that are about to take their place.

    Until the models to come have scored all players, the former ones are read, whole: and where
    there were none, all is missing.
    """

    def __init__(
        self, features: FeatureList, rows: int, serving: ServingScores = NO_SCORES
    ) -> None:
        self._features = features
        self._rows = rows
        self._now = _Scores(serving, features, rows)
        self._next: _Scores | None = None
        self.watched = False  # whether a live segment asks for scores

    @property
    def serving(self) -> ServingScores:
        """The models whose scores are read."""
        return self._now.serving

    @property
    def wanted(self) -> ServingScores:
        """The models whose scores will be read."""
        return (self._next or self._now).serving

    @property
    def waiting(self) -> int:
        """How many scores are yet to be made."""
        return self._now.waiting + (self._next.waiting if self._next else 0)

    @property
    def late(self) -> int:
        """How many scores must be made before all can be read."""
        return self._now.waiting

    def serve(self, serving: ServingScores, rows: Ints) -> None:
        """Have other models serve, once they have scored `rows`, which are all players'."""
        if serving is self._now.serving:
            self._next = None
        elif serving is not self.wanted:
            self._next = _Scores(serving, self._features, self._rows)
            self._next.mark(rows)

    def ready(self, few: int) -> bool:
        """Whether models can take their place, with at most so many players to be scored."""
        return self._next is not None and self._next.waiting <= few

    def take_over(self) -> None:
        """Read the scores of the models to come from now on."""
        if self._next is not None:
            self._now, self._next = self._next, None

    # --- what happens to the players ------------------------------------------------------------

    def fit(self, rows: int) -> None:
        """Make room for so many rows."""
        self._rows = rows
        for scores in self._both:
            scores.fit(rows)

    def mark(self, rows: Ints, window: str | None = None) -> None:
        """Take in that rows have changed; with a `window`, by this alone."""
        for scores in self._both:
            if window is None or window in scores.windows:
                scores.mark(rows)

    def age(self, table: Scored) -> tuple[Ints, Ints]:
        """Take in that the clock has moved; return whose whole days have, and when."""
        if self._next is not None:
            self._next.age(table)
        return self._now.age(table)

    def expect(self, rows: Ints, after_us: int, table: Scored) -> None:
        """Look at rows when their next whole day after a moment has passed."""
        if self.watched:
            self._now.expect(rows, after_us, table)

    def renew(self, table: Scored, most: int) -> None:
        """Score so many players: first what readers wait for."""
        scores = self._now if self._now.waiting or self._next is None else self._next
        scores.renew(table, most)

    # --- reading --------------------------------------------------------------------------------

    def column(self, name: str, rows: slice | Ints, table: Scored) -> Column:
        """Return a column of some rows (each once), and where it is missing."""
        values = self._fresh(name, rows, table)
        missing = values == _MISSING
        return np.where(missing, 0, values), missing

    def raw(self, name: str, rows: slice | Ints, table: Scored) -> tuple[Ints, int]:
        """Return a column of some rows, and what stands where it is missing."""
        return self._fresh(name, rows, table), _MISSING

    def texts(self, rows: slice | Ints, table: Scored) -> tuple[CodedTexts, Mask]:
        """Return the ranks of some rows, and where there is none."""
        return self.serving.texts(self._fresh(RANK, rows, table))

    def _fresh(self, name: str, rows: slice | Ints, table: Scored) -> Ints:
        late = self._now.marked(rows) if isinstance(rows, slice) else rows
        self._now.fresh(table, late)
        return self._now.values(name, rows)

    @property
    def _both(self) -> list[_Scores]:
        return [self._now] if self._next is None else [self._now, self._next]


def staged_column(scores: Ints, name: str) -> Column:
    """Return one column of what ServingScores.of gave."""
    values = scores[_PLACE[name]]
    missing = values == _MISSING
    return np.where(missing, 0, values), missing


def staged_texts(serving: ServingScores, scores: Ints) -> tuple[CodedTexts, Mask]:
    """Return the ranks of what ServingScores.of gave."""
    return serving.texts(scores[_PLACE[RANK]])
