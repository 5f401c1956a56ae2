"""Reading files to import: rows with their line numbers, in bounded memory.

A line that cannot be read is a fault with its number; a file that is not what the mapping says is
`UnreadableFile`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

import msgspec

from crm.domain.mappings import Format
from crm.services.imports import ROWS_A_CHUNK, Fault
from pipelines.decompression import UnreadableFile, opened

MAX_LINE = 1 << 20
MAX_LINES_A_RECORD = 64

Record = tuple[int, bytes]
Parsed = list[Any] | Fault


def records(stream: IO[bytes], file_format: Format) -> Iterator[Record]:
    """Yield (number of its first line, its bytes) for every line, or quoted run of lines.

    Blank lines are skipped. A line over 1 MiB comes cut off, one byte longer than that.
    """
    quote = file_format.quote.encode() if file_format.kind == "csv" else b""
    lines = _lines(stream)
    waiting: list[Record] = []
    while waiting or (waiting := list(islice(lines, 1))):
        number, line = waiting.pop(0)
        if quote and quote in line and _is_open(line, file_format):
            line, waiting = _joined(line, waiting, lines, file_format)
        if line.strip():
            yield number, line


def _lines(stream: IO[bytes]) -> Iterator[Record]:
    number = 0
    while line := stream.readline(MAX_LINE + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if len(line) > MAX_LINE:
            while (rest := stream.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                pass
        yield number, line


def _is_open(line: bytes, file_format: Format) -> bool:
    """Whether a quoted field goes on in the next line."""
    if line.count(file_format.quote.encode()) % 2 == 0:
        return False
    try:
        next(_csv_reader([line.decode("latin-1")], file_format))
    except csv.Error as error:
        return "unexpected end" in str(error)
    return False


def _joined(
    line: bytes,
    waiting: list[Record],
    lines: Iterator[Record],
    file_format: Format,
) -> tuple[bytes, list[Record]]:
    """Return the whole record and what waits after it; an endless quote takes one line only."""
    following = [*waiting, *islice(lines, MAX_LINES_A_RECORD - len(waiting))]
    whole = line
    for count, (_, part) in enumerate(following, 1):
        whole += part
        if len(whole) > MAX_LINE:
            break
        if not _is_open(whole, file_format):
            return whole, following[count:]
    return line, following


def _csv_reader(texts: Iterable[str], file_format: Format) -> Iterator[list[str]]:
    if not file_format.quote:
        return csv.reader(
            texts, delimiter=file_format.delimiter, quoting=csv.QUOTE_NONE, strict=True
        )
    return csv.reader(
        texts, delimiter=file_format.delimiter, quotechar=file_format.quote, strict=True
    )


class TextRows:
    """Rows of a text file: the columns, and for every record its cells or its fault."""

    def __init__(
        self, path: Path, file_format: Format, columns: Sequence[str] | None = None
    ) -> None:
        self._path = path
        self._format = file_format
        self._split = _splitter(file_format)
        self.columns = self._columns() if columns is None else list(columns)

    def rows(self) -> Iterator[tuple[int, Parsed]]:
        """Yield (line number, cells or fault)."""
        with opened(self._path) as stream:
            found = records(stream, self._format)
            if self._format.has_header:
                next(found, None)
            for number, line in found:
                yield number, self._parse(number, line)

    @property
    def is_keyed(self) -> bool:
        """Whether every row names its own columns."""
        return self._format.kind == "jsonl"

    def count(self) -> int:
        """Read to the last byte, and return the number of rows."""
        return sum(1 for _ in self.raw())

    def header(self) -> bytes:
        """Return the header line, or nothing."""
        return self._first() if self._format.has_header else b""

    def raw(self) -> Iterator[Record]:
        """Yield (line number, bytes as they stand in the file) for every row."""
        with opened(self._path) as stream:
            found = records(stream, self._format)
            if self._format.has_header:
                next(found, None)
            yield from found

    def _first(self) -> bytes:
        with opened(self._path) as stream:
            first = next(records(stream, self._format), None)
        if first is None:
            raise UnreadableFile(f"{self._path}: the file is empty")
        return first[1]

    def _columns(self) -> list[str]:
        first = self._first()
        if self._format.kind == "jsonl":
            return self._keys()
        if self._format.columns is not None:
            return list(self._format.columns)
        try:
            return [name.strip() for name in self._split(first.decode(self._format.encoding))]
        except (UnicodeDecodeError, csv.Error) as error:
            raise UnreadableFile(
                f"{self._path}: line 1 is no header in {self._format.encoding}; is the file"
                f" {self._format.kind}, as the mapping says?"
            ) from error

    def _keys(self) -> list[str]:
        keys: dict[str, None] = {}
        good = 0
        with opened(self._path) as stream:
            for _, line in records(stream, self._format):
                row = _json_object(line)
                if row is not None:
                    good += 1
                    keys |= dict.fromkeys(row)
        if not good:
            raise UnreadableFile(f"{self._path}: holds no JSON objects, one a line")
        return list(keys)

    def _parse(self, number: int, line: bytes) -> Parsed:
        if len(line) > MAX_LINE:
            return Fault(number, "line_too_long", "a line of over 1 MiB")
        if self.is_keyed:
            cells = _json_cells(line, self.columns)
            return cells or Fault(number, "invalid_json", "the line is no JSON object")
        return self._cells(number, line)

    def _cells(self, number: int, line: bytes) -> Parsed:
        try:
            cells = self._split(line.decode(self._format.encoding))
        except UnicodeDecodeError:
            name = self._format.encoding.upper()
            return Fault(number, f"not_{name.lower().replace('-', '')}", f"the line is not {name}")
        except csv.Error:
            return Fault(number, "invalid_quotes", "the line's quotes do not match")
        if len(cells) == len(self.columns):
            return cells
        message = f"{len(cells)} columns where the file has {len(self.columns)}"
        return Fault(number, "wrong_columns", message)


def _splitter(file_format: Format) -> Callable[[str], list[str]]:
    if file_format.kind == "whitespace":
        return str.split
    delimiter, quote = file_format.delimiter, file_format.quote

    def split(line: str) -> list[str]:
        if quote and quote in line:
            return next(_csv_reader([line], file_format))
        return line.rstrip("\r\n").split(delimiter)

    return split


def _json_object(line: bytes) -> dict[str, msgspec.Raw] | None:
    try:
        return _JSON.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


_JSON = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _json_cells(line: bytes, columns: Sequence[str]) -> list[Any] | None:
    row = _json_object(line)
    try:
        return None if row is None else [_json_cell(row.get(name)) for name in columns]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _json_cell(raw: msgspec.Raw | None) -> Any:
    """Return a value as a cell: numbers as they are written, objects as JSON text."""
    text = b"" if raw is None else bytes(raw).strip()
    if text[:1] == b'"' or text in (b"", b"null", b"true", b"false"):
        return msgspec.json.decode(text) if text else None
    return text.decode()


class ParquetRows:
    """Rows of a Parquet file; a row's number stands for its line."""

    def __init__(self, path: Path, _format: Format, columns: Sequence[str] | None = None) -> None:
        self._path = path
        with self._file() as file:
            self.columns = list(columns or file.schema_arrow.names)

    def rows(self) -> Iterator[tuple[int, Parsed]]:
        """Yield (row number, cells)."""
        import polars as pl  # text files do not need it

        number = 0
        with self._file() as file:
            for batch in file.iter_batches(batch_size=16 * ROWS_A_CHUNK):
                frame = pl.from_arrow(batch)
                for row in cast("pl.DataFrame", frame).iter_rows():
                    number += 1
                    yield number, list(row)

    def count(self) -> int:
        """Return the number of rows."""
        with self._file() as file:
            return int(file.metadata.num_rows)

    @property
    def schema(self) -> Any:
        """The Arrow schema."""
        with self._file() as file:
            return file.schema_arrow

    def selected(self, numbers: Sequence[int], hidden: Collection[int]) -> Iterator[Any]:
        """Yield Arrow batches with the rows of these numbers, in order; of `hidden`, nulls."""
        import numpy as np
        import pyarrow as pa

        wanted = np.asarray(numbers, dtype=np.int64) - 1
        start = 0
        with self._file() as file:
            for batch in file.iter_batches(batch_size=16 * ROWS_A_CHUNK):
                here = wanted[(wanted >= start) & (wanted < start + batch.num_rows)] - start
                if len(here):
                    shown = [None if row + start + 1 in hidden else row for row in here.tolist()]
                    yield batch.take(pa.array(shown, pa.int64()))
                start += batch.num_rows

    @contextmanager
    def _file(self) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self._path) as file:
                yield file
        except OSError as error:
            raise UnreadableFile(f"{self._path}: {error.strerror or 'damaged'}") from error
        except pa.ArrowException as error:
            raise UnreadableFile(f"{self._path}: not a Parquet file, or damaged") from error


Rows = TextRows | ParquetRows


def open_rows(path: Path, file_format: Format, columns: Sequence[str] | None = None) -> Rows:
    """Return the rows of a file, with the columns given, or else its own; raises UnreadableFile."""
    if path.is_dir():
        raise UnreadableFile(f"{path}: is a folder; name its files")
    if not path.is_file():
        raise UnreadableFile(f"{path}: there is no such file")
    if path.stat().st_size == 0:
        raise UnreadableFile(f"{path}: the file is empty")
    kind = ParquetRows if file_format.kind == "parquet" else TextRows
    return kind(path, file_format, columns)
