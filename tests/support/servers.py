"""The servers that tests run on: embedded ones, and configured ones where there are some."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

from tests.support import postgres, redis

Kind = Literal["embedded", "configured"]


@dataclass(frozen=True)
class Servers:
    """PostgreSQL's DSN (of a role that may make databases) and the URL of a Redis database."""

    dsn: str
    redis_url: str


def available() -> list[Kind]:
    """Embedded always; configured if the environment names one, or a local PostgreSQL trusts us."""
    named = postgres.configured_dsn() or redis.configured_url()
    return ["embedded", "configured"] if named else ["embedded"]


@contextmanager
def running(kind: Kind) -> Iterator[Servers]:
    """Servers of that kind; of configured ones, an embedded one stands in for what is not named."""
    dsn = postgres.configured_dsn() if kind == "configured" else None
    url = redis.configured_url() if kind == "configured" else None
    with ExitStack() as started:
        yield Servers(
            dsn=dsn or started.enter_context(postgres.embedded_server()),
            redis_url=url or started.enter_context(redis.embedded_server()),
        )
