"""The references of bench/batch.py: the same totals as a Polars script and as SQL for DuckDB.

Both are two steps, as one would write them by hand: events to groups of (player, local day, kind),
groups to a column for each measure and window. Names and conditions come from the list of features,
because nobody types 270 of them; derived values, times and trends are left out, which our engine
gives on top.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from crm.domain.brands import Brand
from crm.domain.events import EVENT_TYPES
from crm.domain.features import DAYS_OF_WINDOW, MEASURES, OTHER, WINDOWS, Measure

NIGHT_ENDS = 6  # local hour; the brand of this benchmark has no clock change at night in its days
_TYPE = pl.Enum(sorted(EVENT_TYPES))
_VALUES = {"one": "n", "amount": "amount", "seconds": "seconds"}
_GROUP = ("player_id", "local_day", "type", "result", "product", "method", "night", "recent")


@dataclass(frozen=True)
class Column:
    """A measure over a window."""

    measure: Measure
    window: str

    @property
    def name(self) -> str:
        """The feature's name."""
        return f"{self.measure.name}_{self.window}"


def columns() -> list[Column]:
    """Return every base measure in each of its windows."""
    return [
        Column(measure, window)
        for measure in MEASURES
        for window in WINDOWS
        if not (measure.once_a_day and window == "24h")
    ]


def polars_totals(paths: list[str], brand: Brand, as_of: datetime) -> pl.DataFrame:
    """Return a row a player with every column, by Polars alone."""
    at, local = pl.col("occurred_at"), pl.col("occurred_at").dt.convert_time_zone(brand.time_zone)
    groups = (
        pl.scan_parquet(paths, glob=False)
        .filter(pl.col("brand") == brand.id, at <= as_of)
        .with_columns(
            type=pl.col("type").cast(_TYPE, strict=False),  # twice as quick as text
            night=local.dt.hour() < NIGHT_ENDS,
            recent=at >= _hour_24_back(as_of),
            product=pl.col("product").fill_null(OTHER),
            method=pl.col("method").fill_null(OTHER),
        )
        .group_by(_GROUP)
        .agg(n=pl.len(), amount=pl.sum("amount_minor"), seconds=pl.sum("session_seconds"))
        .with_columns(
            age=pl.lit(brand.local_day(as_of)).sub(pl.col("local_day")).dt.total_days(),
            weekend=pl.col("local_day").dt.weekday() >= 6,
        )
    )
    return (
        groups.group_by("player_id").agg(map(_polars_column, columns())).collect(engine="streaming")
    )


def _polars_column(column: Column) -> pl.Expr:
    measure = column.measure
    terms = [*_polars_terms(measure), *_polars_window(column.window)]
    if measure.once_a_day:
        found = pl.col("local_day").filter(*terms).n_unique() if terms else pl.n_unique("local_day")
    else:
        value = pl.col(_VALUES[measure.adds])
        found = value.filter(*terms).sum() if terms else value.sum()
    return found.cast(pl.Int64).alias(column.name)


def _polars_terms(measure: Measure) -> Iterator[pl.Expr]:
    if measure.event_types:
        yield pl.col("type").is_in(measure.event_types)
    for name in ("result", "product", "method"):
        if (value := getattr(measure, name)) is not None:
            yield pl.col(name) == value
    if measure.night:
        yield pl.col("night")
    if measure.weekend:
        yield pl.col("weekend")


def _polars_window(window: str) -> Iterator[pl.Expr]:
    if window == "24h":
        yield pl.col("recent")
    elif window != "lifetime":
        yield pl.col("age") < DAYS_OF_WINDOW[window]


def duckdb_sql(brand: Brand, as_of: datetime) -> str:
    """Return the query; it reads $files."""
    listed = ",\n".join(map(_sql_column, columns()))
    return f"""
WITH groups AS (
    SELECT player_id, local_day, type, result,
           coalesce(product, '{OTHER}') AS product, coalesce(method, '{OTHER}') AS method,
           hour(occurred_at AT TIME ZONE '{brand.time_zone}') < {NIGHT_ENDS} AS night,
           occurred_at >= TIMESTAMPTZ '{_hour_24_back(as_of).isoformat()}' AS recent,
           count(*) AS n, sum(amount_minor) AS amount, sum(session_seconds) AS seconds,
           DATE '{brand.local_day(as_of)}' - local_day AS age, isodow(local_day) >= 6 AS weekend
    FROM read_parquet($files)
    WHERE brand = '{brand.id}' AND occurred_at <= TIMESTAMPTZ '{as_of.isoformat()}'
    GROUP BY ALL)
SELECT player_id,
{listed}
FROM groups GROUP BY player_id"""


def _sql_column(column: Column) -> str:
    terms = " AND ".join([*_sql_terms(column.measure), *_sql_window(column.window)]) or "true"
    value = _VALUES[column.measure.adds]
    what = "count(DISTINCT local_day)" if column.measure.once_a_day else f"sum({value})"
    return f'coalesce({what} FILTER ({terms}), 0)::BIGINT AS "{column.name}"'


def _sql_terms(measure: Measure) -> Iterator[str]:
    if measure.event_types:
        yield f"type IN ({', '.join(repr(name) for name in measure.event_types)})"
    for name in ("result", "product", "method"):
        if (value := getattr(measure, name)) is not None:
            yield f"{name} = '{value}'"
    if measure.night:
        yield "night"
    if measure.weekend:
        yield "weekend"


def _sql_window(window: str) -> Iterator[str]:
    if window == "24h":
        yield "recent"
    elif window != "lifetime":
        yield f"age < {DAYS_OF_WINDOW[window]}"


def _hour_24_back(as_of: datetime) -> datetime:
    return as_of.replace(minute=0, second=0, microsecond=0) - timedelta(hours=23)
