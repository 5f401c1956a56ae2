"""Old transitions in PostgreSQL: what the lake lacks of them, and what may be dropped."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from crm.adapters.postgres.live import read_transitions
from crm.adapters.postgres.pool import Pool
from crm.adapters.postgres.queries import load
from crm.domain.live import Position, Transition
from crm.domain.times import to_us
from crm.domain.transition_files import TransitionFile


class PostgresOldTransitions:
    """The beginning of `segment_transitions`; every call may raise DatabaseAway."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sql = load("old_transitions")

    async def in_lake(self) -> Position:
        """Return the place up to which the lake holds all."""
        async with self._pool.using() as connection:
            (row,) = await connection.fetch(self._sql["in_lake"])
        return Position(*row.values())

    async def lacking(self, after: Position, before: datetime, limit: int) -> Sequence[Transition]:
        """Return the next transitions after a place, in order, up to the first made since."""
        async with self._pool.using() as connection:
            rows = await connection.fetch(
                self._sql["lacking"], str(after.xact), after.id, before, limit
            )
        return read_transitions(rows)

    async def add(self, file: TransitionFile) -> bool:
        """List a file of the lake, if it begins where the lake ends."""
        after, last = file.after, file.last
        async with self._pool.using() as connection, connection.transaction():
            let_in = await connection.fetchval(
                self._sql["advance_lake"], str(after.xact), after.id, str(last.xact), last.id
            )
            if let_in is None:
                return False
            await connection.execute(
                self._sql["add_file"],
                file.name, str(last.xact), last.id, file.transitions, file.first_at, file.last_at,
            )  # fmt: skip
        return True

    async def files(self) -> list[str]:
        """Return the names of all files that are listed, in the stream's order."""
        async with self._pool.using() as connection:
            return [row["name"] for row in await connection.fetch(self._sql["files"])]

    async def drop(self, before: datetime, limit: int) -> int:
        """Drop up to so many that were made before a moment and stand in the lake; return how many.

        A cursor that comes before them is too old from then on.
        """
        async with self._pool.using() as connection:
            return int(await connection.fetchval(self._sql["drop_old"], before, limit))

    async def drop_clocks(self, before: datetime) -> None:
        """Drop the clocks of owners that own nothing, and have not told anything since a moment."""
        async with self._pool.using() as connection:
            await connection.execute(self._sql["drop_clocks"], to_us(before))

    async def close(self) -> None:
        """End every connection."""
        await self._pool.close()
