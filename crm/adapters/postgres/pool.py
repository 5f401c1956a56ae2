"""A process's pool of connections, and the one place that says that PostgreSQL is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from crm.domain.errors import DatabaseAway

AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # also of a connection that the server ends at this moment
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.exceptions.InsufficientResourcesError,
    asyncpg.exceptions.CannotConnectNowError,
    asyncpg.exceptions.ReadOnlySQLTransactionError,  # a standby, after a fail-over
)
_CONNECT_TIMEOUT_S = 5
_COMMAND_TIMEOUT_S = 10


def away(error: BaseException) -> DatabaseAway:
    """Return the fact behind a driver's error; the driver's own text may hold values."""
    return DatabaseAway(f"PostgreSQL does not answer ({type(error).__name__}); try again")


class Pool:
    """Connections made when first needed, so that a process starts while PostgreSQL is away."""

    def __init__(self, dsn: str, most: int = 4) -> None:
        self._dsn = dsn
        self._most = most
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()

    @asynccontextmanager
    async def using(self) -> AsyncIterator[PoolConnectionProxy[asyncpg.Record]]:
        """Lend a connection; raises DatabaseAway."""
        try:
            pool = await self._opened()
            async with pool.acquire(timeout=_CONNECT_TIMEOUT_S) as connection:
                yield connection
        except AWAY as error:
            raise away(error) from error

    async def close(self) -> None:
        """End every connection."""
        if self._pool is not None:
            await self._pool.close()

    async def _opened(self) -> asyncpg.Pool[asyncpg.Record]:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._dsn,
                    min_size=0,
                    max_size=self._most,
                    timeout=_CONNECT_TIMEOUT_S,
                    command_timeout=_COMMAND_TIMEOUT_S,
                    server_settings={"application_name": "crm-api"},
                )
            return self._pool
