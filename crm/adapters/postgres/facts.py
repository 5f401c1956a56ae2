"""Streams of facts in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from crm.adapters.postgres.pool import Pool
from crm.adapters.postgres.queries import load
from crm.domain.facts import Fact, NewFact, Stream

if TYPE_CHECKING:
    from crm.adapters.postgres.idempotency import Connection


class PostgresFacts:
    """Rows of `facts`; every call may raise DatabaseAway."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sql = load("facts")

    async def tell(self, stream: Stream, facts: Iterable[NewFact]) -> None:
        """Append facts to a stream."""
        async with self._pool.using() as connection, connection.transaction():
            await tell(connection, stream, facts)

    async def after(self, stream: Stream, seq: int, limit: int) -> list[Fact]:
        """Return at most `limit` facts behind `seq`, in order; nothing comes late before one."""
        async with self._pool.using() as connection:
            rows = await connection.fetch(self._sql["after"], stream, seq, limit)
        return [Fact(**{**row, "body": msgspec.json.decode(row["body"])}) for row in rows]

    async def head(self, stream: Stream) -> int:
        """Return the seq of a stream's newest fact, 0 before the first."""
        async with self._pool.using() as connection:
            return int(await connection.fetchval(self._sql["head"], stream) or 0)


async def tell(connection: Connection, stream: Stream, facts: Iterable[NewFact]) -> None:
    """Append facts within a transaction: late in it, for others wait until its end."""
    told = list(facts)
    if not told:
        return
    sql = load("facts")
    last = await connection.fetchval(sql["take_seqs"], stream, len(told))
    kinds, brands, bodies = zip(*told, strict=True)
    texts = [msgspec.json.encode(body).decode() for body in bodies]
    await connection.execute(sql["tell"], stream, last - len(told), kinds, brands, texts)
