"""Opening a file whatever it is packed with, known by its first bytes and never by its name."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import zstandard

from crm.domain.errors import CrmError

_BROKEN = (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, zstandard.ZstdError)


class UnreadableFile(CrmError):
    """A file cannot be imported as a whole; the message names it and says why."""

    code = "unreadable_file"


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, decompressed (gz, zst, or a zip of one file); raises UnreadableFile."""
    try:
        with path.open("rb") as raw, _decompressed(raw) as stream:
            yield stream
    except (*_BROKEN, NotImplementedError) as error:
        raise UnreadableFile(f"{path}: damaged or cut short ({error})") from error
    except OSError as error:
        raise UnreadableFile(f"{path}: {error.strerror or error}") from error


@contextmanager
def _decompressed(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    magic = raw.read(4)
    raw.seek(0)
    if magic[:2] == b"\x1f\x8b":
        with gzip.GzipFile(fileobj=raw) as stream:
            yield io.BufferedReader(cast("io.RawIOBase", stream), 1 << 18)
    elif magic == b"\x28\xb5\x2f\xfd":
        yield io.BufferedReader(_ZstdStream(raw), 1 << 18)
    elif magic == b"PK\x03\x04":
        with zipfile.ZipFile(raw) as archive:
            names = [item for item in archive.infolist() if not item.is_dir()]
            if len(names) != 1:
                raise zipfile.BadZipFile(f"a zip must hold one file, this one holds {len(names)}")
            if names[0].flag_bits & 1:
                raise zipfile.BadZipFile("a zip with a password")
            with archive.open(names[0]) as stream:
                yield stream
    else:
        yield raw


class _ZstdStream(io.RawIOBase):
    """Zstandard as a raw stream that notices a missing end; the library's own does not."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._decompressor = zstandard.ZstdDecompressor().decompressobj()
        self._ready = b""
        self._within = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._raw.read(1 << 12)  # each byte may become many
            if not data:
                if self._within:
                    raise EOFError("the end is missing")
                return 0
            self._feed(data)
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def _feed(self, data: bytes) -> None:
        parts = []
        while data:
            self._within = True
            parts.append(self._decompressor.decompress(data))
            if not self._decompressor.eof:
                break
            # frames may follow each other
            data = self._decompressor.unused_data
            self._decompressor = zstandard.ZstdDecompressor().decompressobj()
            self._within = False
        self._ready = b"".join(parts)
