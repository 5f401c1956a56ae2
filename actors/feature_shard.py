"""The actor around a shard owner: carries calls, holds no rules."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import ray
import structlog

from actors.wire import (
    ColumnsPart,
    CountPart,
    FeaturesOf,
    KnownPart,
    MembersPart,
    OwnerState,
    PlayersPart,
    TotalsPart,
    decode_append,
    decode_count_call,
    encode,
)
from crm.adapters import clock
from crm.adapters.lake import Lake
from crm.adapters.past import LakeAndLog
from crm.adapters.postgres.events import PostgresEventLog
from crm.adapters.postgres.lake import PostgresManifest
from crm.adapters.postgres.models import PostgresModels
from crm.adapters.postgres.pool import Pool
from crm.adapters.postgres.segments import PostgresSegments
from crm.adapters.scorers import open_scorer
from crm.domain.brands import Brand
from crm.domain.day_totals import Days
from crm.domain.errors import CrmError, ShardsWarming
from crm.domain.ports import Explained, PlayerFeatures, ShardFeatures
from crm.domain.times import from_us
from crm.services.day_totals import DaysOfTables
from crm.services.player_features import (
    columns_of,
    player_features,
    shard_features,
    some_players,
)
from crm.services.segment_members import MemberPages, known
from crm.services.segment_why import explained
from crm.services.segments import matching
from crm.services.served_models import ServedModels
from crm.services.shard_owner import ShardOwner, Stores
from crm.services.watched_models import WatchedModels
from crm.services.watched_segments import WatchedSegments

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class OwnerSpec:
    """What an owner needs to know; the same for a first owner and for a successor."""

    name: str
    brands: Mapping[str, Brand]
    dsn: str
    lake_uri: str
    snapshot_age_s: float
    coalesce: bool = True


class FeatureShard:
    """Owns the virtual shards that it is told to adopt, until it is told to release them.

    Pings are answered beside the writer, not behind it.
    """

    def __init__(self) -> None:
        self._owner: ShardOwner | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._days = DaysOfTables()
        self._members = MemberPages()

    @ray.method
    async def start(self, spec: OwnerSpec, shards: Sequence[int]) -> OwnerState:
        """Adopt the first shards; then serve, until another owner has claimed all."""
        stores = _stores(spec)
        await stores.history.epochs()  # connected before any shard waits for it
        owner = ShardOwner(spec.name, spec.brands, stores, clock.now)
        if not spec.coalesce:
            owner.max_batch = 1
        await owner.adopt(shards)
        self._owner = owner
        self._tasks = [
            asyncio.create_task(owner.write_forever()),
            asyncio.create_task(owner.beat_forever()),
            asyncio.create_task(owner.score_forever()),
            asyncio.create_task(owner.snapshot_forever(spec.snapshot_age_s)),
        ]
        for task in self._tasks:
            task.add_done_callback(partial(_give_up_if_it_failed, owner))
        self._tasks.append(asyncio.create_task(self._leave_when_lost(owner)))
        return _state(owner)

    @ray.method
    async def adopt(self, shards: Sequence[int], released: bool) -> OwnerState:
        """Serve these shards too; `released`: their former owner has let go of them."""
        owner = self._ready()
        await owner.adopt(shards, released=released)
        return _state(owner)

    @ray.method
    async def brands(self) -> Mapping[str, Brand]:
        """Return the brands that this owner knows."""
        return self._ready().brands

    @ray.method
    async def prepare(self, shards: Sequence[int]) -> None:
        """Count what these shards' snapshots lack of this owner's measures, ahead of adopting."""
        await self._ready().prepare(shards)

    @ray.method
    async def release(self, shards: Sequence[int]) -> list[int]:
        """Stop owning these shards, after a snapshot of each; return those that were owned."""
        return await self._ready().release(shards)

    @ray.method
    async def ping(self) -> OwnerState:
        """Say that this process is alive, and what it owns."""
        if self._owner is None:
            return OwnerState(ready=False, epochs={}, players=0, node=_node())
        return _state(self._owner)

    @ray.method
    async def append(self, call: bytes) -> bytes:
        """Store events; takes an encoded AppendCall, returns the encoded verdicts of its groups."""
        groups = decode_append(call).groups
        return encode(await self._ready().append(groups))

    @ray.method
    async def features(self, asked: Sequence[FeaturesOf]) -> list[PlayerFeatures | CrmError]:
        """Return players' features, live, or why there are none: one's fault is no other's."""
        return [await _features(self._ready(), one) for one in asked]

    @ray.method
    async def count(self, call: bytes) -> bytes:
        """Count players at a moment or later; takes an encoded CountCall, returns a CountPart."""
        owner, asked = self._ready(), decode_count_call(call)
        table = await owner.scored_table(asked.brand, from_us(asked.as_of_us))
        found = matching(table, owner.brands[asked.brand], asked.rule)
        return encode(CountPart(table.now_us, owner.epochs, *found))

    @ray.method
    async def members(
        self, brand: Brand, rule: str, after: str, limit: int, as_of_us: int
    ) -> MembersPart:
        """Return the first players after `after` that match, at `as_of_us` or later, in order."""
        owner = self._ready()
        await self._members.prepare(await owner.table(brand.id))
        table = await owner.scored_table(brand.id, from_us(as_of_us))
        found = self._members.page(table, brand, rule, after, limit)
        return MembersPart(table.now_us, dict(owner.epochs), found)

    @ray.method
    async def known(self, brand: str, player_ids: Sequence[str], as_of_us: int) -> KnownPart:
        """Count those of `player_ids` that are here."""
        owner = self._ready()
        table = await owner.table(brand, from_us(as_of_us))
        return KnownPart(table.now_us, dict(owner.epochs), known(table, player_ids))

    @ray.method
    async def explain(self, brand: Brand, rule: str, player_id: str, shard: int) -> Explained:
        """Explain a rule for a player, live."""
        owner = self._ready()
        table = await owner.table(brand.id)
        if not owner.owns(shard):
            raise ShardsWarming("this shard has another owner")
        return explained(table, brand, rule, player_id, shard, owner.epochs[shard])

    @ray.method
    async def columns(self, brand: str, names: Sequence[str], as_of_us: int) -> ColumnsPart:
        """Return features of all players of `brand`, at `as_of_us` or later."""
        owner = self._ready()
        table = await owner.table(brand, from_us(as_of_us))
        values, missing = columns_of(table, names)
        return ColumnsPart(
            table.now_us, dict(owner.epochs), list(table.player_ids), values, missing
        )

    @ray.method
    async def of_players(
        self, brand: str, asked: Sequence[FeaturesOf], names: Sequence[str], as_of_us: int | None
    ) -> PlayersPart:
        """Return features of players of `brand`, at `as_of_us` or later; None: now."""
        owner = self._ready()
        table = await owner.table(brand, None if as_of_us is None else from_us(as_of_us))
        shards = {one.shard for one in asked}
        if not shards <= owner.epochs.keys():
            raise ShardsWarming("a shard has another owner")
        found = some_players(table, [one.player_id for one in asked], names)
        return PlayersPart(table.now_us, {shard: owner.epochs[shard] for shard in shards}, *found)

    @ray.method
    async def day_totals(
        self, brand: Brand, asked: Days, spans: Sequence[Days], as_of_us: int
    ) -> TotalsPart:
        """Return what all players of `brand` did by day, at `as_of_us` or later."""
        owner = self._ready()
        await self._days.prepare(await owner.table(brand.id), asked)
        table = await owner.table(brand.id, from_us(as_of_us))
        totals = self._days.totals(table, brand, asked, spans)
        return TotalsPart(table.now_us, dict(owner.epochs), totals)

    @ray.method
    async def shard_features(self, brand: str, shard: int) -> ShardFeatures:
        """Return all features of a shard's players, with the position that they are of."""
        owner = self._ready()
        table = await owner.table(brand)
        if not owner.owns(shard):
            raise ShardsWarming("this shard has another owner")
        return shard_features(table, shard, owner.epochs[shard], owner.heads[shard])

    @ray.method
    async def stop(self) -> None:
        """Take the last snapshots and let go."""
        if self._owner is not None:
            for task in self._tasks:
                task.cancel()
            await self._owner.stop()
            self._owner = None

    async def _leave_when_lost(self, owner: ShardOwner) -> None:
        await owner.lost_all.wait()
        log.warning("owner_leaves", owner=owner.name)
        await asyncio.sleep(1)  # callers in flight get their refusal
        ray.actor.exit_actor()  # type: ignore[no-untyped-call]  # Ray has no types

    def _ready(self) -> ShardOwner:
        if self._owner is None:
            raise ShardsWarming("the shard's features are being loaded; try again")
        return self._owner


