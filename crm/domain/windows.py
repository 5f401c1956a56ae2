"""Running totals of one window, kept only for the players who did something in it.

Most players did nothing in the last day, or week, and many have never done anything but register:
columns for all of them would be mostly zeros. A player without a column has 0 everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crm.domain.features import Measure
from crm.domain.ledger import Cells, Ints

_BLOCK_BITS = 8
_BLOCK = 1 << _BLOCK_BITS  # slots: a window grows by whole blocks, so nothing that it has moves
_GROWTH = 16  # by a sixteenth of its blocks: the room is made by remapping, not by copying
_EVERYBODY = "player.registered"
_IDLE = 4  # room is given back when no more than a quarter of it is used
# Measure 0 counts every event, so that a player's column is free again once it is back at 0.
EVENTS = 0


class Window:
    """Totals by measure and slot; `measures` says which of all measures are kept."""

    def __init__(self, measures: Sequence[int], total: int) -> None:
        self._place = np.full(total, -1, dtype=np.int64)  # of a measure, among those kept
        self._place[np.array(measures)] = np.arange(len(measures))
        self._all = len(measures) == total
        self._slot = np.zeros(0, dtype=np.int32)  # of a row; -1: nothing in this window
        self._totals = np.zeros((1, len(measures), _BLOCK), dtype=np.int64)
        self._free = list(range(_BLOCK - 1, -1, -1))

    def fit(self, rows: int) -> None:
        """Make room for `rows` players."""
        wider = np.full(rows, -1, dtype=np.int32)
        wider[: len(self._slot)] = self._slot
        self._slot = wider

    def add(self, cells: Cells) -> None:
        """Count cells that come into the window."""
        if not self._all:
            cells = cells.take(self._place[cells.measures] >= 0)
        new = cells.rows[self._slot[cells.rows] < 0]
        if len(new):
            self._give_slots(self._each_once(new))
        np.add.at(self._totals.reshape(-1), self._at(cells), cells.values)

    def take_away(self, cells: Cells) -> None:
        """Discount cells that leave the window."""
        if not self._all:
            cells = cells.take(self._place[cells.measures] >= 0)
        np.subtract.at(self._totals.reshape(-1), self._at(cells), cells.values)
        rows = np.unique(cells.rows)
        slots = self._slot[rows]
        idle = self._totals[slots >> _BLOCK_BITS, EVENTS, slots % _BLOCK] == 0
        self._slot[rows[idle]] = -1
        self._free += slots[idle].tolist()
        self._shrink()

    def forget(self, rows: Ints) -> None:
        """Set some rows to 0 in every measure."""
        slots = self._slot[rows]
        slots = slots[slots >= 0]
        self._totals[slots >> _BLOCK_BITS, :, slots % _BLOCK] = 0
        self._slot[rows] = -1
        self._free += slots.tolist()
        self._shrink()

    def values(self, measure: int, rows: slice | Ints) -> Ints:
        """Return a new column of a measure for some rows."""
        slots, place = self._slot[rows], self._place[measure]
        column: Ints
        if isinstance(rows, slice):
            column = self._totals[:, place].reshape(-1)[slots]
        else:
            column = self._totals[slots >> _BLOCK_BITS, place, slots % _BLOCK]
        column[slots < 0] = 0  # -1 has read somebody else's
        return column

    def of_row(self, row: int) -> list[int]:
        """Return every measure of one row, 0 for those that are not kept."""
        slot = self._slot[row]
        if slot < 0:
            return [0] * len(self._place)
        totals = self._totals[slot >> _BLOCK_BITS, :, slot % _BLOCK]
        values = np.where(self._place < 0, 0, totals[self._place])
        return [int(value) for value in values.tolist()]

    @property
    def nbytes(self) -> int:
        """The bytes of its arrays."""
        return self._slot.nbytes + self._totals.nbytes

    def _at(self, cells: Cells) -> Ints:
        """Return where the cells' totals are, counted through all blocks."""
        slots = self._slot[cells.rows].astype(np.int64)
        line = (slots >> _BLOCK_BITS) * self._totals.shape[1] + self._place[cells.measures]
        return line * _BLOCK + slots % _BLOCK

    def _give_slots(self, rows: Ints) -> None:
        if len(rows) > len(self._free):
            self._add_blocks(len(rows) - len(self._free))
        self._slot[rows] = self._free[-len(rows) :]
        del self._free[-len(rows) :]

    def _add_blocks(self, slots: int) -> None:
        blocks, *shape = self._totals.shape
        more = max(-(-slots // _BLOCK), blocks // _GROWTH)
        self._totals.resize((blocks + more, *shape), refcheck=False)  # nobody keeps a view of it
        first, end = blocks * _BLOCK, (blocks + more) * _BLOCK
        self._free = [*range(end - 1, first - 1, -1), *self._free]

    def _each_once(self, rows: Ints) -> Ints:
        """Return rows without a slot, each once: who is the last to write its place there."""
        places = np.arange(len(rows))
        self._slot[rows] = places
        last = self._slot[rows] == places
        self._slot[rows] = -1
        once: Ints = rows[last]
        return once

    def _shrink(self) -> None:
        """Give back idle room: everybody who has a slot gets another, in the order of rows."""
        blocks, measures, _ = self._totals.shape
        used = blocks * _BLOCK - len(self._free)
        if blocks == 1 or used * _IDLE >= blocks * _BLOCK:
            return
        rows = np.flatnonzero(self._slot >= 0)
        old, new = self._slot[rows], np.arange(used, dtype=np.int32)
        blocks = max(1, -(-used // _BLOCK))
        totals = np.zeros((blocks, measures, _BLOCK), dtype=np.int64)
        kept = self._totals[old >> _BLOCK_BITS, :, old % _BLOCK]
        totals[new >> _BLOCK_BITS, :, new % _BLOCK] = kept
        self._slot[rows] = new
        self._totals = totals
        self._free = list(range(blocks * _BLOCK - 1, used - 1, -1))


class Lifetime:
    """Totals of all time: columns for everybody only of what everybody has done, to register."""

    def __init__(self, measures: Sequence[Measure]) -> None:
        total = len(measures)
        every = [
            i for i, m in enumerate(measures) if not m.event_types or _EVERYBODY in m.event_types
        ]
        self._place = np.full(total, -1, dtype=np.int64)  # of a measure, among those of everybody
        self._place[every] = np.arange(len(every))
        self._every = every
        self._totals = np.zeros((len(every), 0), dtype=np.int64)
        self._rest = Window(np.flatnonzero(self._place < 0).tolist(), total)

    def fit(self, rows: int) -> None:
        """Make room for `rows` players."""
        wider = np.zeros((len(self._totals), rows), dtype=np.int64)  # costs nothing before use
        wider[:, : self._totals.shape[1]] = self._totals
        self._totals = wider
        self._rest.fit(rows)

    def add(self, cells: Cells) -> None:
        """Count cells, for ever."""
        places = self._place[cells.measures]
        every = places >= 0
        np.add.at(self._totals, (places[every], cells.rows[every]), cells.values[every])
        self._rest.add(cells.take(~every))

    def forget(self, rows: Ints) -> None:
        """Set some rows to 0 in every measure."""
        self._totals[:, rows] = 0
        self._rest.forget(rows)

    def values(self, measure: int, rows: slice | Ints) -> Ints:
        """Return the column of a measure for some rows; not to be changed."""
        place = self._place[measure]
        if place < 0:
            return self._rest.values(measure, rows)
        column: Ints = self._totals[place, rows]
        return column

    def of_row(self, row: int) -> list[int]:
        """Return every measure of one row."""
        values = self._rest.of_row(row)
        for measure, total in zip(self._every, self._totals[:, row].tolist(), strict=True):
            values[measure] = total
        return values

    @property
    def nbytes(self) -> int:
        """The bytes of its arrays."""
        return self._place.nbytes + self._totals.nbytes + self._rest.nbytes
