"""The recount of features by hand-written SQL over the raw events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

from crm.adapters.lake import Lake
from crm.adapters.lake_events import sessions_before
from crm.adapters.postgres.lake import PostgresManifest
from crm.adapters.postgres.pool import Pool
from crm.adapters.postgres.queries import load
from crm.domain.brands import Brand
from crm.domain.own_measures import OwnMeasure
from crm.domain.ports import ShardFeatures

_TIMEOUT_S = 600  # of a shard with very many events


class PostgresRecount:
    """Counts events again, each shard's up to a seq, as of a moment.

    Sessions that were dropped from PostgreSQL are fetched back from `lake` for it.
    """

    name = "in SQL"

    def __init__(self, pool: Pool, lake: Lake | None = None) -> None:
        self._pool = pool
        self._lake = lake
        self._manifest = PostgresManifest(pool)
        self._sql = load("recount")
        self._own = load("own_measures")["recount_own_measure"]

    async def of_shard(self, brand: Brand, of: ShardFeatures) -> dict[str, dict[str, int]]:
        """Return the features of a shard's players at the position of `of`; raises DatabaseAway."""
        return await self.up_to(brand, {of.shard: of.seq}, of.as_of)

    async def up_to(
        self, brand: Brand, seqs: Mapping[int, int], as_of: datetime
    ) -> dict[str, dict[str, int]]:
        """Return by player every feature that is not missing, raw; shards without a seq are out."""
        hour = as_of.replace(minute=0, second=0, microsecond=0) - timedelta(hours=23)
        of, shards = (brand.id, as_of, brand.local_day(as_of), hour), (list(seqs), [*seqs.values()])
        before = await self._manifest.sessions_dropped()
        old_sessions = await self._sessions_in_the_lake(seqs, before)
        async with self._pool.using() as connection:
            fetch = partial(connection.fetch, timeout=_TIMEOUT_S)
            await connection.execute(self._sql["make_lake_sessions"])
            await connection.copy_records_to_table("lake_sessions", records=old_sessions)
            rows = await fetch(self._sql["recount"], *of, brand.time_zone, *shards)
            # one snapshot for all of it is not needed: what lies up to a seq never changes
            for measure in brand.measures:
                rows += await fetch(self._own, *of, *shards, *_asked(measure))
            await connection.execute(self._sql["drop_lake_sessions"])
        if await self._manifest.sessions_dropped() != before:  # some left in between
            return await self.up_to(brand, seqs, as_of)
        found: dict[str, dict[str, int]] = {}
        for row in rows:
            found.setdefault(row["player_id"], {})[row["feature"]] = row["value"]
        return found

    async def _sessions_in_the_lake(
        self, shards: Iterable[int], before: date | None
    ) -> list[tuple[Any, ...]]:
        """Return the sessions that PostgreSQL may have no more; it skips those that it has."""
        if before is None or self._lake is None:
            return []
        files = await self._manifest.files(shards)
        return await asyncio.to_thread(sessions_before, self._lake, files, before)


def _asked(measure: OwnMeasure) -> tuple[object, ...]:
    """Return a measure as the query takes it."""
    where = ", ".join(f"{json.dumps(name)}: [{', '.join(of)}]" for name, of in measure.where)
    return (
        measure.name, list(measure.event_types), f"{{{where}}}", measure.property_name,
        10**measure.decimals, measure.aggregate,
    )  # fmt: skip
