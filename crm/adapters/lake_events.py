"""Events in the lake: one Parquet file a run of a shard's seqs, and how its rows are read again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from io import BytesIO
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from crm.domain.brands import MAX_DIGITS
from crm.domain.errors import LogGap
from crm.domain.events import SESSION_TYPES, LoggedEvent
from crm.domain.lake_files import LakeFile
from crm.domain.ports import Span
from crm.domain.rates import FINEST

if TYPE_CHECKING:
    from crm.adapters.lake import Lake

VERSION = 2  # since 2 with what was stated in another currency
_FOLDER = "events"
_TIME = pl.Datetime("us", "UTC")
_Types = dict[str, pl.DataType | type[pl.DataType]]
# As analysts read them; `result`, `product`, `method` and `session_seconds` are what features read
# of `properties` (JSON text). `amount_minor` is in minor units of the brand's currency; the
# original is what was stated in another one.
_COLUMNS: _Types = {
        "shard": pl.Int16, "seq": pl.Int64, "brand": pl.String, "player_id": pl.String,
        "event_id": pl.String, "type": pl.String, "occurred_at": _TIME, "received_at": _TIME,
        "known_at": _TIME, "local_day": pl.Date, "amount_minor": pl.Int64, "currency": pl.String,
        "backfill": pl.Boolean, "result": pl.String, "product": pl.String, "method": pl.String,
        "session_seconds": pl.Int64, "properties": pl.String,
        "original_amount": pl.Decimal(MAX_DIGITS + FINEST.decimals, FINEST.decimals),
        "original_currency": pl.String,
}  # fmt: skip
SCHEMA = pl.Schema(_COLUMNS)
_ARROW = pl.DataFrame(schema=SCHEMA).to_arrow().schema
# in CSV times are microseconds, days are since 1970 and truth is 0 or 1
_IN_CSV: _Types = {
    name: pl.String if type_ == pl.String or type_.is_decimal() else pl.Int64
    for name, type_ in SCHEMA.items()
}
# the fields of an event in their order, but for those that only a writer needs
_ORIGINAL = ("original_amount", "original_currency")
_LOGGED = [n for n in LoggedEvent.__struct_fields__ if n in SCHEMA and n not in _ORIGINAL]
_LOGGED += _ORIGINAL
_ROW_GROUP = 131_072


class LakeEventFiles:
    """Writes the lake's event files; a name is used once, so that two writers never meet."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    def write(self, events: bytes, written: Callable[[LakeFile], None]) -> None:
        """Store PostgreSQL's CSV of events, a file a shard, and tell of each that is written.

        Raises LogGap at the end if a shard lacked a seq: the others are written all the same.
        """
        gaps: list[LogGap] = []
        for rows in from_csv(events).partition_by("shard"):
            try:
                written(self._write(rows))
            except LogGap as gap:
                gaps.append(gap)
        if gaps:
            raise gaps[0]

    def merge(self, files: Sequence[LakeFile]) -> LakeFile:
        """Store the events of files that follow each other as one file."""
        return self._write(_collected(scan(self._lake, files)))

    def names(self) -> Mapping[str, datetime]:
        """Return every event file that is there, and when it was written."""
        return self._lake.names(_FOLDER)

    def delete(self, name: str) -> None:
        """Forget a file."""
        self._lake.delete(name)

    def _write(self, rows: pl.DataFrame) -> LakeFile:
        seqs = rows["seq"]
        shard, first, last = rows["shard"][0], seqs[0], seqs[-1]
        if len(rows) != last - first + 1 or not (seqs.diff().drop_nulls() == 1).all():
            raise LogGap(f"the log of shard {shard} does not hold {first} to {last} once each")
        name = f"{_FOLDER}/{shard:03d}/{first:012d}-{last:012d}.{token_hex(4)}.parquet"
        data = to_parquet(rows)
        self._lake.write(name, data, durable=True)
        return LakeFile(shard, first, last, name, len(data), VERSION)


def from_csv(data: bytes) -> pl.DataFrame:
    """Return the rows of PostgreSQL's CSV, in the schema's types; nulls are nulls."""
    if not data:
        return pl.DataFrame(schema=SCHEMA)
    raw = pl.read_csv(data, has_header=False, schema=_IN_CSV, truncate_ragged_lines=False)
    days = raw.with_columns(pl.col("local_day").cast(pl.Int32))
    return days.select(pl.col(name).cast(type_) for name, type_ in SCHEMA.items())


def to_parquet(rows: pl.DataFrame) -> bytes:
    """Return a file of rows."""
    out = BytesIO()
    rows.write_parquet(out, compression="zstd", compression_level=3, row_group_size=_ROW_GROUP)
    return out.getvalue()


def scan(lake: Lake, files: Sequence[LakeFile]) -> pl.LazyFrame:
    """Return the rows of listed files, of whatever version, as the newest schema has them.

    Only the columns and the row groups that are asked for are fetched. Raises OSError for a file
    that is not there when it is collected.
    """
    if not files:
        return pl.LazyFrame(schema=SCHEMA)
    names = [file.name for file in files]
    if (paths := lake.local_paths(names)) is not None:
        return pl.scan_parquet(paths, schema=SCHEMA, missing_columns="insert", glob=False)
    return pl.scan_pyarrow_dataset(lake.dataset(names, _ARROW))


def sessions_before(lake: Lake, files: Sequence[LakeFile], day: date) -> list[tuple[Any, ...]]:
    """Return the sessions of files that occurred before a day (UTC), for PostgreSQL to read.

    (shard, seq, brand, player_id, type, occurred_at, local_day, properties)
    """
    columns = ("shard", "seq", "brand", "player_id", "type", "occurred_at", "local_day")
    of_sessions = pl.col("type").is_in(sorted(SESSION_TYPES))
    old = pl.col("occurred_at") < datetime.combine(day, time(), UTC)
    return _collected(
        scan(lake, files).filter(of_sessions, old).select(*columns, "properties")
    ).rows()


def logged_events(lake: Lake, spans: Mapping[LakeFile, Span]) -> list[tuple[int, LoggedEvent]]:
    """Return (seq, event) of a span of each file, as the log has them; OSError for a bad file."""
    frames = [
        scan(lake, [file])
        .filter(pl.col("seq") > span.after, pl.col("seq") <= span.upto)
        .select("seq", *_LOGGED)
        for file, span in spans.items()
    ]
    return [(row[0], _logged(row[1:])) for row in _collected(pl.concat(frames)).iter_rows()]


def _collected(rows: pl.LazyFrame) -> pl.DataFrame:
    """Return the rows; OSError for a file that is not there, or is damaged."""
    try:
        return rows.collect()
    except (pl.exceptions.PolarsError, pa.ArrowException) as error:
        raise OSError(f"a file of the lake is damaged ({type(error).__name__})") from error


def _logged(row: tuple[Any, ...]) -> LoggedEvent:
    fields = [*row[:-2], b"", (), *row[-2:]]  # no fingerprint, nothing personal
    return LoggedEvent(*fields)
