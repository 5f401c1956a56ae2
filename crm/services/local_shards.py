"""All virtual shards in this process: `FeatureShards` over one owner, without Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from crm.domain.appending import Group, Verdict
from crm.domain.brands import Brand
from crm.domain.feature_table import from_us
from crm.domain.ports import Columns, Count, PlayerFeatures
from crm.domain.segments import compile_mask, parse
from crm.domain.shards import shard_of
from crm.services.player_features import player_features
from crm.services.shard_owner import ShardOwner

_SAMPLE = 10


class LocalShards:
    """What actors/gateway.py is across processes, in one: `owner` has every shard, and writes."""

    def __init__(self, owner: ShardOwner, brands: Mapping[str, Brand]) -> None:
        self._owner = owner
        self._brands = brands

    async def append(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        """Store events durably; return a verdict per event, in order."""
        return await self._owner.append(groups)

    async def features(self, brand: str, player_id: str) -> PlayerFeatures:
        """Return all features of a player, live; raises PlayerNotFound."""
        shard = shard_of(brand, player_id)
        table = await self._owner.table(brand)
        return player_features(table, brand, player_id, shard, self._owner.epochs[shard])

    async def count(self, brand: str, rule: str) -> Count:
        """Count the players that match `rule`."""
        table = await self._owner.table(brand)
        mask = compile_mask(parse(rule), self._brands[brand], table, len(table))
        some = sorted(table.player_ids[row] for row in np.flatnonzero(mask)[:_SAMPLE].tolist())
        return Count(int(mask.sum()), len(table), from_us(table.now_us), some)

    async def columns(self, brand: str, names: Sequence[str]) -> Columns:
        """Return features of all players of a brand."""
        table = await self._owner.table(brand)
        found = {name: table.column(name) for name in names}
        return Columns(
            as_of=from_us(table.now_us),
            player_ids=list(table.player_ids),
            values={name: values.copy() for name, (values, _) in found.items()},
            missing={name: mask for name, (_, mask) in found.items() if mask is not None},
        )
