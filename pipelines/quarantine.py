"""Rejected rows as a file of the same form as the input, to be mended and imported again.

The reasons stand in a second file beside it, by line and without values.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

import msgspec

from crm.domain.personal import holds_card
from crm.services.imports import Fault, Tally
from pipelines.rows import ParquetRows, Rows, TextRows

_BETWEEN_FIELDS = re.compile("[,;\t|]")
_COMPRESSED = {".gz", ".zst", ".zip"}


def write_quarantine(
    files: Sequence[Path], rows: Sequence[Rows], tally: Tally, folder: Path, now: datetime
) -> Path | None:
    """Write the rejected rows and their reasons (mode 600); returns the path, None without any."""
    if not tally.rejected:
        return None
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = _free_path(folder, files[0], now)
    with _private(path) as out:
        if isinstance(rows[0], ParquetRows):
            _write_parquet(rows, tally, path)
        else:
            _write_text(rows, tally, out)
    _write_reasons(path, files, rows, tally)
    return path


def _free_path(folder: Path, file: Path, now: datetime) -> Path:
    name = Path(file.name.removesuffix(file.suffix)) if file.suffix in _COMPRESSED else file
    stem = f"{name.stem}-{now:%Y%m%dT%H%M%S}"
    path = folder / f"{stem}{name.suffix}"
    count = 1
    while path.exists():
        count += 1
        path = folder / f"{stem}-{count}{name.suffix}"
    return path


@contextmanager
def _private(path: Path) -> Iterator[IO[bytes]]:
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as out:
        yield out


def _write_text(rows: Sequence[Rows], tally: Tally, out: IO[bytes]) -> None:
    texts = [text for text in rows if isinstance(text, TextRows)]
    out.write(_ended(texts[0].header()))
    for file, text in enumerate(texts):
        rejected = {fault.line for fault in tally.faults(file)}
        if rejected:
            out.writelines(_kept(raw) for line, raw in text.raw() if line in rejected)


def _kept(line: bytes) -> bytes:
    """Return a rejected row, or an empty line for one in which a card's number may stand.

    Field by field: ids and amounts that stand side by side make up numbers that nobody has.
    """
    fields = _BETWEEN_FIELDS.split(line.decode(errors="replace"))
    return b"\n" if any(map(holds_card, fields)) else _ended(line)


def _ended(line: bytes) -> bytes:
    return line + b"\n" if line and not line.endswith(b"\n") else line


def _write_parquet(rows: Sequence[Rows], tally: Tally, path: Path) -> None:
    import pyarrow.parquet as pq  # text files do not need it

    files = [file for file in rows if isinstance(file, ParquetRows)]
    with pq.ParquetWriter(path, files[0].schema) as out:
        for index, file in enumerate(files):
            faults = list(tally.faults(index))
            lines = [fault.line for fault in faults]
            cards = {fault.line for fault in faults if fault.code == "card_number"}
            for batch in file.selected(lines, cards) if lines else ():
                out.write_batch(batch)


def _write_reasons(path: Path, files: Sequence[Path], rows: Sequence[Rows], tally: Tally) -> None:
    """Write an object a rejected row: its line in the input, its row here, the reason."""
    number = 0
    with _private(path.with_name(f"{path.name}.reasons.jsonl")) as out:
        for index in range(len(rows)):
            for fault in tally.faults(index):
                number += 1
                out.write(msgspec.json.encode(_reason(files[index], number, fault)) + b"\n")


def _reason(file: Path, number: int, fault: Fault) -> dict[str, str | int]:
    return {
        "file": file.name,
        "line": fault.line,
        "row": number,
        "code": fault.code,
        "message": fault.message,
    }
