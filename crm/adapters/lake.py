"""The lake: immutable files in a local folder or an S3 bucket, behind one small class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyarrow import fs


@dataclass(frozen=True)
class LakeSettings:
    """`uri` None means a folder of the instance's own; else a path, `file://` or `s3://`."""

    uri: str | None = None


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
