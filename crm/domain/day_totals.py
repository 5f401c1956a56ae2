"""What all players of a table did, day by day: from the same buckets as the windows.

Players are counted as bits by row, so that one who was active on several days of a week is one.
Tables of several owners hold different players: their totals add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
from numpy.typing import NDArray

from crm.domain.errors import InvalidRange
from crm.domain.feature_table import FeatureTable
from crm.domain.ledger import Ints
from crm.domain.local_days import start_us

Bits = NDArray[np.uint8]

CHURN_DAYS = 30
ACTIVE = "active_days"  # each cell of it is a player's first act of the day
SUMMED = (
    "deposit_count", "deposit_amount", "withdrawal_count", "withdrawal_amount", "bet_count",
    "stake_amount", "payout_amount", "bonus_amount",
)  # fmt: skip


class Days(NamedTuple):
    """Local days from `first` to `last`, as ordinals."""

    first: int
    last: int

    @property
    def end(self) -> int:
        """The day after the last."""
        return self.last + 1

    @property
    def days(self) -> range:
        """Each of them."""
        return range(self.first, self.end)


class DayTotals(msgspec.Struct, frozen=True):
    """Sums over all players: lists by day, and `active` by span (players of it, each once).

    Amounts are in minor units. `new` had their first act on the day. `churned` had acted
    CHURN_DAYS days before it, and not since.
    """

    sums: Mapping[str, Sequence[int]]
    new: Sequence[int]
    churned: Sequence[int]
    active: Sequence[int]


class _Day(NamedTuple):
    state: tuple[int, int]
    sums: Ints  # by measure
    active: Bits  # by row


class TableDays:
    """Reads one table's days; what has not changed since is not read again."""

    def __init__(self) -> None:
        self._known: dict[int, _Day] = {}

    def read(self, table: FeatureTable, day: int) -> bool:
        """Look at a day that the table holds; return whether anything had to be read."""
        state = table.day_state(day)
        known = self._known.get(day)
        if known is not None and known.state == state:
            return False
        cells = table.day_cells(day)
        sums = np.zeros(len(table.features.measures), dtype=np.int64)
        np.add.at(sums, cells.measures, cells.values)
        active = cells.rows[cells.measures == table.features.index[ACTIVE]]
        self._known[day] = _Day(state, sums, _bits(active))
        return True

    def totals(
        self, table: FeatureTable, zone: ZoneInfo, asked: Days, spans: Iterable[Days]
    ) -> DayTotals:
        """Return the totals of the days `asked`, and who was active in `spans` within them.

        Raises InvalidRange for days that the table does not hold.
        """
        held = table.days_held
        check(asked, held)
        self._known = {day: known for day, known in self._known.items() if day in held}
        before = Days(asked.first - CHURN_DAYS, asked.last)
        for day in before.days:
            if day in held:
                self.read(table, day)
        days, active = [self._known[day] for day in asked.days], self._active(table, before)
        index = table.features.index
        return DayTotals(
            sums={name: [int(day.sums[index[name]]) for day in days] for name in SUMMED},
            new=_new(table, zone, asked),
            churned=[_churned(active, day) for day in asked.days],
            active=[_count(_union(active[day] for day in span.days)) for span in spans],
        )

    def _active(self, table: FeatureTable, span: Days) -> dict[int, Bits]:
        """Return who was active by day; older days than the ledger's are in the set of days."""
        found = {day: known.active for day, known in self._known.items() if day in span.days}
        held = table.days_held
        if span.first < held.start:
            last = min(span.last, held.start - 1)
            rows, days = table.counted_between(span.first, last, table.features.index[ACTIVE])
            found |= {day: _bits(rows[days == day]) for day in range(span.first, last + 1)}
        return found


def joined(parts: Sequence[DayTotals]) -> DayTotals:
    """Return the totals of all tables together."""
    return DayTotals(
        sums={name: _sum([part.sums[name] for part in parts]) for name in SUMMED},
        new=_sum([part.new for part in parts]),
        churned=_sum([part.churned for part in parts]),
        active=_sum([part.active for part in parts]),
    )


def _sum(parts: Sequence[Sequence[int]]) -> list[int]:
    return [sum(values) for values in zip(*parts, strict=True)]


def check(asked: Days, held: range) -> None:
    """Raise InvalidRange if not all days that are asked for are held."""
    first, today = (date.fromordinal(day) for day in (held.start, held.stop - 1))
    if asked.last < asked.first:
        raise InvalidRange("from: the range ends before it begins")
    if asked.last >= held.stop:
        raise InvalidRange(f"to: not after today, {today}")
    if asked.first < held.start:
        raise InvalidRange(
            f"from: not before {first}: live numbers cover {len(held)} days; those of older days"
            " are in the lake"
        )


def _new(table: FeatureTable, zone: ZoneInfo, asked: Days) -> list[int]:
    """Return by day how many players had their first act."""
    edges = np.array([start_us(day, zone) for day in range(asked.first, asked.last + 2)])
    times, missing = table.column("first_activity_at")
    inside = (times >= edges[0]) & (times < edges[-1])
    if missing is not None:
        inside &= ~missing
    place = np.searchsorted(edges, times[inside], side="right") - 1
    return [int(n) for n in np.bincount(place, minlength=len(edges) - 1)]


def _churned(active: Mapping[int, Bits], day: int) -> int:
    gone = active[day - CHURN_DAYS]
    since = _union(active[later] for later in range(day - CHURN_DAYS + 1, day + 1))
    return _count(gone) - _count(gone[: len(since)] & since[: len(gone)])


def _bits(rows: Ints) -> Bits:
    """Return a bit for each row, 1 for those named."""
    flags = np.zeros(int(rows.max()) + 1 if len(rows) else 0, dtype=np.bool_)
    flags[rows] = True
    return np.packbits(flags)


def _union(parts: Iterable[Bits]) -> Bits:
    of_all = list(parts)
    found = np.zeros(max(map(len, of_all), default=0), dtype=np.uint8)
    for part in of_all:
        found[: len(part)] |= part
    return found


def _count(bits: Bits) -> int:
    return int(np.bitwise_count(bits).sum(dtype=np.int64))
