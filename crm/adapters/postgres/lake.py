"""The lake's manifest in PostgreSQL, and the rows that the lake still lacks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime

import asyncpg

from crm.adapters.postgres.pool import Pool
from crm.adapters.postgres.queries import load
from crm.domain.lake_files import LakeFile
from crm.domain.ports import Span

_TIMEOUT_S = 300
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '500ms'"


class PostgresManifest:
    """What stands in the lake; every method may raise DatabaseAway."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sql = load("lake")

    async def lags(self) -> dict[int, Span]:
        """Return by shard the seqs that the log has and the lake lacks."""
        async with self._pool.using() as connection:
            rows = await connection.fetch(self._sql["lags"])
        return {row["shard"]: Span(row["written"], row["head"]) for row in rows}

    async def events(self, spans: Mapping[int, Span]) -> bytes:
        """Return the events of each shard's span from PostgreSQL, by shard and seq, as CSV."""
        parts: list[bytes] = []

        async def keep(part: bytes) -> None:
            parts.append(bytes(part))

        columns = (list(spans), [s.after for s in spans.values()], [s.upto for s in spans.values()])
        async with self._pool.using() as connection:
            await connection.copy_from_query(
                self._sql["events_between"], *columns, output=keep, format="csv", timeout=_TIMEOUT_S
            )
        return b"".join(parts)

    async def add(self, files: Sequence[LakeFile]) -> list[LakeFile]:
        """List those of `files` (one a shard) that begin where the lake ends; return them."""
        shards, firsts, lasts, *_ = _columns(files)
        async with self._pool.using() as connection, connection.transaction():
            rows = await connection.fetch(self._sql["advance"], shards, firsts, lasts)
            let_in = {row["shard"] for row in rows}
            listed = [file for file in files if file.shard in let_in]
            await connection.execute(self._sql["list_files"], *_columns(listed))
        return listed

    async def files(self, shards: Iterable[int]) -> list[LakeFile]:
        """Return the files of `shards`, in the order of shards and seqs."""
        async with self._pool.using() as connection:
            rows = await connection.fetch(self._sql["files"], list(shards))
        return [LakeFile(*row.values()) for row in rows]

    async def replace(self, old: Sequence[LakeFile], new: LakeFile) -> bool:
        """List `new` in the place of `old`; nothing happens if one of these is gone."""
        names = [file.name for file in old]
        async with self._pool.using() as connection:
            transaction = connection.transaction()
            await transaction.start()
            gone = await connection.fetch(self._sql["unlist_files"], new.shard, names)
            if len(gone) != len(names):
                await transaction.rollback()
                return False
            await connection.execute(self._sql["list_files"], *_columns([new]))
            await connection.execute(self._sql["mark_replaced"], names)
            await transaction.commit()
        return True

    async def replaced_before(self, moment: datetime) -> list[str]:
        """Return names that stand for nothing any more since before `moment`."""
        async with self._pool.using() as connection:
            rows = await connection.fetch(self._sql["replaced_before"], moment)
        return [row["name"] for row in rows]

    async def forget_replaced(self, names: Sequence[str]) -> None:
        """Note that the bytes of these are gone."""
        async with self._pool.using() as connection:
            await connection.execute(self._sql["forget_replaced"], names)

    async def drop_sessions(self, before: date) -> list[str]:
        """Drop the days of sessions before `before` that stand in the lake whole.

        Returns the partitions' names. A day that somebody is writing to waits for the next time.
        """
        async with self._pool.using() as connection:
            rows = await connection.fetch(self._sql["droppable_sessions"], before)
            names = [row["name"] for row in rows]
            dropped = [name for name in names if await self._drop(connection, name, before)]
            async with connection.transaction():
                await connection.execute(self._sql["note_dropped"], before)
                await connection.execute(self._sql["drop_old_sessions"], timeout=_TIMEOUT_S)
        return dropped

    async def _drop(
        self, connection: asyncpg.pool.PoolConnectionProxy[asyncpg.Record], name: str, before: date
    ) -> bool:
        """Drop one partition, unless the lake lacks a row of it; its lock keeps late rows out."""
        try:
            async with connection.transaction():
                await connection.execute(_LOCK_TIMEOUT)
                await connection.execute(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")
                lacking = await connection.fetchval(
                    f"SELECT EXISTS (SELECT FROM {name} p JOIN lake_shards l USING (shard)"  # noqa: S608 - a name of our own making
                    " WHERE p.seq > l.seq)"
                )
                if lacking:
                    return False
                await connection.execute(self._sql["note_dropped"], before)
                await connection.execute(f"DROP TABLE {name}")
        except asyncpg.LockNotAvailableError:
            return False
        return True

    async def sessions_dropped(self) -> date | None:
        """Return the day before which sessions may stand in the lake alone."""
        async with self._pool.using() as connection:
            before: date | None = await connection.fetchval(self._sql["sessions_dropped"])
        return before


def _columns(files: Sequence[LakeFile]) -> list[list[object]]:
    """Return the files column by column, as `unnest` takes them."""
    if not files:
        return [[] for _ in LakeFile._fields]
    return [list(column) for column in zip(*files, strict=True)]
