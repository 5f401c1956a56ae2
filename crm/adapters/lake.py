"""The lake: immutable files in a local folder or an S3 bucket, behind one small class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyarrow import fs


@dataclass(frozen=True)
class LakeSettings:
    """`uri` None means a folder of the instance's own; else a path, `file://` or `s3://`.

    Events are written every `write_every_s` seconds. Sessions older than `session_days` (at least
    the 90 days of the longest window) are dropped from PostgreSQL once they stand in the lake.
    """

    uri: str | None = None
    write_every_s: float = 30.0
    session_days: int = 400


class Lake:
    """Files by name under one root; a file appears whole or not at all, and is never changed."""

    def __init__(self, uri: str) -> None:
        from pyarrow import fs as arrow_fs  # noqa: PLC0415 - 70 ms that the API never needs

        self._fs: fs.FileSystem
        self._fs, self._root = arrow_fs.FileSystem.from_uri(
            uri if "://" in uri else f"file://{uri}"
        )
        self._local = isinstance(self._fs, arrow_fs.LocalFileSystem)

    def write(self, name: str, data: bytes) -> None:
        """Store `data` under `name`; local files are written beside and renamed, as S3 does."""
        path = f"{self._root}/{name}"
        if not self._local:
            with self._fs.open_output_stream(path) as out:
                out.write(data)
            return
        self._fs.create_dir(path.rpartition("/")[0], recursive=True)
        with self._fs.open_output_stream(f"{path}.part") as out:
            out.write(data)
        self._fs.move(f"{path}.part", path)

    def read(self, name: str) -> bytes:
        """Return the bytes under `name`; raises FileNotFoundError."""
        with self._fs.open_input_file(f"{self._root}/{name}") as file:
            return bytes(file.read())

    def delete(self, name: str) -> None:
        """Forget `name`; nothing happens if it is not there."""
        try:
            self._fs.delete_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return

    def local_paths(self, names: Iterable[str]) -> list[str] | None:
        """Return where files lie on this machine, or None if they are in a bucket."""
        return [f"{self._root}/{name}" for name in names] if self._local else None

    def names(self, folder: str) -> dict[str, datetime]:
        """Return the files under `folder`, and when each was last changed."""
        from pyarrow import fs as arrow_fs  # noqa: PLC0415 - see __init__

        chosen = arrow_fs.FileSelector(
            f"{self._root}/{folder}", recursive=True, allow_not_found=True
        )
        return {
            info.path.removeprefix(f"{self._root}/"): info.mtime
            for info in self._fs.get_file_info(chosen)
            if info.is_file
        }
