"""A disk of a test's own that can be full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.wait import wait_for

SIZE = 2 * 2**30  # a limit: memory is taken only by what lies on it


@dataclass(frozen=True)
class SmallDisk:
    """A tmpfs at `path` that shrinks to what lies on it, and grows again."""

    path: Path

    def fill(self) -> None:
        """Leave no byte free."""

        def shrunk() -> bool:
            disk = os.statvfs(self.path)
            used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
            return _resized(self.path, used)  # refused if more has come to lie on it meanwhile

        wait_for(shrunk, "the disk is full")

    def free(self) -> None:
        """Make room."""
        assert _resized(self.path, SIZE)


@contextmanager
def a_small_disk(path: Path) -> Iterator[SmallDisk]:
    """A disk at `path`, a folder that is made; PermissionError if this user may not have one."""
    path.mkdir(parents=True, exist_ok=True)
    mounted = _ran("mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=755", "crm-test", str(path))
    if not mounted:
        raise PermissionError("only root can have a disk of its own")
    try:
        yield SmallDisk(path)
    finally:
        # who still has files open on it keeps them until it ends
        _ran("umount", "--lazy", str(path))


def _resized(path: Path, size: int) -> bool:
    return _ran("mount", "-o", f"remount,size={size}", str(path))


def _ran(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0
