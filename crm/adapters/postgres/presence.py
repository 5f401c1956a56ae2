"""Whether a brand has any events at all."""

from __future__ import annotations

import asyncpg

from crm.adapters.postgres.queries import load


async def has_events(dsn: str, brand: str) -> bool:
    """Tell whether any event of `brand` was ever accepted."""
    connection = await asyncpg.connect(dsn)
    try:
        return bool(await connection.fetchval(load("presence")["has_events"], brand))
    finally:
        await connection.close()
