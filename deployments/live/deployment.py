"""The Serve deployment of the live socket: its places are its own, none of them is the API's."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import uvicorn
from ray import serve
from starlette.types import ASGIApp

from actors.gateway import ShardGateway
from crm.adapters import clock
from crm.adapters.postgres.events import PostgresEventLog
from crm.adapters.postgres.facts import PostgresFacts
from crm.adapters.postgres.keys import PostgresKeys
from crm.adapters.postgres.live import (
    PostgresJobs,
    PostgresLog,
    PostgresTickets,
    PostgresTransitions,
)
from crm.adapters.postgres.pool import Pool
from crm.domain.brands import Brand
from crm.domain.rules import Compare
from crm.services.live import Hub
from crm.services.live_figures import FactBoard, Figures, JobBoard
from crm.services.live_reading import Reader
from deployments.api.guard import KnownKeys
from deployments.live import messages
from deployments.live.app import create_app, every_second
from deployments.live.services import Limits, LiveServices

CONNECTIONS = 8  # of the database: for tickets and for what single subscribers have missed
EVERYBODY = Compare("bet_count_lifetime", ">=", 0)  # a rule that is true of all players


@dataclass(frozen=True)
class LiveSpec:
    """What a replica needs to know; `direct_dsn` bypasses a PgBouncer."""

    brands: Mapping[str, Brand]
    dsn: str
    direct_dsn: str
    sockets: int = Limits.sockets


class Live:
    """One replica."""

    def __init__(self, spec: LiveSpec) -> None:
        self._spec = spec
        _bound_sockets()

    def __serve_build_asgi_app__(self) -> ASGIApp:  # Serve's own hook
        return build(self._spec)


def build(spec: LiveSpec) -> ASGIApp:
    """Return the application over PostgreSQL and the shard owners."""
    pool = Pool(spec.dsn, most=CONNECTIONS)
    transitions = PostgresTransitions(spec.direct_dsn, pool)
    hub = Hub(messages.transition_text, clock.now)
    gateway = ShardGateway(spec.brands, PostgresEventLog(spec.dsn, clock.now))

    async def count_players(brand: str) -> int:
        return (await gateway.count(brand, EVERYBODY)).total

    figures = Figures(
        hub, PostgresLog(pool), count_players, messages.counters_body, clock.now, time.monotonic
    )
    jobs = JobBoard(hub, PostgresJobs(pool), time.monotonic)
    facts = FactBoard(hub, PostgresFacts(pool))
    keys = PostgresKeys(pool)
    services = LiveServices(
        brands=spec.brands,
        keys=KnownKeys(keys, time.monotonic),
        digests=keys,
        tickets=PostgresTickets(pool),
        hub=hub,
        missed=transitions,
        jobs=jobs,
        facts=facts,
        clock=clock.now,
        limits=Limits(sockets=spec.sockets),
    )
    reader = Reader(transitions, hub)
    each_second = [every_second(tick) for tick in (figures.tick, jobs.tick, facts.tick)]
    works = (reader.follow, *each_second)
    return create_app(services, works)


def _bound_sockets() -> None:
    """Have uvicorn refuse long messages before it holds them, and compress none.

    Serve makes uvicorn's configuration and has no setting for its sockets: 16 MB a message, from
    anybody, and 40 kB of memory a socket for a compressor.
    """
    if not isinstance(uvicorn.Config, partial):
        uvicorn.Config = partial(  # type: ignore[misc,assignment]  # Serve calls it, no more
            uvicorn.Config, ws_max_size=messages.LONGEST, ws_per_message_deflate=False
        )


LiveDeployment = serve.deployment(
    name="live",
    ray_actor_options={"num_cpus": 0},
    max_ongoing_requests=4_096,
    max_queued_requests=256,
    max_surge_percent=100,  # the next replica is there before the former one sends its clients away
    graceful_shutdown_wait_loop_s=0.1,
    graceful_shutdown_timeout_s=5,
    health_check_period_s=2,
    health_check_timeout_s=10,
)(serve.ingress()(Live))
