"""Which batch builds of features there are, and which one is each brand's current."""

from __future__ import annotations

from datetime import datetime

from crm.adapters.postgres.pool import Pool
from crm.adapters.postgres.queries import load


class PostgresFeatureBuilds:
    """The list of builds; every method may raise DatabaseAway."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sql = load("feature_builds")

    async def add(
        self, folder: str, brand: str, as_of: datetime, known_by: datetime, players: int
    ) -> None:
        """Make a folder of the lake the current build of its brand."""
        async with self._pool.using() as connection:
            await connection.execute(
                self._sql["add_build"], folder, brand, as_of, known_by, players
            )

    async def current(self, brand: str) -> str | None:
        """Return the folder of a brand's current build."""
        async with self._pool.using() as connection:
            folder: str | None = await connection.fetchval(self._sql["current_build"], brand)
        return folder

    async def forget_old(self) -> None:
        """Take all but the last few builds of each brand off the list."""
        async with self._pool.using() as connection:
            await connection.execute(self._sql["forget_old_builds"])

    async def folders(self) -> set[str]:
        """Return the folder of every build on the list."""
        async with self._pool.using() as connection:
            rows = await connection.fetch(self._sql["builds"])
        return {row["folder"] for row in rows}
