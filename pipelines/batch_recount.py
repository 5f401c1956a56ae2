"""The batch engine's word on one shard, for `crm verify features`."""

from __future__ import annotations

import asyncio

import polars as pl
import pyarrow as pa

from crm.adapters.lake import Lake
from crm.adapters.lake_events import scan
from crm.domain.brands import Brand
from crm.domain.ports import Manifest, ShardFeatures
from crm.services.lake_writing import LakeWriter
from crm.services.verification import Recounted
from pipelines.batch_features import features_at


class BatchRecount:
    """Features from the lake, which is first brought up to the position asked for."""

    name = "in batch"

    def __init__(self, manifest: Manifest, lake: Lake, writer: LakeWriter) -> None:
        self._manifest = manifest
        self._lake = lake
        self._writer = writer

    async def of_shard(self, brand: Brand, of: ShardFeatures) -> Recounted:
        """Return the features of a shard's players at the position of `of`; or DatabaseAway."""
        await self._writer.catch_up(shards=[of.shard])
        events = scan(self._lake, await self._manifest.files([of.shard]))
        upto = events.filter(pl.col("seq") <= of.seq)
        return _by_player(await asyncio.to_thread(features_at, upto, brand, of.as_of))


def _by_player(table: pa.Table) -> dict[str, dict[str, int]]:
    """Return what is not missing, by player and feature."""
    rows = table.to_pylist()
    return {
        row.pop("player_id"): {name: value for name, value in row.items() if value is not None}
        for row in rows
    }
