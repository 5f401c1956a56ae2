"""The schema, by plain SQL migrations: safe to run twice, and from two processes at once."""

from __future__ import annotations

from hashlib import sha256
from importlib.resources import files

import asyncpg

from crm.domain.errors import CrmError

_LOCK = 0x63726D  # "crm": one migration of one database at a time


class MigrationChanged(CrmError):
    """A migration that was already applied reads differently now."""

    code = "migration_changed"


async def migrate(dsn: str) -> list[str]:
    """Bring the database to the newest schema; return the names of the migrations applied now."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        return await _apply_missing(connection)
    finally:
        await connection.close()  # ends the session, and with it the advisory lock


async def _apply_missing(connection: asyncpg.Connection[asyncpg.Record]) -> list[str]:
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations ("
        "name text PRIMARY KEY, sha256 text NOT NULL, "
        "applied_at timestamptz NOT NULL DEFAULT now())"
    )
    rows = await connection.fetch("SELECT name, sha256 FROM schema_migrations")
    applied = {row["name"]: row["sha256"] for row in rows}
    now_applied: list[str] = []
    for name, sql in _migrations():
        digest = sha256(sql.encode()).hexdigest()
        if name in applied:
            if applied[name] != digest:
                message = (
                    f"migration {name} was changed after it was applied; add a new one instead"
                )
                raise MigrationChanged(message)
            continue
        async with connection.transaction():
            await connection.execute(sql)
            await connection.execute(
                "INSERT INTO schema_migrations (name, sha256) VALUES ($1, $2)", name, digest
            )
        now_applied.append(name)
    return now_applied


def _migrations() -> list[tuple[str, str]]:
    folder = files("crm.adapters.postgres") / "migrations"
    found = [item for item in folder.iterdir() if item.name.endswith(".sql")]
    return [
        (item.name, item.read_text(encoding="utf-8"))
        for item in sorted(found, key=lambda i: i.name)
    ]
