"""When the clock alone will change what a rule says of a player: a wheel of hours.

"No bet for 7 days" becomes true 7 days after the last bet, to the second. A player stands in the
wheel once, at the next such moment that was known when it was put there; whoever has acted since
is found too early, and is put in again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crm.domain.ledger import Ints, joined_ints

_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US
NEVER = np.iinfo(np.int64).max


class Deadlines:
    """The moments at which so many whole `days` will have passed since a time of each row."""

    def __init__(self, days: Sequence[int], rows: int) -> None:
        self._after = np.array(sorted({day * _DAY_US for day in days if day > 0}), dtype=np.int64)
        self._due = np.full(rows, NEVER, dtype=np.int64)  # where each row stands in the wheel
        self._wheel: dict[int, list[Ints]] = {}

    def fit(self, rows: int) -> None:
        """Make room for so many rows."""
        if rows > len(self._due):
            more = np.full(rows - len(self._due), NEVER, dtype=np.int64)
            self._due = np.concatenate((self._due, more))

    def next_after(self, now_us: int, times: Ints) -> Ints:
        """Return the first deadline after now of each time; NEVER if there is none."""
        known = (times > 0) & (times < NEVER)
        times = np.where(known, times, 0)
        place = np.searchsorted(self._after, now_us - times, side="right")
        coming = known & (place < len(self._after))
        due = np.full(len(times), NEVER, dtype=np.int64)
        due[coming] = times[coming] + self._after[place[coming]]
        return due

    def last_until(self, now_us: int, times: Ints) -> Ints:
        """Return the last deadline until now of each time; now if there was none."""
        times = np.where((times > 0) & (times < NEVER), times, now_us)
        place = np.searchsorted(self._after, now_us - times, side="right") - 1
        return np.where(place < 0, now_us, times + self._after[place])

    def put(self, now_us: int, rows: Ints, times: Ints) -> None:
        """Have rows in the wheel no later than their next deadline; rows once each."""
        due = self.next_after(now_us, times)
        sooner = due < self._due[rows]
        rows, due = rows[sooner], due[sooner]
        self._due[rows] = due
        hours = due // _HOUR_US
        for hour in np.unique(hours).tolist():
            self._wheel.setdefault(hour, []).append(rows[hours == hour])

    def pop(self, until_us: int) -> Ints:
        """Take out who stands in the wheel up to and with `until_us`; rows once each, ascending."""
        found: list[Ints] = []
        last = until_us // _HOUR_US
        for hour in [hour for hour in self._wheel if hour <= last]:
            rows = joined_ints(self._wheel.pop(hour))
            here = self._due[rows] // _HOUR_US == hour  # others stand elsewhere by now
            late = here & (self._due[rows] > until_us)
            if late.any():
                self._wheel[hour] = [rows[late]]
            found.append(rows[here & ~late])
        rows = np.unique(joined_ints(found))
        self._due[rows] = NEVER
        return rows


class EveryDay(Deadlines):
    """The moments at which one more whole day will have passed since a time of each row."""

    def __init__(self, rows: int) -> None:
        super().__init__((), rows)

    def next_after(self, now_us: int, times: Ints) -> Ints:
        """Return when the next day after now is whole; NEVER without a time."""
        known, days = self._passed(now_us, times)
        return np.where(known, np.where(known, times, 0) + (days + 1) * _DAY_US, NEVER)

    def last_until(self, now_us: int, times: Ints) -> Ints:
        """Return when the last day until now was whole; now if none is."""
        known, days = self._passed(now_us, times)
        whole = known & (days > 0)
        return np.where(whole, np.where(whole, times, 0) + days * _DAY_US, now_us)

    def _passed(self, now_us: int, times: Ints) -> tuple[NDArray[np.bool_], Ints]:
        """Return which times there are, and how many whole days have passed since."""
        known = (times > 0) & (times < NEVER)
        return known, np.maximum(now_us - np.where(known, times, now_us), 0) // _DAY_US
