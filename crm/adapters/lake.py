"""The lake: immutable files in a local folder or an S3 bucket, behind one small class."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds
    from pyarrow import fs


@dataclass(frozen=True)
class LakeSettings:
    """`uri` None means a folder of the instance's own; else a path, `file://` or `s3://`.

    Events are written every `write_every_s` seconds.
    """

    uri: str | None = None
    write_every_s: float = 30.0


class Lake:
    """Files by name under one root; a file appears whole or not at all, and is never changed."""

    def __init__(self, uri: str) -> None:
        from pyarrow import fs as arrow_fs  # noqa: PLC0415 - 70 ms that the API never needs

        self._fs: fs.FileSystem
        self._fs, self._root = arrow_fs.FileSystem.from_uri(
            uri if "://" in uri else f"file://{uri}"
        )
        self._local = isinstance(self._fs, arrow_fs.LocalFileSystem)

    def write(self, name: str, data: bytes, *, durable: bool = False) -> None:
        """Store `data` under `name`; local files are written beside and renamed, as S3 does.

        A `durable` one is on the disk when this returns, as what is in a bucket always is.
        """
        path = f"{self._root}/{name}"
        if not self._local:
            with self._fs.open_output_stream(path) as out:
                out.write(data)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        with part.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.replace(target)
        if durable:
            _sync_folder(target.parent)

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

    def dataset(self, names: Iterable[str], schema: pa.Schema) -> ds.Dataset:
        """Return Parquet files as one dataset of `schema`; a column that a file lacks is null."""
        from pyarrow import dataset  # noqa: PLC0415 - see __init__

        paths = [f"{self._root}/{name}" for name in names]
        return dataset.dataset(paths, schema=schema, format="parquet", filesystem=self._fs)


def _sync_folder(folder: Path) -> None:
    """Have a rename in `folder` outlive the power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
