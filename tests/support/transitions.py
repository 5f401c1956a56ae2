"""Who writes transitions, as the shard owners do: in a transaction that notifies."""

from __future__ import annotations

import asyncpg

from crm.domain.live import Transition

INSERT = (
    "INSERT INTO segment_transitions"
    " (shard, brand, segment, version, player_id, entered, seq, at)"
    " SELECT * FROM unnest($1::smallint[], $2::text[], $3::text[], $4::int[], $5::text[],"
    " $6::bool[], $7::bigint[], $8::timestamptz[])"
)


class Open:
    """A transaction that is open."""

    def __init__(
        self,
        connection: asyncpg.Connection[asyncpg.Record],
        transaction: asyncpg.transaction.Transaction,
    ) -> None:
        self._connection = connection
        self._transaction = transaction

    async def write(self, *transitions: Transition) -> None:
        """Write transitions; their positions are the database's."""
        await insert(self._connection, *transitions)

    async def commit(self) -> None:
        """Show them, and tell of them."""
        await self._connection.execute("NOTIFY segment_transitions")
        await self._transaction.commit()

    async def end(self) -> None:
        """End the connection, whatever is open."""
        self._connection.terminate()


async def begin(dsn: str) -> Open:
    """Open a transaction that has its number."""
    connection = await asyncpg.connect(dsn)
    transaction = connection.transaction()
    await transaction.start()
    await connection.fetchval("SELECT pg_current_xact_id()")
    return Open(connection, transaction)


async def insert(connection: asyncpg.Connection[asyncpg.Record], *transitions: Transition) -> None:
    """Insert transitions within the connection's transaction."""
    await connection.execute(
        INSERT,
        [one.shard for one in transitions],
        [one.brand for one in transitions],
        [one.segment for one in transitions],
        [one.version for one in transitions],
        [one.player_id for one in transitions],
        [one.entered for one in transitions],
        [one.seq for one in transitions],
        [one.at for one in transitions],
    )
