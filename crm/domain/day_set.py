"""Which (player, local day, measure) were there before: what counts once a day counts here."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crm.domain.ledger import Ints, ranges

_DAY_BITS, _MEASURE_BITS = 22, 8  # ordinals up to the year 9999; measures by their index
_RECENT = 32_768  # keys beside the large array: merged into it when there are more


class DaySet:
    """Sorted keys of 8 bytes: one large array, and a small one for what came lately."""

    def __init__(self) -> None:
        self._large = np.zeros(0, dtype=np.int64)
        self._recent = np.zeros(0, dtype=np.int64)

    def add(self, rows: Ints, days: Ints, measures: Ints) -> NDArray[np.bool_]:
        """Add keys; return for each whether it is the first of its kind."""
        fresh, first = self._unknown(_key(rows, days, measures))
        self._recent = np.insert(self._recent, np.searchsorted(self._recent, fresh), fresh)
        if len(self._recent) > max(_RECENT, len(self._large) // 16):
            self._large = np.sort(np.concatenate((self._large, self._recent)), kind="stable")
            self._recent = np.zeros(0, dtype=np.int64)
        return first

    def would_add(self, rows: Ints, days: Ints, measures: Ints) -> NDArray[np.bool_]:
        """Return what `add` would, and add nothing."""
        return self._unknown(_key(rows, days, measures))[1]

    def _unknown(self, keys: Ints) -> tuple[Ints, NDArray[np.bool_]]:
        """Return the keys that are not known, sorted, and which of `keys` is the first of each."""
        unique, at = np.unique(keys, return_index=True)
        new = ~(_within(self._large, unique) | _within(self._recent, unique))
        first = np.zeros(len(keys), dtype=bool)
        first[at[new]] = True
        return unique[new], first

    def between(self, first: int, last: int, measure: int) -> tuple[Ints, Ints]:
        """Return (row, day) of every key of `measure` on the days `first` to `last`.

        Looks at all keys: those of one row lie side by side, not those of one day.
        """
        found = []
        for known in (self._large, self._recent):
            day = (known >> _MEASURE_BITS) & ((1 << _DAY_BITS) - 1)
            within = (day >= first) & (day <= last)
            within &= known & ((1 << _MEASURE_BITS) - 1) == measure
            found.append(known[within])
        rows, days, _ = _parts(np.concatenate(found))
        return rows, days

    def export(self, rows: Ints, place: Ints) -> Ints:
        """Return (place, day, measure), sorted, of some rows (ascending); `place` is by row."""
        found = [_keys_of(known, rows) for known in (self._large, self._recent)]
        row, days, measures = _parts(np.concatenate(found))
        parts = np.stack((place[row], days, measures))
        return parts[:, np.lexsort(parts[::-1])]

    @property
    def nbytes(self) -> int:
        """The bytes of its arrays."""
        return self._large.nbytes + self._recent.nbytes


def _key(rows: Ints, days: Ints, measures: Ints) -> Ints:
    return (rows << (_DAY_BITS + _MEASURE_BITS)) | (days << _MEASURE_BITS) | measures


def _parts(keys: Ints) -> tuple[Ints, Ints, Ints]:
    days = (keys >> _MEASURE_BITS) & ((1 << _DAY_BITS) - 1)
    return keys >> (_DAY_BITS + _MEASURE_BITS), days, keys & ((1 << _MEASURE_BITS) - 1)


def _keys_of(known: Ints, rows: Ints) -> Ints:
    """Return the keys of some rows: in the order of keys, each row's lie side by side."""
    shift = _DAY_BITS + _MEASURE_BITS
    starts = np.searchsorted(known, rows << shift)
    ends = np.searchsorted(known, (rows + 1) << shift)
    return known[ranges(starts, ends)]


def _within(known: Ints, keys: Ints) -> NDArray[np.bool_]:
    if not len(known):
        return np.zeros(len(keys), dtype=bool)
    at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    found: NDArray[np.bool_] = known[at] == keys
    return found
