"""What a feature is worth, made of measures when it is read: the same for one player and for all.

Works on Python integers and on int64 columns alike, and gives the same integers for both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from crm.domain.features import SHARE, Defined, Derived, Distinct, Edge, Measure, Trend

LARGEST_RATIO = 1e15  # a larger one says nothing more, and would not fit an integer at some point
DAY_US = 86_400_000_000
NEVER = {"first": np.iinfo(np.int64).max, "last": np.iinfo(np.int64).min}  # no such event yet
Source = Callable[[str, str], Any]  # measure and window -> total, an int or an int64 column
_WEEKS_BEFORE = {"14d": 1, "35d": 4}


def value_of(defined: Defined, total: Source) -> tuple[Any, Any]:
    """Return a feature's value, and where it is missing (None: nowhere)."""
    window = defined.window
    match defined.definition:
        case Measure(name):
            return total(name, window), None
        case Derived() as one:
            top = total(one.plus[0], window)
            for name in one.minus:
                top = top - total(name, window)
            if not one.by:
                return top, None
            bottom = sum(total(name, window) for name in one.by)
            return _ratio(top, bottom, SHARE if one.unit == "share" else 1)
        case Distinct(_, measures):
            return sum((total(name, window) > 0) + 0 for name in measures), None
        case Trend(_, measure, _, since):
            recent = total(measure, "7d")
            before = total(measure, since) - recent
            return _ratio(recent * _WEEKS_BEFORE[since], before, SHARE)
        case _:
            raise TypeError(f"{defined.feature.name} is not made of measures")


def column_of(
    defined: Defined, total: Source, times: Callable[[Edge], Any], now_us: int
) -> tuple[Any, Any]:
    """Return a column of a feature, and where it is missing (None: nowhere).

    `times` gives the first or last times of a moment, NEVER where there is none.
    """
    edge = defined.definition
    if not isinstance(edge, Edge):
        return value_of(defined, total)
    at = times(edge)
    missing = at == NEVER[edge.which]
    if not edge.days_since:
        return at, missing
    return np.where(missing, 0, (now_us - np.where(missing, 0, at)) // DAY_US), missing


def _ratio(top: Any, bottom: Any, scale: int) -> tuple[Any, Any]:
    """Return top / bottom x scale, at most LARGEST_RATIO, rounded half to even, and where none is.

    In IEEE doubles, step by step, so that SQL and other engines come to the very same integers.
    """
    missing = bottom == 0
    found = (top * 1.0) / ((bottom + missing) * 1.0) * scale
    if isinstance(top, int):
        return round(min(found, LARGEST_RATIO)), missing
    rounded = np.rint(np.minimum(found, LARGEST_RATIO)).astype(np.int64)
    return np.where(missing, 0, rounded), missing
