"""The Serve deployment of the API: builds the services once a replica, and carries requests."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from ray import serve

from actors.gateway import ShardGateway
from actors.replays import RayReplays
from crm.adapters import clock
from crm.adapters.model_files import LakeModelFiles
from crm.adapters.postgres.events import PostgresEventLog
from crm.adapters.postgres.keys import PostgresKeys
from crm.adapters.postgres.models import PostgresModels
from crm.adapters.postgres.pool import Pool
from crm.adapters.postgres.quarantine import PostgresQuarantine
from crm.adapters.postgres.retrains import PostgresRetrains
from crm.adapters.postgres.segments import PostgresSegments
from crm.adapters.redis.answers import RedisAnswers
from crm.adapters.redis.cache import RedisCache
from crm.adapters.vault import open_vault
from crm.domain.brands import Brand
from crm.domain.events import Door
from crm.domain.rates import Rates
from crm.services.clustering import ServingClusters
from crm.services.ingest import Ingest
from crm.services.overview import Overviews
from crm.services.saved_segments import SavedSegments, new_segment_id
from deployments.api.app import create_app
from deployments.api.guard import KnownKeys
from deployments.api.services import Check, Services
from deployments.scores import ServedScores

REPLAYED_EVENTS = 2_000_000  # of all brands, by a request: about 10 s on two cores
NEEDED = frozenset({"postgres", "shards"})


@dataclass(frozen=True)
class ApiSpec:
    """What a replica needs to know."""

    brands: Mapping[str, Brand]
    rates: Rates
    dsn: str
    redis_url: str
    lake_uri: str
    vault_key: Path
    coalesce: bool = True


class Api:
    """One replica of the API."""

    def __init__(self, spec: ApiSpec) -> None:
        self._spec = spec

    def __serve_build_asgi_app__(self) -> FastAPI:  # Serve's own hook
        return create_app(_services(self._spec))


def _services(spec: ApiSpec) -> Services:
    pool = Pool(spec.dsn)
    models = PostgresModels(pool)
    gateway = ShardGateway(
        spec.brands, PostgresEventLog(spec.dsn, clock.now), coalesce=spec.coalesce
    )
    door = Door(spec.brands, open_vault(spec.vault_key), spec.rates)
    scores = ServedScores()
    return Services(
        brands=spec.brands,
        ingest=Ingest(door, gateway, PostgresQuarantine(pool), clock.now),
        shards=gateway,
        clusters=ServingClusters(models),
        models=models,
        model_files=LakeModelFiles(spec.lake_uri),
        segments=SavedSegments(
            PostgresSegments(pool), gateway, spec.brands, clock.now, new_segment_id
        ),
        overviews=Overviews(gateway, RedisAnswers(spec.redis_url, time.monotonic), clock.now),
        replays=RayReplays(spec.dsn, spec.lake_uri, REPLAYED_EVENTS),
        retrains=PostgresRetrains(pool),
        scores=scores,
        keys=KnownKeys(PostgresKeys(pool), time.monotonic),
        checks={**_checks(spec, pool, gateway), "models": scores.state},
        needed=NEEDED,
        now=clock.now,
    )


def _checks(spec: ApiSpec, pool: Pool, gateway: ShardGateway) -> Mapping[str, Check]:
    redis = RedisCache(spec.redis_url)

    async def postgres() -> str:
        async with pool.using() as connection:
            await connection.execute("SELECT 1")
        return "ok"

    async def shards() -> str:
        slots = (await gateway.routes()).slots
        return "ok" if all(slot.state.ready for slot in slots.values()) else "warming"

    async def cache() -> str:
        await redis.ping()
        return "ok"

    return {"postgres": postgres, "shards": shards, "redis": cache}


ApiDeployment = serve.deployment(
    name="api",
    ray_actor_options={"num_cpus": 0},
    max_ongoing_requests=256,
    max_queued_requests=1024,
    graceful_shutdown_wait_loop_s=0.1,
    graceful_shutdown_timeout_s=5,
    health_check_period_s=2,
    health_check_timeout_s=10,
)(serve.ingress()(Api))
