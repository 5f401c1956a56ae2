"""Which integers a condition asks for, so that each source of columns may answer in its way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST = int(np.iinfo(np.int64).min)
MOST = int(np.iinfo(np.int64).max)
_MANY = 16  # values: so many are sought together, fewer one by one
Span = tuple[int, int]  # the first and the last integer


@dataclass(frozen=True)
class Spans:
    """Integers of 64 bits in any of `parts`, which ascend with a gap between any two."""

    parts: tuple[Span, ...]

    @classmethod
    def of(cls, parts: Iterable[Span]) -> Spans:
        """Return what of `parts` fits into 64 bits; they may be empty, of any size, and overlap."""
        joined: list[Span] = []
        for first, last in sorted((max(first, LEAST), min(last, MOST)) for first, last in parts):
            if joined and first <= joined[-1][1] + 1:
                joined[-1] = joined[-1][0], max(last, joined[-1][1])
            elif first <= last:
                joined.append((first, last))
        return cls(tuple(joined))

    def __contains__(self, value: int) -> bool:
        return any(first <= value <= last for first, last in self.parts)

    def hold(self, values: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return a new mask of the values that are in here."""
        if not self.parts:
            return np.zeros(len(values), np.bool_)
        ones = [first for first, last in self.parts if first == last]
        many = len(ones) >= _MANY
        masks = (_within(values, *part) for part in self.parts if not many or part[0] != part[1])
        mask = np.isin(values, np.array(ones, np.int64)) if many else next(masks)
        for other in masks:
            mask |= other
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
