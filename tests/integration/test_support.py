"""The tests' own servers: what other integration tests stand on."""

from __future__ import annotations

import asyncpg
import pytest
import redis
from asyncpg import Connection

from tests.support import postgres


async def _tables(dsn: str) -> int:
    connection: Connection = await asyncpg.connect(dsn)
    try:
        found = await connection.fetchval(
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        )
        return int(found)
    finally:
        await connection.close()


async def test_a_bare_database_has_no_tables(bare_dsn: str) -> None:
    assert await _tables(bare_dsn) == 0


async def test_a_database_of_a_test_is_migrated(dsn: str) -> None:
    assert await _tables(dsn) > 0


@pytest.mark.parametrize("turn", [1, 2])
async def test_no_test_sees_rows_of_another(bare_dsn: str, turn: int) -> None:
    connection: Connection = await asyncpg.connect(bare_dsn)
    try:
        await connection.execute("CREATE TABLE seen (turn int)")  # would exist in the second turn
    finally:
        await connection.close()


@pytest.mark.parametrize("turn", [1, 2])
def test_redis_is_empty_when_a_test_starts(redis_url: str, turn: int) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("turn", turn)


def test_a_dsn_keeps_its_socket_and_options() -> None:
    dsn = postgres.with_database("postgresql://u:p@/postgres?host=/run/pg&sslmode=disable", "crm")
    assert dsn == "postgresql://u:p@/crm?host=/run/pg&sslmode=disable"


def test_the_ray_of_the_run_works_off_a_task(ray_cluster: None) -> None:
    import ray

    assert ray.get(ray.remote(num_cpus=0)(lambda: 41 + 1).remote()) == 42
