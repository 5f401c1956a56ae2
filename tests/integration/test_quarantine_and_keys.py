"""Refused events and API keys on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import asyncpg
import pytest

from crm.adapters.postgres.keys import PostgresKeys, bootstrap_key
from crm.adapters.postgres.pool import Pool
from crm.adapters.postgres.quarantine import PostgresQuarantine
from crm.adapters.vault import FileKeyVault
from crm.domain.errors import DatabaseAway
from crm.domain.ports import Quarantined
from tests.support.builders import NOON

NOWHERE = "postgresql://nobody@127.0.0.1:1/none"


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Pool]:
    """Connections to an empty store."""
    opened = Pool(dsn)
    yield opened
    await opened.close()


async def _rows(dsn: str, query: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return list(await connection.fetch(query))
    finally:
        await connection.close()


def _digest(key: str) -> bytes:
    return sha256(key.encode()).digest()


async def test_refused_events_are_kept_in_order_and_sealed(pool: Pool, dsn: str) -> None:
    vault = FileKeyVault(b"k" * 32)
    sealed = vault.seal("", "", "quarantine", '{"player_id": "ana@example.com"}')
    kept = [
        Quarantined("invalid_field", "player_id must not be an e-mail address", b"1", sealed),
        Quarantined("card_number", "payment card numbers are never taken in", b"2", None),
    ]
    for _ in range(2):  # a client that sends its bad batch again and again
        await PostgresQuarantine(pool).keep(NOON, "http", kept)
    rows = await _rows(dsn, "SELECT * FROM quarantine ORDER BY id")
    assert [(r["received_at"], r["source"], r["code"], r["message"]) for r in rows] == [
        (NOON, "http", item.code, item.message) for item in kept
    ]
    assert rows[1]["sealed"] is None
    assert b"ana" not in rows[0]["sealed"]
    assert "ana@" in vault.unseal("", "", "quarantine", rows[0]["sealed"])


async def test_nothing_refused_keeps_nothing_and_much_is_kept_whole(pool: Pool, dsn: str) -> None:
    quarantine = PostgresQuarantine(pool)
    await quarantine.keep(NOON, "http", [])
    await quarantine.keep(
        NOON, "http", [Quarantined("x", "y", b"%d" % n, bytes(1000)) for n in range(5_000)]
    )
    (row,) = await _rows(dsn, "SELECT count(*) AS rows, min(length(sealed)) FROM quarantine")
    assert (row["rows"], row["min"]) == (5_000, 1000)


async def test_a_store_that_is_away_is_told_by_name_and_without_values() -> None:
    pool = Pool(NOWHERE)
    for asked in (
        PostgresKeys(pool).digests(),
        PostgresQuarantine(pool).keep(NOON, "http", [Quarantined("x", "ana", b"", None)]),
    ):
        with pytest.raises(DatabaseAway) as found:
            await asked
        assert "nobody" not in found.value.message
        assert "ana" not in found.value.message


async def test_a_pool_outlives_its_connections(pool: Pool, dsn: str) -> None:
    keys = PostgresKeys(pool)
    assert await keys.digests() == {}
    await _rows(
        dsn,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    for _ in range(3):  # each dead connection is told once at most
        try:
            assert await keys.digests() == {}
            break
        except DatabaseAway:
            continue
    assert await keys.digests() == {}


async def test_more_callers_than_connections_are_all_served(pool: Pool) -> None:
    found = await asyncio.gather(*[PostgresKeys(pool).digests() for _ in range(40)])
    assert found == [{}] * 40


async def test_the_first_key_is_made_once_and_lies_in_a_private_file(
    pool: Pool, dsn: str, tmp_path: Path
) -> None:
    key = await bootstrap_key(dsn, tmp_path)
    file = tmp_path / "bootstrap-key"
    assert file.read_text() == f"{key}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in os.scandir(tmp_path)] == ["bootstrap-key"]  # no draft is left
    assert len(key) > 40
    assert await PostgresKeys(pool).digests() == {_digest(key): "bootstrap"}
    assert await bootstrap_key(dsn, tmp_path) == key
    (row,) = await _rows(dsn, "SELECT * FROM api_keys")
    assert key not in str(dict(row))


async def test_a_lost_file_gets_a_new_key_and_the_old_one_opens_nothing(
    pool: Pool, dsn: str, tmp_path: Path
) -> None:
    old = await bootstrap_key(dsn, tmp_path)
    (tmp_path / "bootstrap-key").unlink()
    new = await bootstrap_key(dsn, tmp_path)
    assert new != old
    assert await PostgresKeys(pool).digests() == {_digest(new): "bootstrap"}


async def test_a_new_database_takes_the_key_that_lies_there(
    pool: Pool, dsn: str, tmp_path: Path
) -> None:
    key = await bootstrap_key(dsn, tmp_path)
    await _rows(dsn, "DELETE FROM api_keys")
    assert await bootstrap_key(dsn, tmp_path) == key
    assert await PostgresKeys(pool).digests() == {_digest(key): "bootstrap"}
