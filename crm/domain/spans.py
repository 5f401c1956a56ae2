"""Which integers a condition asks for, so that each source of columns may answer in its way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST = int(np.iinfo(np.int64).min)
MOST = int(np.iinfo(np.int64).max)
Span = tuple[int, int]  # the first and the last integer


@dataclass(frozen=True)
class Spans:
    """Integers of 64 bits in any of `parts`; parts may overlap, and none of them is empty."""

    parts: tuple[Span, ...]

    @classmethod
    def of(cls, parts: Iterable[Span]) -> Spans:
        """Return what of `parts` fits into 64 bits; a part may be empty, or of any size."""
        cut = ((max(first, LEAST), min(last, MOST)) for first, last in parts)
        return cls(tuple((first, last) for first, last in cut if first <= last))

    def __contains__(self, value: int) -> bool:
        return any(first <= value <= last for first, last in self.parts)

    def hold(self, values: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return a new mask of the values that are in here."""
        ones = [first for first, last in self.parts if first == last]
        rest = [part for part in self.parts if part[0] != part[1]]
        if len(ones) > 1:
            mask = np.isin(values, np.array(ones, np.int64))
        else:
            rest += [(one, one) for one in ones]
            mask = _within(values, *rest.pop()) if rest else np.zeros(len(values), np.bool_)
        for first, last in rest:
            mask |= _within(values, first, last)
        return mask

    def without(self, value: int) -> Spans:
        """Return these without one integer."""
        left = ((first, min(last, value - 1)) for first, last in self.parts)
        right = ((max(first, value + 1), last) for first, last in self.parts)
        return Spans.of((*left, *right)) if value in self else self

    def as_times(self, now: int, unit: int) -> Spans:
        """Return the times of which it is so many whole units since, at `now`."""
        return Spans.of(
            (now - (last + 1) * unit + 1, now - first * unit) for first, last in self.parts
        )


EVERY = Spans(((LEAST, MOST),))


def _within(values: NDArray[np.int64], first: int, last: int) -> NDArray[np.bool_]:
    """Compare as seldom as can be: each time goes through all of `values`."""
    if first == last:
        mask: NDArray[np.bool_] = values == first
    elif last == MOST:
        mask = values >= first
    else:
        mask = values <= last
        if first != LEAST:
            mask &= values >= first
    return mask
