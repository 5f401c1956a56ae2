"""The ledger: what players did, in sparse buckets of a day or an hour."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_COMPACT_AT = 4096


@dataclass(frozen=True)
class Cells:
    """Amounts by (player row, measure): three int64 arrays of one length; pairs may repeat."""

    rows: Ints
    measures: Ints
    values: Ints

    def take(self, which: NDArray[np.bool_]) -> Cells:
        """Return the cells where `which` is set."""
        return Cells(self.rows[which], self.measures[which], self.values[which])

    def summed(self) -> Cells:
        """Return one cell a pair, by row and then measure."""
        order = np.lexsort((self.measures, self.rows))
        rows, measures, values = self.rows[order], self.measures[order], self.values[order]
        if not len(rows):
            return self
        new = np.concatenate(([True], (rows[1:] != rows[:-1]) | (measures[1:] != measures[:-1])))
        return Cells(rows[new], measures[new], np.add.reduceat(values, np.flatnonzero(new)))


class _Bucket:
    """Cells that grow by appending, and are summed whenever they have doubled."""

    def __init__(self) -> None:
        self._parts: list[Cells] = []
        self._size = 0
        self._compact_at = _COMPACT_AT

    def add(self, cells: Cells) -> None:
        self._parts.append(cells)
        self._size += len(cells.rows)
        if self._size >= self._compact_at:
            self._compact_at = max(_COMPACT_AT, 2 * len(self.cells().summed().rows))
            self._parts = [self.cells().summed()]
            self._size = len(self._parts[0].rows)

    def cells(self) -> Cells:
        if len(self._parts) > 1:
            joined = [
                np.concatenate(arrays) for arrays in zip(*map(_arrays, self._parts), strict=True)
            ]
            self._parts = [Cells(*joined)]
        return self._parts[0]


def _arrays(cells: Cells) -> tuple[Ints, Ints, Ints]:
    return cells.rows, cells.measures, cells.values


class Ledger:
    """Buckets by their number: days as ordinals, hours as hours since 1970."""

    def __init__(self) -> None:
        self._buckets: dict[int, _Bucket] = {}

    def add(self, buckets: Ints, cells: Cells) -> None:
        """File each cell in its bucket; arrays of one length."""
        for number in np.unique(buckets):
            self._buckets.setdefault(int(number), _Bucket()).add(cells.take(buckets == number))

    def between(self, start: int, end: int) -> Iterator[Cells]:
        """Yield the buckets from `start` to before `end`."""
        for number in sorted(self._buckets):
            if start <= number < end:
                yield self._buckets[number].cells()

    def pop_until(self, last: int) -> list[Cells]:
        """Remove and return the buckets up to and with `last`."""
        leaving = [number for number in self._buckets if number <= last]
        return [self._buckets.pop(number).cells() for number in leaving]

    def export(self, place: Ints) -> Ints:
        """Return (bucket, place, measure, value), summed, of the rows with a `place` >= 0."""
        parts = [np.zeros((4, 0), dtype=np.int64)]
        for number in sorted(self._buckets):
            cells = self._buckets[number].cells()
            kept = cells.take(place[cells.rows] >= 0)
            kept = Cells(place[kept.rows], kept.measures, kept.values).summed()
            parts.append(
                np.stack((np.full(len(kept.rows), number), kept.rows, kept.measures, kept.values))
            )
        return np.concatenate(parts, axis=1)
