"""Who is in a segment by the batch engine's features: a source of columns over its table."""

from __future__ import annotations

from collections.abc import Set
from datetime import datetime
from typing import cast

import numpy as np
import polars as pl
import pyarrow as pa

from crm.domain.brands import Brand
from crm.domain.column_source import Column, ColumnSource
from crm.domain.segments import compile_mask, parse
from pipelines.batch_features import features_at


class BatchColumns:
    """The columns of a batch, as rules over named features read them."""

    def __init__(self, table: pa.Table) -> None:
        self._frame = pl.DataFrame(pl.from_arrow(table))

    def column(self, name: str) -> Column:
        """Return raw integers, and where they are missing."""
        column = self._frame[name]
        return column.fill_null(0).to_numpy(), column.is_null().to_numpy()


def members_at(
    events: pl.LazyFrame, brand: Brand, rule: str, at: datetime, known_by: datetime
) -> tuple[int, Set[str]]:
    """How many players a batch as of a moment has, and who of them is in the segment."""
    table = features_at(events, brand, at, known_by)
    mask = compile_mask(
        parse(rule, brand), brand, cast("ColumnSource", BatchColumns(table)), table.num_rows
    )
    return table.num_rows, set(np.array(table["player_id"].to_pylist(), dtype=object)[mask])
