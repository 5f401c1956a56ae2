"""The real door, owner and log over PostgreSQL in this process, where mutants can be planted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import httpx

from crm.adapters.memory import MemoryEventLog, MemoryFiles, MemoryWatched
from crm.adapters.memory_answers import MemoryAnswers
from crm.adapters.memory_model_files import MemoryModelFiles
from crm.adapters.memory_retrains import MemoryRetrains
from crm.adapters.memory_segments import MemorySegments
from crm.adapters.postgres.events import PostgresEventLog
from crm.adapters.postgres.models import PostgresModels
from crm.adapters.postgres.pool import Pool
from crm.adapters.postgres.quarantine import PostgresQuarantine
from crm.domain.events import Door
from crm.domain.shards import SHARDS
from crm.services.clustering import ServingClusters
from crm.services.ingest import Ingest
from crm.services.overview import Overviews
from crm.services.saved_segments import SavedSegments, new_segment_id
from crm.services.shard_owner import ShardOwner, Stores
from deployments.api.app import create_app
from deployments.api.guard import KnownKeys
from deployments.api.services import Services
from tests.support.api import KEY, MemoryKeys, a_client
from tests.support.builders import OpenVault, a_brand
from tests.support.local_replays import LocalReplays
from tests.support.local_scores import LocalScores
from tests.support.local_shards import LocalShards
from tests.support.mix import now as real_now
from tests.support.owners import running

BRANDS = {"demo": a_brand()}


@dataclass
class LocalSystem:
    """A door that asks `shards`, whose owner may be replaced by a successor on the same log."""

    dsn: str
    client: httpx.AsyncClient
    shards: LocalShards
    _now: Callable[[], datetime]
    _owners: AsyncExitStack
    _files: MemoryFiles

    async def succeed(self) -> ShardOwner:
        """Start a successor that claims every shard; returns the former owner, which lives on.

        The successor waits as a real one does: until nobody believes the former owner any more.
        """
        former, self.shards.owner = (
            self.shards.owner,
            await self._owners.enter_async_context(_an_owner(self.dsn, "", self._now, self._files)),
        )
        return former


@asynccontextmanager
async def a_local_system(
    dsn: str, *, log_dsn: str = "", now: Callable[[], datetime] = real_now
) -> AsyncIterator[LocalSystem]:
    """A system on the database at `dsn`; its owner's log is at `log_dsn`, if that is elsewhere."""
    async with AsyncExitStack() as owners:
        files = MemoryFiles()
        owner = await owners.enter_async_context(_an_owner(dsn, log_dsn, now, files))
        shards, pool = LocalShards(owner, BRANDS), Pool(dsn)
        models = PostgresModels(pool)
        owners.push_async_callback(pool.close)
        services = Services(
            brands=BRANDS,
            ingest=Ingest(Door(BRANDS, OpenVault()), shards, PostgresQuarantine(pool), now),
            shards=shards,
            clusters=ServingClusters(models),
            models=models,
            model_files=MemoryModelFiles(),
            segments=SavedSegments(MemorySegments(), shards, BRANDS, now, new_segment_id),
            overviews=Overviews(shards, MemoryAnswers(lambda: 0.0), now),
            replays=LocalReplays(MemoryEventLog()),
            retrains=MemoryRetrains(),
            scores=LocalScores.over(shards, BRANDS, now),
            keys=KnownKeys(MemoryKeys(KEY), lambda: 0.0),
            checks={},
            needed=frozenset(),
            now=now,
        )
        app = create_app(services)
        async with a_client(app, {"authorization": f"Bearer {KEY}"}) as client:
            yield LocalSystem(dsn, client, shards, now, owners, files)


@asynccontextmanager
async def _an_owner(
    dsn: str, log_dsn: str, now: Callable[[], datetime], files: MemoryFiles
) -> AsyncIterator[ShardOwner]:
    log, side, history = [PostgresEventLog(to, now) for to in (log_dsn or dsn, dsn, dsn)]
    owner = ShardOwner(
        "owner", BRANDS, Stores(log, side, history, history, files, MemoryWatched()), now
    )
    try:
        async with running(owner, range(SHARDS)):
            yield owner
    finally:
        for one in (log, side, history):
            await one.close()
