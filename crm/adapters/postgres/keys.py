"""API keys in PostgreSQL, as digests; the bootstrap key also in a private file."""

from __future__ import annotations

import os
import secrets
from hashlib import sha256
from pathlib import Path

import asyncpg

from crm.adapters.postgres.pool import Pool
from crm.adapters.postgres.queries import load

BOOTSTRAP = "bootstrap"


class PostgresKeys:
    """Which API keys are known."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def digests(self) -> dict[bytes, str]:
        """Return the name of every key by the SHA-256 of the key; raises DatabaseAway."""
        async with self._pool.using() as connection:
            rows = await connection.fetch(load("keys")["key_names"])
        return {row["key_sha256"]: row["name"] for row in rows}


async def bootstrap_key(dsn: str, var_dir: Path) -> str:
    """Return the key of the first start, making it where file and database do not agree."""
    path = var_dir / "bootstrap-key"
    key = path.read_text(encoding="utf-8").strip() if path.exists() else ""
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        rows = await connection.fetch(load("keys")["key_names"])
        known = {row["key_sha256"] for row in rows if row["name"] == BOOTSTRAP}
        if key and sha256(key.encode()).digest() in known:
            return key
        key = key or f"crm_{secrets.token_urlsafe(32)}"
        _write_private(path, key)
        await connection.execute(load("keys")["put_key"], BOOTSTRAP, sha256(key.encode()).digest())
    finally:
        await connection.close()
    return key


def _write_private(path: Path, text: str) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(file, "w") as out:
        out.write(text + "\n")
    beside.replace(path)
