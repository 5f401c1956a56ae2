"""The ledger: what players did, in sparse buckets of a day or an hour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_MEASURE_BITS = 8  # a measure's number has room in a byte
_COMPACT_AT = 4096
_TAIL = 8  # an export looks through a tail of up to an eighth of what is in order


@dataclass(frozen=True)
class Cells:
    """Amounts by (player row, measure): three int64 arrays of one length; pairs may repeat."""

    rows: Ints
    measures: Ints
    values: Ints

    def take(self, which: NDArray[np.bool_]) -> Cells:
        """Return the cells where `which` is set."""
        return Cells(self.rows[which], self.measures[which], self.values[which])

    def at(self, places: Ints) -> Cells:
        """Return the cells in these places."""
        return Cells(self.rows[places], self.measures[places], self.values[places])

    def summed(self) -> Cells:
        """Return one cell a pair, by row and then measure."""
        if not len(self.rows):
            return self
        keys = (self.rows << _MEASURE_BITS) | self.measures
        order = np.argsort(keys, kind="stable")  # half the time of a lexsort, less if in order
        starts = starts_of_runs(keys[order])
        first = self.at(order[starts])
        return Cells(first.rows, first.measures, np.add.reduceat(self.values[order], starts))


class _Bucket:
    """Cells by row, each row named once, and a tail of what came since."""

    def __init__(self) -> None:
        self._rows = np.zeros(0, dtype=np.int32)  # ascending
        self._starts = np.zeros(1, dtype=np.int32)  # of each row's cells, and where the last end
        self._measures = np.zeros(0, dtype=np.uint8)
        self._values: NDArray[np.int32] | Ints = np.zeros(0, dtype=np.int32)
        self._tail: list[Cells] = []
        self._tail_size = 0
        self.changes = 0  # how often something was added: what was read of it then still holds

    def add(self, cells: Cells) -> None:
        """Append cells; a tail as long as what is in order is put in order too."""
        self.changes += 1
        self._tail.append(cells)
        self._tail_size += len(cells.rows)
        if self._tail_size > max(_COMPACT_AT, len(self._values)):
            self._put_in_order()

    def cells(self) -> Cells:
        """Return all cells; pairs may repeat."""
        return joined([self._ordered(np.arange(len(self._rows))), *self._tail])

    def of(self, rows: Ints, place: Ints) -> Cells:
        """Return the cells of some rows (ascending), which have a `place` >= 0; pairs may repeat.

        So long as the tail is short, the time is that of the rows asked for, not of the bucket's.
        """
        wanted = rows.astype(np.int32)  # of another type the whole bucket would be copied
        at = np.searchsorted(self._rows, wanted)
        here = at < len(self._rows)
        here[here] = self._rows[at[here]] == wanted[here]
        tail = [cells.take(place[cells.rows] >= 0) for cells in self._tail]
        return joined([self._ordered(at[here]), *tail])

    def totals(self, measure: int, into: Ints) -> None:
        """Add what each row has of a measure to `into`, which is by row."""
        which = np.flatnonzero(self._measures == measure)
        at = np.searchsorted(self._starts, which, side="right") - 1
        into[self._rows[at]] += self._values[which]  # a row has a measure once
        for cells in self._tail:
            mine = cells.measures == measure
            np.add.at(into, cells.rows[mine], cells.values[mine])

    def totals_of(self, measure: int, rows: Ints) -> Ints:
        """Return the totals of some rows, in the time of these rows while the tail is short."""
        found = np.zeros(len(rows), dtype=np.int64)
        if len(self._rows):
            wanted = rows.astype(np.int32)  # of another type the whole bucket would be copied
            at = np.minimum(np.searchsorted(self._rows, wanted), len(self._rows) - 1)
            here = np.flatnonzero(self._rows[at] == wanted)
            starts, ends = self._starts[at[here]], self._starts[at[here] + 1]
            which = ranges(starts.astype(np.int64), ends.astype(np.int64))
            mine = self._measures[which] == measure
            place = np.repeat(here, ends - starts)[mine]
            found[place] = self._values[which[mine]]
        for cells in self._tail:
            mine = cells.measures == measure
            mine[mine] = np.isin(cells.rows[mine], rows)
            if mine.any():
                order = np.argsort(rows, kind="stable")
                place = order[np.searchsorted(rows, cells.rows[mine], sorter=order)]
                np.add.at(found, place, cells.values[mine])
        return found

    @property
    def tail_size(self) -> int:
        """How many cells are not in order."""
        return self._tail_size

    def shorten_tail(self) -> None:
        """Put the tail in order if it is long."""
        if self._tail_size > max(_COMPACT_AT, len(self._values) // _TAIL):
            self._put_in_order()

    @property
    def nbytes(self) -> int:
        """The bytes of its arrays."""
        rows = self._rows.nbytes + self._starts.nbytes
        return rows + self._measures.nbytes + self._values.nbytes + 3 * 8 * self._tail_size

    def _put_in_order(self) -> None:
        cells = self.cells().summed()
        starts = starts_of_runs(cells.rows)
        self._rows = cells.rows[starts].astype(np.int32)
        self._starts = np.append(starts, len(cells.rows)).astype(np.int32)
        self._measures = cells.measures.astype(np.uint8)
        self._values = _narrow(cells.values)
        self._tail, self._tail_size = [], 0

    def _ordered(self, at: Ints) -> Cells:
        """Return the cells of the rows in these places."""
        starts, ends = self._starts[at].astype(np.int64), self._starts[at + 1].astype(np.int64)
        which = ranges(starts, ends)
        return Cells(
            np.repeat(self._rows[at], ends - starts).astype(np.int64),
            self._measures[which].astype(np.int64),
            self._values[which].astype(np.int64),
        )


def _narrow(values: Ints) -> NDArray[np.int32] | Ints:
    """Return the values in half the bytes, if each of them has room there."""
    if len(values) and not -(2**31) <= values.min() <= values.max() < 2**31:
        return values
    return values.astype(np.int32)


def starts_of_runs(ordered: Ints) -> Ints:
    """Return where each value of an ordered array begins."""
    return np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))


def ranges(starts: Ints, ends: Ints) -> Ints:
    """Return the numbers of all ranges, one after the other."""
    lengths = ends - starts
    offsets = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    found: Ints = np.repeat(starts, lengths) + offsets
    return found


def joined(parts: list[Cells]) -> Cells:
    """Return the cells of all parts, one after the other."""
    if len(parts) == 1:
        return parts[0]
    columns = zip(*[(part.rows, part.measures, part.values) for part in parts], strict=True)
    return Cells(*[np.concatenate(arrays) for arrays in columns])


def joined_ints(parts: Sequence[Ints]) -> Ints:
    """Return all parts, one after the other."""
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


class Ledger:
    """Buckets by their number: days as ordinals, hours as hours since 1970."""

    def __init__(self) -> None:
        self._buckets: dict[int, _Bucket] = {}

    def add(self, buckets: Ints, cells: Cells) -> None:
        """File each cell in its bucket; arrays of one length."""
        if not len(buckets):
            return
        first = int(buckets[0])
        if (buckets == first).all():
            self._bucket(first).add(cells)
            return
        order = np.argsort(buckets, kind="stable")  # a snapshot's are in order: found at once
        for places in np.split(order, starts_of_runs(buckets[order])[1:]):
            self._bucket(int(buckets[places[0]])).add(cells.at(places))

    def _bucket(self, number: int) -> _Bucket:
        if number not in self._buckets:
            self._buckets[number] = _Bucket()
        return self._buckets[number]

    def changes(self, number: int) -> int:
        """Return how often something was added to a bucket."""
        return self._buckets[number].changes if number in self._buckets else 0

    def between(self, start: int, end: int) -> Iterator[tuple[int, Cells]]:
        """Yield the buckets from `start` to before `end`, each with its number."""
        for number in sorted(self._buckets):
            if start <= number < end:
                yield number, self._buckets[number].cells()

    def totals(self, measure: int, start: int, end: int, rows: int) -> Ints:
        """Return a measure's totals over the buckets from `start` to before `end`, by row."""
        found = np.zeros(rows, dtype=np.int64)
        for bucket in self._within(start, end):
            bucket.totals(measure, found)
        return found

    def totals_of(self, measure: int, start: int, end: int, rows: Ints) -> Ints:
        """Return the same for some rows, each at most once."""
        found = np.zeros(len(rows), dtype=np.int64)
        for bucket in self._within(start, end):
            found += bucket.totals_of(measure, rows)
        return found

    def _within(self, start: int, end: int) -> list[_Bucket]:
        return [bucket for number, bucket in self._buckets.items() if start <= number < end]

    def pop_until(self, last: int) -> list[tuple[int, Cells]]:
        """Remove and return the buckets up to and with `last`, each with its number."""
        leaving = sorted(number for number in self._buckets if number <= last)
        return [(number, self._buckets.pop(number).cells()) for number in leaving]

    def export(self, rows: Ints, place: Ints) -> Ints:
        """Return (bucket, place, measure, value), summed, of some rows (ascending).

        `place` is by row, and at least 0 for these rows alone. Puts one bucket in order at most, so
        that no single export takes long.
        """
        if self._buckets:
            max(self._buckets.values(), key=lambda bucket: bucket.tail_size).shorten_tail()
        parts = [np.zeros((4, 0), dtype=np.int64)]
        for number in sorted(self._buckets):
            kept = self._buckets[number].of(rows, place)
            kept = Cells(place[kept.rows], kept.measures, kept.values).summed()
            parts.append(
                np.stack((np.full(len(kept.rows), number), kept.rows, kept.measures, kept.values))
            )
        return np.concatenate(parts, axis=1)

    @property
    def nbytes(self) -> int:
        """The bytes of its buckets' arrays."""
        return sum(bucket.nbytes for bucket in self._buckets.values())
