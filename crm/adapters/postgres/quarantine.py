"""Refused events in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from crm.adapters.postgres.pool import Pool
from crm.adapters.postgres.queries import load
from crm.domain.ports import Quarantined


class PostgresQuarantine:
    """Keeps refused events, sealed."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def keep(
        self, received_at: datetime, source: str, refused: Sequence[Quarantined]
    ) -> None:
        """Store refused events; raises DatabaseAway."""
        async with self._pool.using() as connection:
            await connection.execute(
                load("events")["keep_in_quarantine"],
                received_at,
                source,
                [item.code for item in refused],
                [item.message for item in refused],
                [item.digest for item in refused],
                [item.sealed for item in refused],
            )
