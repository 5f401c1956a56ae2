"""Events of the lake as columns for a table, in the order in which the system came to see them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import numpy as np
import polars as pl

from crm.domain.brands import Brand
from crm.domain.event_columns import EventColumns, kind_index
from crm.domain.feature_list import FeatureList, features_of
from crm.domain.ledger import Cells, Ints
from crm.domain.times import from_us

_EPOCH = date(1970, 1, 1).toordinal()
_KIND = ["type", "result", "product", "method"]
_READ = [
    "player_id", "shard", "occurred_at", "local_day", "amount_minor", "session_seconds", *_KIND,
]  # fmt: skip
CHUNK = 100_000  # events applied at once: more only take more memory


class LakeColumns:
    """A brand's events up to `upto_us`, of rows with the lake's columns.

    An event is seen once it has occurred and is known; with `known_by_us`, once it has occurred, if
    it is known by then. The rows hold all events of the players of some shards.
    """

    def __init__(
        self, events: pl.LazyFrame, brand: Brand, upto_us: int, known_by_us: int | None = None
    ) -> None:
        self._features = features_of(brand)
        at, known = pl.col("occurred_at"), pl.col("known_at")
        upto = from_us(upto_us if known_by_us is None else known_by_us)
        seen = pl.max_horizontal(at, known) if known_by_us is None else at
        properties = ["properties"] if self._features.own else []
        self._rows = (
            events.filter(pl.col("brand") == brand.id, at <= from_us(upto_us), known <= upto)
            .select(seen.alias("seen"), *_READ, *properties)
            .sort("seen")
            .collect()
        )
        self._seen = _ints(self._rows["seen"])
        self._kinds = _kinds(self._rows)

    def between(self, after_us: int, upto_us: int) -> Iterator[EventColumns]:
        """Yield what came to be seen after one moment, up to and with another, in chunks."""
        start, end = np.searchsorted(self._seen, (after_us, upto_us), side="right").tolist()
        for first in range(start, end, CHUNK):
            yield self._columns(first, min(CHUNK, end - first))

    def _columns(self, first: int, length: int) -> EventColumns:
        rows = self._rows.slice(first, length)
        return EventColumns(
            events=(),
            player_ids=rows["player_id"].to_list(),
            shards=_ints(rows["shard"]),
            kinds=self._kinds[first : first + length],
            amounts=_ints(rows["amount_minor"]),
            seconds=_ints(rows["session_seconds"]),
            at=_ints(rows["occurred_at"]),
            days=_ints(rows["local_day"]) + _EPOCH,
            own=_own(rows, self._features),
        )


def _kinds(rows: pl.DataFrame) -> Ints:
    """Return each event's kind: looked up once for all events that are alike."""
    alike = rows.select(_KIND).unique()
    kinds = pl.Series("kind", [kind_index(*row) for row in alike.iter_rows()], dtype=pl.Int64)
    named = rows.select(_KIND).join(
        alike.with_columns(kinds), on=_KIND, how="left", nulls_equal=True, maintain_order="left"
    )
    return _ints(named["kind"])


def _own(rows: pl.DataFrame, features: FeatureList) -> Cells:
    """Return what events add to the brand's own measures, by the domain's own rule."""
    if not features.own:
        return Cells(*np.zeros((3, 0), dtype=np.int64))
    types = sorted({event_type for own in features.own for event_type in own.event_types})
    counted = rows.with_row_index("place").filter(pl.col("type").is_in(types))
    cells = [
        (place, measure, value)
        for place, event_type, properties in counted.select(
            "place", "type", "properties"
        ).iter_rows()
        for measure, value in features.adds(event_type, properties)
    ]
    return Cells(*np.array(cells, dtype=np.int64).reshape(-1, 3).T)


def _ints(column: pl.Series) -> Ints:
    """Return a column as int64: times as microseconds since 1970, nothing as 0."""
    found: Ints = column.cast(pl.Int64).fill_null(0).to_numpy()
    return found
