"""All virtual shards in this process: `FeatureShards` over one owner, without Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from crm.domain.appending import Group, Verdict
from crm.domain.brands import Brand
from crm.domain.day_totals import Days, DayTotals
from crm.domain.errors import ShardsWarming
from crm.domain.ports import (
    Columns,
    Count,
    Explained,
    Members,
    PlayerFeatures,
    ShardFeatures,
    SomePlayers,
)
from crm.domain.rules import Rule
from crm.domain.shards import shard_of
from crm.domain.times import from_us
from crm.services.day_totals import DaysOfTables
from crm.services.player_features import (
    columns_of,
    in_order,
    player_features,
    shard_features,
    some_players,
)
from crm.services.segment_members import MemberPages, known
from crm.services.segment_why import explained
from crm.services.segments import by_cluster, matching
from crm.services.shard_owner import ShardOwner


class LocalShards:
    """What actors/gateway.py is across processes, in one: `owner` has every shard, and writes.

    It may be exchanged for its successor.
    """

    def __init__(self, owner: ShardOwner, brands: Mapping[str, Brand]) -> None:
        self.owner = owner
        self._brands = brands
        self._members = MemberPages()
        self._days = DaysOfTables()

    async def append(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        """Store events durably; return a verdict per event, in order."""
        verdicts = await self.owner.append(groups)
        if any("moved" in verdict for verdict in verdicts):
            raise ShardsWarming("a shard has another owner now")
        return verdicts

    async def features(self, brand: str, player_id: str) -> PlayerFeatures:
        """Return all features of a player, live; raises PlayerNotFound."""
        shard = shard_of(brand, player_id)
        table = await self.owner.table(brand)
        return player_features(table, brand, player_id, shard, self.owner.epochs[shard])

    async def count(self, brand: str, rule: Rule) -> Count:
        """Count the players that match `rule`."""
        table = await self.owner.table(brand)
        found = matching(table, self._brands[brand], rule)
        return Count(
            found.matches,
            found.total,
            from_us(table.now_us),
            sorted(found.sample),
            found.terms,
            by_cluster([found.clusters]),
        )

    async def members(self, brand: str, rule: str, after: str, limit: int) -> Members:
        """Return the first players after `after` that match."""
        table = await self.owner.table(brand)
        found = self._members.page(table, self._brands[brand], rule, after, limit)
        return Members(from_us(table.now_us), found)

    async def known(self, brand: str, player_ids: Sequence[str]) -> int:
        """Count those of `player_ids` that are here."""
        return known(await self.owner.table(brand), player_ids)

    async def explain(self, brand: str, rule: str, player_id: str) -> Explained:
        """Explain a rule for a player."""
        shard = shard_of(brand, player_id)
        table = await self.owner.table(brand)
        epoch = self.owner.epochs[shard]
        return explained(table, self._brands[brand], rule, player_id, shard, epoch)

    async def columns(self, brand: str, names: Sequence[str]) -> Columns:
        """Return features of all players of a brand."""
        table = await self.owner.table(brand)
        return Columns(from_us(table.now_us), list(table.player_ids), *columns_of(table, names))

    async def of_players(
        self, brand: str, player_ids: Sequence[str], names: Sequence[str]
    ) -> SomePlayers:
        """Return features of some players."""
        table = await self.owner.table(brand)
        everybody = range(len(player_ids))
        parts = [(everybody, some_players(table, player_ids, names))]
        return in_order(from_us(table.now_us), len(player_ids), names, parts)

    async def of_shard(self, brand: str, shard: int) -> ShardFeatures:
        """Return all features of a shard's players."""
        table = await self.owner.table(brand)
        return shard_features(table, shard, self.owner.epochs[shard], self.owner.heads[shard])

    async def day_totals(
        self, brand: str, asked: Days, spans: Sequence[Days]
    ) -> tuple[datetime, DayTotals]:
        """Return what all players did by day."""
        table = await self.owner.table(brand)
        totals = self._days.totals(table, self._brands[brand], asked, spans)
        return from_us(table.now_us), totals
