"""Features that a client sends, written as those that it reads: money as decimal strings."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from crm.domain.clustering import Floats
from crm.domain.features import Feature

LARGEST = 1e15  # of any value, in units
_NUMBER = re.compile(r"-?\d{1,16}(\.\d{1,6})?", re.ASCII)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class RowRefused(NamedTuple):
    """Why one row is not taken: a code, and a sentence that repeats no value."""

    row: int
    code: str
    message: str


class FeatureRows(NamedTuple):
    """The rows that are taken: their places, and a column a feature in units, NaN missing."""

    places: list[int]
    values: dict[str, Floats]
    refused: list[RowRefused]


def read_rows(
    needed: Mapping[str, Feature], known: Collection[str], rows: Sequence[Mapping[str, object]]
) -> FeatureRows:
    """Read rows that hold each of `needed`, null where missing; what else is `known` is not read.

    A row with an unknown name, without a needed one, or with what is no number, is refused alone.
    """
    places, taken, refused = [], [], []
    for index, row in enumerate(rows):
        fault = _stranger(row, known, needed)
        read = [] if fault else [_value(name, row) for name in needed]
        fault = fault or next((one for one in read if isinstance(one, tuple)), None)
        if fault is None:
            places.append(index)
            taken.append(read)
        else:
            refused.append(RowRefused(index, *fault))
    columns = np.array(taken, np.float64).reshape(len(taken), len(needed))
    return FeatureRows(places, dict(zip(needed, columns.T, strict=True)), refused)


def _stranger(
    row: Mapping[str, object], known: Collection[str], needed: Mapping[str, Feature]
) -> tuple[str, str] | None:
    name = next((name for name in row if name not in known and name not in needed), None)
    if name is None:
        return None
    shown = name if _NAME.fullmatch(name) else "one of the names"
    return "invalid_field", f"no such feature: {shown} (GET /v1/features lists them)"


def _value(name: str, row: Mapping[str, object]) -> float | tuple[str, str]:
    """Return a value, or the code and the message of what is wrong with it."""
    if name not in row:
        return "missing_field", f"{name} is missing; the models read it (null: there is none)"
    value = row[name]
    if value is None:
        return math.nan
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "invalid_field", f"{name} must be a number, a decimal string or null"
    if not abs(value) <= LARGEST:  # neither is NaN
        return "invalid_field", f"{name} must lie between -{LARGEST:.0e} and {LARGEST:.0e}"
    return float(value)
