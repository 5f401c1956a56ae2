"""From files to chunks of rows: the checks before anything is sent, and the rows' hashes.

A row without an id of its own is known by a hash of its content and its occurrence among equal
rows, counted over all files of one import. Two passes keep that small: the first holds 8 bytes of
each row's digest, and leaves only the digests that stand twice; the second counts just those.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import yaml

from crm.domain.bound_mappings import BoundMapping
from crm.domain.brands import Brand, choose
from crm.domain.errors import InvalidMapping
from crm.domain.events import derived_event_id
from crm.domain.mappings import ImportMapping, parse_mapping
from crm.services.imports import ROWS_A_CHUNK, Chunk, Fault
from pipelines.decompression import UnreadableFile
from pipelines.rows import ParquetRows, Rows, TextRows, open_rows

_DIGEST_BYTES = 16
_PREFIX_BYTES = 8


def load_mapping(path: Path) -> ImportMapping:
    """Read a mapping's YAML file; raises InvalidMapping naming file and key."""
    try:
        return parse_mapping(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InvalidMapping(f"{path}: {error.strerror}") from error
    except RecursionError as error:
        raise InvalidMapping(f"{path}: nested too deep") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidMapping(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    except InvalidMapping as error:
        raise InvalidMapping(f"{path}: {error.message}") from error


def choose_brand(
    mapping: ImportMapping, brands: Mapping[str, Brand], asked: str | None
) -> ImportMapping:
    """Return the mapping for the brand asked for, its own, or the first; or BrandNotFound."""
    if asked is not None:
        mapping = mapping.with_brand(asked)
    elif mapping.brand is None:
        mapping = mapping.with_brand(next(iter(brands)))
    if mapping.constant_brand is not None:
        choose(brands, mapping.constant_brand)
    return mapping


@dataclass(frozen=True)
class Plan:
    """Files that passed all checks: their columns, number of rows, and digests that stand twice."""

    files: tuple[Path, ...]
    mapping: ImportMapping
    columns: tuple[str, ...]
    total: int = 0
    repeated: frozenset[int] = frozenset()

    def bound(self) -> BoundMapping:
        """Return the mapping compiled for the files."""
        return BoundMapping(self.mapping, self.columns)

    def parts(self) -> list[list[int]]:
        """Return which files may be read beside each other: all, unless occurrences are counted."""
        indices = list(range(len(self.files)))
        return [indices] if self.bound().needs_hash else [[index] for index in indices]

    def chunks(self, indices: Sequence[int]) -> Iterator[Chunk]:
        """Yield the rows of these files, in order; the same chunks each time."""
        bound = self.bound()
        seen: dict[bytes, int] = {}
        for index in indices:
            rows = open_rows(self.files[index], self.mapping.format, self.columns)
            chunk = _empty(index)
            for line, parsed in rows.rows():
                if isinstance(parsed, Fault):
                    chunk.faults.append(parsed)
                else:
                    chunk.lines.append(line)
                    chunk.rows.append(parsed)
                    if bound.needs_hash:
                        chunk.hashes.append(self._row_hash(bound, parsed, seen))
                if len(chunk.lines) + len(chunk.faults) >= ROWS_A_CHUNK:
                    yield chunk
                    chunk = _empty(index)
            if chunk.lines or chunk.faults:
                yield chunk

    def _row_hash(self, bound: BoundMapping, cells: list[Any], seen: dict[bytes, int]) -> str:
        digest = _digest(bound, cells)
        occurrence = 0
        if int.from_bytes(digest[:_PREFIX_BYTES], "little") in self.repeated:
            occurrence = seen.get(digest, 0)
            seen[digest] = occurrence + 1
        return derived_event_id(self.mapping.source, digest.hex(), str(occurrence))


def plan(files: Sequence[Path], mapping: ImportMapping) -> Plan:
    """Read every file to its last byte; raises UnreadableFile or InvalidMapping."""
    if not files:
        raise UnreadableFile("no file was named")
    opened = [open_rows(file, mapping.format) for file in files]
    columns = _common_columns(files, opened)
    made = Plan(tuple(file.absolute() for file in files), mapping, tuple(columns))
    bound = made.bound()
    digests = array("Q")
    total = 0
    for rows in opened:
        if bound.needs_hash:
            total += _collect(bound, rows, digests)
        else:
            total += rows.count()
    return replace(made, total=total, repeated=_standing_twice(digests))


def _common_columns(files: Sequence[Path], opened: Sequence[Rows]) -> list[str]:
    """Return the columns of all files; rows that name their own get every file's."""
    first = opened[0]
    if isinstance(first, TextRows) and first.is_keyed:
        columns = list(dict.fromkeys(name for rows in opened for name in rows.columns))
        for rows in opened:
            rows.columns = columns
        return columns
    for file, rows in zip(files[1:], opened[1:], strict=True):
        if rows.columns != first.columns or _schema(rows) != _schema(first):
            raise UnreadableFile(
                f"{file}: its columns differ from those of {files[0]}; import it by itself"
            )
    return first.columns


def _schema(rows: Rows) -> object:
    return rows.schema if isinstance(rows, ParquetRows) else None


def _collect(bound: BoundMapping, rows: Rows, digests: array[int]) -> int:
    """Add 8 bytes of every row's digest; returns the number of rows."""
    total = 0
    for _, parsed in rows.rows():
        total += 1
        if not isinstance(parsed, Fault):
            prefix = _digest(bound, parsed)[:_PREFIX_BYTES]
            digests.append(int.from_bytes(prefix, "little"))
    return total


def _digest(bound: BoundMapping, cells: list[Any]) -> bytes:
    content = msgspec.json.encode(bound.identity_cells(cells), order="deterministic")
    return blake2b(content, digest_size=_DIGEST_BYTES).digest()


def _standing_twice(digests: array[int]) -> frozenset[int]:
    ordered = np.frombuffer(digests, dtype=np.uint64) if digests else np.empty(0, np.uint64)
    ordered = np.sort(ordered)
    return frozenset(ordered[1:][ordered[1:] == ordered[:-1]].tolist())


def _empty(file: int) -> Chunk:
    return Chunk(file, [], [], [], [])
