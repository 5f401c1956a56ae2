"""A ColumnSource of lists, for rules on a few named columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from crm.domain.errors import InvalidRule
from tests.support.builders import NOON

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


class NamedColumns:
    """What has features alone: nothing by other days, no texts, no lists."""

    now_us = int(NOON.timestamp()) * 1_000_000
    today = NOON.toordinal()

    def over(self, name: str, first: int, last: int) -> tuple[Ints, Flags | None]:
        raise KeyError(name)

    def texts(self, name: str) -> tuple[Sequence[str], Flags | None]:
        raise KeyError(name)

    def on_list(self, segment: str) -> Flags:
        raise InvalidRule(segment)


class ListColumns(NamedColumns):
    """Columns from lists; None is missing. `texts` are by name, `lists` have a flag a row."""

    def __init__(
        self,
        columns: Mapping[str, Sequence[int | None]],
        texts: Mapping[str, Sequence[str]] | None = None,
        lists: Mapping[str, Sequence[bool]] | None = None,
    ) -> None:
        self._columns = columns
        self._texts = texts or {}
        self._lists = lists or {}

    def column(self, name: str) -> tuple[Ints, Flags | None]:
        cells = self._columns[name]
        missing = np.array([cell is None for cell in cells])
        values = np.array([-7 if cell is None else cell for cell in cells], np.int64)
        return values, missing if missing.any() else None

    def texts(self, name: str) -> tuple[Sequence[str], Flags | None]:
        return self._texts[name], None

    def on_list(self, segment: str) -> Flags:
        return np.array(self._lists[segment])
