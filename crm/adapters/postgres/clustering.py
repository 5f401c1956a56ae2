"""Player clusters in PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from crm.adapters.postgres.pool import Pool
from crm.adapters.postgres.queries import load
from crm.domain.clustering import PlayerClusters


class PostgresClusterStore:
    """Trained models as rows of `player_clusters`; every call may raise DatabaseAway."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, model: PlayerClusters) -> None:
        """Store a model; storing the same id again changes nothing."""
        text = msgspec.json.encode(model).decode()
        async with self._pool.using() as connection:
            sql = load("clustering")["add"]
            await connection.execute(sql, model.id, model.brand, model.created_at, text)

    async def latest(self, brand: str) -> PlayerClusters | None:
        """Return the brand's newest model, or None if nothing was trained."""
        async with self._pool.using() as connection:
            text = await connection.fetchval(load("clustering")["latest"], brand)
        return None if text is None else msgspec.json.decode(text, type=PlayerClusters)


@asynccontextmanager
async def open_cluster_store(dsn: str) -> AsyncIterator[PostgresClusterStore]:
    """Yield a store with a small pool of its own, for a job."""
    pool = Pool(dsn, most=2)
    try:
        yield PostgresClusterStore(pool)
    finally:
        await pool.close()
