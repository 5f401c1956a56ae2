"""The embedded servers: no network, data that stays, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
from redis import Redis

from cluster.embedded import Embedded, EmbeddedPostgres, EmbeddedRedis
from cluster.layout import Layout
from tests.support.wait import wait_for

HOLDER = """
import sys, time
from pathlib import Path
from cluster.embedded import EmbeddedPostgres, EmbeddedRedis
from cluster.layout import Layout
layout = Layout(Path(sys.argv[1]))
parts = EmbeddedPostgres(layout), EmbeddedRedis(layout)
for part in parts:
    part.start()
print(*[note.pid for part in parts for note in part.processes()], flush=True)
time.sleep(600)
"""


@pytest.fixture
def layout() -> Iterator[Layout]:
    # not pytest's own folder: under root, nobody else may pass through that one
    with tempfile.TemporaryDirectory(prefix="crm-test-") as folder:
        layout = Layout(Path(folder) / "var")
        layout.prepare()
        yield layout
        layout.forget_short()


@pytest.fixture
def postgres(layout: Layout) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(layout)
    server.start()
    yield server
    server.stop()


async def test_committed_rows_survive_a_stop(postgres: EmbeddedPostgres, layout: Layout) -> None:
    await _execute(postgres, "CREATE TABLE kept AS SELECT 7 AS number")
    postgres.stop()
    again = EmbeddedPostgres(layout)
    again.start()
    try:
        assert await _value(again, "SELECT number FROM kept") == 7
    finally:
        again.stop()


async def test_committed_rows_survive_a_killed_server(
    postgres: EmbeddedPostgres, layout: Layout
) -> None:
    await _execute(postgres, "CREATE TABLE kept AS SELECT 7 AS number")
    postmaster, *others = postgres.processes()
    os.kill(postmaster.pid, signal.SIGKILL)
    wait_for(lambda: not postgres.running(), "the server is gone")
    assert (layout.data / "postgres" / "postmaster.pid").exists()
    again = EmbeddedPostgres(layout)
    again.start()
    try:
        assert await _value(again, "SELECT number FROM kept") == 7
        assert all(note.find() is None for note in others)
    finally:
        again.stop()


def test_a_lock_file_that_names_a_stranger_is_no_obstacle(layout: Layout) -> None:
    first = EmbeddedPostgres(layout)
    first.start()
    lock = layout.data / "postgres" / "postmaster.pid"
    lines = lock.read_text().splitlines()
    first.stop()
    stranger = os.getpid()
    lock.write_text("\n".join([str(stranger), lines[1], "1", *lines[3:]]))
    again = EmbeddedPostgres(layout)
    again.start()
    again.stop()
    assert psutil.pid_exists(stranger)


async def test_a_commit_is_durable(postgres: EmbeddedPostgres) -> None:
    for name in ("fsync", "synchronous_commit", "full_page_writes"):
        assert await _value(postgres, f"SHOW {name}") == "on"


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedRedis])
def test_a_server_listens_on_no_network(
    layout: Layout, kind: type[EmbeddedPostgres | EmbeddedRedis]
) -> None:
    server = kind(layout)
    server.start()
    try:
        listening = [
            connection
            for process in filter(None, (note.find() for note in server.processes()))
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listening == []
    finally:
        server.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedRedis])
def test_another_user_of_the_machine_cannot_connect(
    layout: Layout, kind: type[EmbeddedPostgres | EmbeddedRedis]
) -> None:
    server = kind(layout)
    server.start()
    sockets = [layout.short / "redis.sock", layout.short / "pg" / ".s.PGSQL.5432"]
    code = (
        "import os, socket, sys\n"
        "os.setgid(65534), os.setuid(65534)\n"
        "socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    )
    try:
        for path in (path for path in sockets if path.exists()):
            run = subprocess.run(
                [sys.executable, "-I", "-c", code, path],
                capture_output=True,
                text=True,
                check=False,
            )
            assert "PermissionError" in run.stderr
    finally:
        server.stop()


async def test_a_deeply_nested_folder_is_no_obstacle() -> None:
    with tempfile.TemporaryDirectory(prefix="crm-test-") as folder:
        layout = Layout(Path(folder) / ("d" * 100) / ("e" * 100) / "var")
        layout.prepare()
        server = EmbeddedPostgres(layout)
        server.start()
        try:
            assert await _value(server, "SELECT 1") == 1
        finally:
            server.stop()
            layout.forget_short()


def test_redis_keeps_its_keys_over_a_stop(layout: Layout) -> None:
    for expected in (1, 2):
        server = EmbeddedRedis(layout)
        server.start()
        with Redis.from_url(server.address) as client:
            assert client.incr("starts") == expected
        server.stop()


def test_the_servers_end_with_the_process_that_started_them(layout: Layout) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, layout.var_dir], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        servers = [psutil.Process(int(pid)) for pid in holder.stdout.readline().split()]
        holder.kill()
    _, alive = psutil.wait_procs(servers, timeout=20)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


async def _execute(server: Embedded, statement: str) -> None:
    connection = await asyncpg.connect(server.address)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _value(server: Embedded, query: str) -> object:
    connection = await asyncpg.connect(server.address)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()