def _give_up_if_it_failed(owner: ShardOwner, task: asyncio.Task[None]) -> None:
    """Let a successor take over from an owner whose writer, beat or snapshots have ended."""
    if not task.cancelled() and (error := task.exception()):
        log.error("owner_task_failed", owner=owner.name, error=type(error).__name__)
        owner.give_up()


def _stores(spec: OwnerSpec) -> Stores:
    lake, history = Lake(spec.lake_uri), PostgresEventLog(spec.dsn, clock.now)
    segments = PostgresSegments(Pool(spec.dsn, most=1))
    models = PostgresModels(Pool(spec.dsn, most=1))
    return Stores(
        log=PostgresEventLog(spec.dsn, clock.now),
        side=PostgresEventLog(spec.dsn, clock.now),
        history=history,
        past=LakeAndLog(history, PostgresManifest(Pool(spec.dsn, most=1)), lake),
        files=lake,
        segments=WatchedSegments(segments, spec.brands),
        models=WatchedModels(
            ServedModels(models, spec.brands, open_scorer, time.monotonic), spec.brands
        ),
    )


def _state(owner: ShardOwner) -> OwnerState:
    ready = not owner.lost_all.is_set()
    return OwnerState(ready, dict(owner.epochs), owner.players, _node(), os.getpid())


def _node() -> str:
    return str(ray.get_runtime_context().get_node_id())


async def _features(owner: ShardOwner, asked: FeaturesOf) -> PlayerFeatures | CrmError:
    brand, player_id, shard = asked
    try:
        table = await owner.table(brand)
        if not owner.owns(shard):
            return ShardsWarming("this shard has another owner")
        return player_features(table, brand, player_id, shard, owner.epochs[shard])
    except CrmError as fault:
        return fault


FeatureShardActor = ray.remote(max_restarts=0, max_task_retries=0, num_cpus=0)(FeatureShard)
