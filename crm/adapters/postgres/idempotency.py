"""Answers kept under an Idempotency-Key, in the transaction of the change that they tell of."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from crm.adapters.postgres.queries import load
from crm.domain.errors import DatabaseAway, KeyReused
from crm.domain.saved_segments import Once

if TYPE_CHECKING:
    Connection: TypeAlias = PoolConnectionProxy[asyncpg.Record]


async def answered(connection: Connection, once: Once | None) -> bytes | None:
    """Return the answer that the key has already; raises KeyReused if it was to another request."""
    if once is None:
        return None
    row = await connection.fetchrow(load("idempotency")["answer_of_key"], once.caller, once.key)
    if row is None:
        return None
    if row["request"] != once.request:
        raise KeyReused("this Idempotency-Key came with another request before; use a new one")
    answer: bytes = row["answer"]
    return answer


async def take(connection: Connection, once: Once | None) -> bytes | None:
    """Take the key within a transaction, or return the answer that it has; raises KeyReused."""
    if once is None:
        return None
    if await connection.fetchval(load("idempotency")["take_key"], *once):
        return None
    # another statement, with a newer snapshot: it sees what the first one waited for
    found = await answered(connection, once)
    if found is None:
        raise DatabaseAway("the Idempotency-Key was forgotten at this moment; try again")
    return found


async def note(connection: Connection, once: Once | None, answer: bytes) -> None:
    """Keep the answer under the key that this transaction has taken."""
    if once is not None:
        sql = load("idempotency")["note_answer"]
        await connection.execute(sql, once.caller, once.key, answer)
