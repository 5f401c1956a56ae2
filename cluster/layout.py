"""Where one instance keeps its files, and the short path its sockets need."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ServiceError

SOCKETS = Path("/tmp")  # noqa: S108  # not TMPDIR: that may be long, and a socket path has 107 bytes
ENOUGH_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Layout:
    """The folders under `var_dir`; `short` links to `run` and has under 20 bytes."""

    var_dir: Path

    @property
    def data(self) -> Path:
        return self.var_dir / "data"

    @property
    def log(self) -> Path:
        return self.var_dir / "log"

    @property
    def run(self) -> Path:
        return self.var_dir / "run"

    @property
    def state(self) -> Path:
        return self.run / "state.json"

    @property
    def in_force(self) -> Path:
        return self.run / "in-force.json"

    @property
    def lock(self) -> Path:
        return self.run / "lock"

    @property
    def token(self) -> Path:
        return self.run / "ray-token"

    @property
    def bootstrap_key(self) -> Path:
        return self.var_dir / "bootstrap-key"

    @property
    def short(self) -> Path:
        name = hashlib.sha256(f"{os.geteuid()} {self.var_dir}".encode()).hexdigest()[:10]
        return SOCKETS / f"crm-{name}"

    def prepare(self) -> None:
        """Make the folders and the short link; raises ServiceError when there is no room."""
        try:
            for folder in (self.var_dir, self.data, self.log, self.run):
                folder.mkdir(parents=True, exist_ok=True)
            self.run.chmod(0o711)  # the database's own user passes through it, nobody lists it
            self._link()
        except OSError as error:
            raise ServiceError(f"{self.var_dir} cannot be used: {error.strerror}") from error
        disk = os.statvfs(self.var_dir)
        free = disk.f_bavail * disk.f_frsize
        if free < ENOUGH_BYTES:
            raise ServiceError(
                f"the disk of {self.var_dir} is full: {free >> 20} MB are free and "
                f"{ENOUGH_BYTES >> 20} MB are needed; make room or set CRM_VAR_DIR"
            )

    def forget_short(self) -> None:
        """Remove the short link."""
        self.short.unlink(missing_ok=True)

    def _link(self) -> None:
        if self.short.is_symlink() and self.short.lstat().st_uid == os.geteuid():
            return  # ours, of this run or of one that was killed: its name says where it leads
        try:
            self.short.symlink_to(self.run)
        except FileExistsError:
            # A stranger's link could lead our sockets astray, so it is never followed.
            raise ServiceError(f"{self.short} is not ours: remove it and start again") from None
