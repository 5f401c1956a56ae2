"""What one table says to a question about all its players."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crm.domain.brands import Brand
from crm.domain.feature_table import FeatureTable
from crm.domain.features import FEATURES
from crm.domain.ports import ShardFeatures
from crm.domain.segments import compile_mask, parse
from crm.domain.times import from_us

SAMPLE = 10


class Matching(NamedTuple):
    """How many of the table's players match, of how many, and up to SAMPLE of them."""

    matches: int
    total: int
    sample: list[str]


def matching(table: FeatureTable, brand: Brand, rule: str) -> Matching:
    """Count the players of `table` that match `rule` (text); raises InvalidRule."""
    mask = compile_mask(parse(rule), brand, table, len(table))
    some = [table.player_ids[row] for row in np.flatnonzero(mask)[:SAMPLE].tolist()]
    return Matching(int(mask.sum()), len(table), some)


def columns_of(
    table: FeatureTable, names: Iterable[str], rows: NDArray[np.int64] | None = None
) -> tuple[dict[str, NDArray[np.int64]], dict[str, NDArray[np.bool_]]]:
    """Return copies of features (the table goes on changing), and masks of where one is missing."""
    values, missing = {}, {}
    for name in names:
        column, mask = table.column(name, rows)
        values[name] = column.copy()
        if mask is not None:
            missing[name] = mask
    return values, missing


def shard_features(table: FeatureTable, shard: int, epoch: int, seq: int) -> ShardFeatures:
    """Return all that `table` says of the players of a shard, whose events it has up to `seq`."""
    rows = table.rows_of(shard)
    ids = [table.player_ids[row] for row in rows.tolist()]
    return ShardFeatures(
        shard, epoch, seq, from_us(table.now_us), ids, *columns_of(table, FEATURES, rows)
    )
