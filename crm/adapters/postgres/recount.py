"""The recount of features by hand-written SQL over the raw events."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from crm.adapters.postgres.pool import Pool
from crm.adapters.postgres.queries import load
from crm.domain.brands import Brand
from crm.domain.ports import ShardFeatures

_TIMEOUT_S = 600  # of a shard with very many events


class PostgresRecount:
    """Counts events again, each shard's up to a seq, as of a moment."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def of_shard(self, brand: Brand, of: ShardFeatures) -> dict[str, dict[str, int]]:
        """Return the features of a shard's players at the position of `of`; raises DatabaseAway."""
        return await self.up_to(brand, {of.shard: of.seq}, of.as_of)

    async def up_to(
        self, brand: Brand, seqs: Mapping[int, int], as_of: datetime
    ) -> dict[str, dict[str, int]]:
        """Return by player every feature that is not missing, raw; shards without a seq are out."""
        hour = as_of.replace(minute=0, second=0, microsecond=0) - timedelta(hours=23)
        asked = (
            brand.id, as_of, brand.local_day(as_of), hour, brand.time_zone,
            list(seqs), list(seqs.values()),
        )  # fmt: skip
        async with self._pool.using() as connection:
            rows = await connection.fetch(load("recount")["recount"], *asked, timeout=_TIMEOUT_S)
        found: dict[str, dict[str, int]] = {}
        for row in rows:
            found.setdefault(row["player_id"], {})[row["feature"]] = row["value"]
        return found
