"""Who is in a rule, page by page in the order of ids; what one table of an owner says of it."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from crm.domain.brands import Brand
from crm.domain.column_source import Column, Mask
from crm.domain.feature_table import FeatureTable
from crm.domain.segments import compile_mask, parse

_FIRST_BLOCK = 4_096  # rows that are judged at once; each time twice as many,
_LARGEST_BLOCK = 262_144  # up to so many
_SLICE = 16_384  # rows that are sorted before others have their turn
_TAIL = 1_024  # as many new players are sorted apart, and an eighth of the others


class SomeRows:
    """Some rows of a table, each once and in any order, as a rule reads them (a ColumnSource)."""

    def __init__(self, table: FeatureTable, rows: NDArray[np.int64]) -> None:
        self._table = table
        self._rows = rows

    @property
    def now_us(self) -> int:
        """The table's moment."""
        return self._table.now_us

    @property
    def today(self) -> int:
        """The brand's local day at that moment."""
        return self._table.today

    def column(self, name: str) -> Column:
        """Return a feature of these rows, and where it is missing."""
        return self._table.column(name, self._rows)

    def over(self, name: str, first: int, last: int) -> Column:
        """Return a value over some local days."""
        return self._table.over(name, first, last, self._rows)

    def texts(self, name: str) -> tuple[Sequence[str], Mask | None]:
        """Return a column of text."""
        return self._table.texts(name, self._rows)

    def on_list(self, segment: str) -> Mask:
        """Return who is on a list; raises InvalidRule if it is not there."""
        return self._table.on_list(segment, self._rows)


class MemberPages:
    """Pages of the players who match a rule; tables are sorted once, and what is new beside it."""

    def __init__(self) -> None:
        self._orders: WeakKeyDictionary[FeatureTable, _Order] = WeakKeyDictionary()

    async def prepare(self, table: FeatureTable) -> None:
        """Sort a large table that was never paged through, and let others work meanwhile.

        Its clock may move on during that: ask for it again before a page.
        """
        await self._orders.setdefault(table, _Order()).begin(table)

    def page(
        self, table: FeatureTable, brand: Brand, rule: str, after: str, limit: int
    ) -> list[str]:
        """Return the first `limit` players of `table` after `after` that match; in order.

        Raises InvalidRule.
        """
        brand = known_to(table, brand)
        parsed = parse(rule, brand)
        order = self._orders.setdefault(table, _Order())
        order.catch_up(table)
        found: list[str] = []
        for block in order.blocks(table, after):
            rows = np.array(block, np.int64)
            mask = compile_mask(parsed, brand, SomeRows(table, rows), len(rows))
            found += table.ids_of(rows[mask])
            if len(found) >= limit:
                break
        return found[:limit]


def known_to(table: FeatureTable, brand: Brand) -> Brand:
    """Return `brand` with the measures of `table`: a caller may have read a newer file of it."""
    return replace(brand, measures=table.features.own)


def known(table: FeatureTable, player_ids: Iterable[str]) -> int:
    """Count those of `player_ids` of which `table` knows anything."""
    return sum(table.row(player_id) is not None for player_id in player_ids)


class _Order:
    """The rows of one table by player id: most of them, and beside them the newest ones."""

    def __init__(self) -> None:
        self._main: list[int] = []
        self._tail: list[int] = []
        self._seen = 0
        self._dead = 0

    async def begin(self, table: FeatureTable) -> None:
        """Sort all rows in slices, and merge these; those that die meanwhile are left out later."""
        ids, dead = table.ids, table.dead_rows
        end = len(ids)
        if self._seen > 0 or end <= _SLICE:
            return
        runs: list[list[int]] = []
        for first in range(0, end, _SLICE):
            rows = range(first, min(first + _SLICE, end))
            runs.append(sorted((row for row in rows if ids[row]), key=ids.__getitem__))
            await asyncio.sleep(0)
        while len(runs) > 1:
            # two sorted runs are merged in one pass
            merged = sorted(runs.pop(0) + runs.pop(0), key=ids.__getitem__)
            runs.append(merged)
            await asyncio.sleep(0)
        if self._seen < 1:  # nobody was quicker
            self._main, self._seen, self._dead = runs[0], end, dead

    def catch_up(self, table: FeatureTable) -> None:
        """Sort in the rows that are new, and forget those that died."""
        ids = table.ids
        if table.dead_rows != self._dead:
            self._dead = table.dead_rows
            self._main = [row for row in self._main if ids[row]]
            self._tail = [row for row in self._tail if ids[row]]
        new = [row for row in range(self._seen, len(ids)) if ids[row]]
        self._seen = len(ids)
        if new:
            self._tail = sorted(self._tail + new, key=ids.__getitem__)
        if len(self._tail) > _TAIL + len(self._main) // 8:
            # two sorted runs: merged in one pass
            self._main = sorted(self._main + self._tail, key=ids.__getitem__)
            self._tail = []

    def blocks(self, table: FeatureTable, after: str) -> Iterator[list[int]]:
        """Yield rows in the order of their ids, from the first one after `after` on."""
        key = table.ids.__getitem__
        main, tail, size = self._main, self._tail, _FIRST_BLOCK
        at, tail_at = (bisect_right(some, after, key=key) for some in (main, tail))
        while at < len(main) or tail_at < len(tail):
            block = main[at : at + size]
            at += len(block)
            more = at < len(main)
            end = bisect_right(tail, key(block[-1]), tail_at, key=key) if more else len(tail)
            block += tail[tail_at:end]
            tail_at = end
            yield sorted(block, key=key)
            size = min(2 * size, _LARGEST_BLOCK)
