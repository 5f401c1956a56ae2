"""Where a rule's columns are read: one row a player, every column in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Column = tuple[NDArray[np.int64], Mask | None]


class CodedTexts(Sequence[str]):
    """A column of few different texts: `labels`, and for each row the place of its own."""

    def __init__(self, labels: Sequence[str], codes: NDArray[np.int64]) -> None:
        self.labels = labels
        self.codes = codes

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, slice):
            return CodedTexts(self.labels, self.codes[place])
        return self.labels[int(self.codes[place])]


class ColumnSource(Protocol):
    """What compile_mask asks of a table. Nothing that it returns may be changed by the caller."""

    @property
    def now_us(self) -> int:
        """The moment of all columns, in microseconds since 1970."""

    @property
    def today(self) -> int:
        """The ordinal of the brand's local day at that moment."""

    def column(self, name: str) -> Column:
        """Return raw integers (minor units, microseconds since 1970) and where they are missing."""

    def over(self, name: str, first: int, last: int) -> Column:
        """Return a value over the local days from `first` to `last` (ordinals, both included).

        `name` is one of FeatureList.windowed; `first` lies within the last 90 days.
        """

    def texts(self, name: str) -> tuple[Sequence[str], Mask | None]:
        """Return a column of text, and where it is missing; raises KeyError."""

    def on_list(self, segment: str) -> Mask:
        """Return who is on the list of players with this id; raises InvalidRule without one."""
