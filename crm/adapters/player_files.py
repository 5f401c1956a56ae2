"""Players as CSV and as Parquet, written page by page: a file is never in memory as a whole."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Mapping

from crm.domain.player_lists import COLUMN, cell


async def csv_of(pages: AsyncIterator[list[str]]) -> AsyncIterator[bytes]:
    """Yield a CSV file with one column; a cell that a spreadsheet would run is quoted."""
    yield f"{COLUMN}\r\n".encode()
    async for page in pages:
        out = io.StringIO(newline="")
        csv.writer(out).writerows([cell(player)] for player in page)
        yield out.getvalue().encode()


async def parquet_of(
    pages: AsyncIterator[list[str]], facts: Mapping[str, str]
) -> AsyncIterator[bytes]:
    """Yield a Parquet file with one column, a row group a page, and `facts` in its metadata."""
    import pyarrow as pa  # noqa: PLC0415 - 70 ms that only exports need
    from pyarrow import parquet  # noqa: PLC0415 - likewise

    schema = pa.schema([pa.field(COLUMN, pa.string(), nullable=False)], metadata=dict(facts))
    sink = _Sink()
    with parquet.ParquetWriter(sink, schema, compression="zstd") as writer:
        async for page in pages:
            if page:
                writer.write_table(pa.table({COLUMN: pa.array(page, pa.string())}, schema=schema))
            yield sink.taken()
    yield sink.taken()


class _Sink(io.RawIOBase):
    """A file that hands on what is written to it, and keeps no more than its length."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._length = 0

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        part = bytes(memoryview(data))  # type: ignore[arg-type]  # any buffer, as Arrow has its own
        self._parts.append(part)
        self._length += len(part)
        return len(part)

    def tell(self) -> int:
        return self._length

    def taken(self) -> bytes:
        """Return what was written since the last time."""
        data, self._parts = b"".join(self._parts), []
        return data
