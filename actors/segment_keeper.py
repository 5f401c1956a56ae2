"""The segments' keeper: one process that measures saved segments every so often."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import ray
import structlog
from ray.exceptions import RayActorError

from actors.gateway import ShardGateway
from actors.settings import SegmentSettings
from crm.adapters import clock
from crm.adapters.postgres.events import PostgresEventLog
from crm.adapters.postgres.pool import Pool
from crm.adapters.postgres.segments import PostgresSegments
from crm.domain.brands import Brand
from crm.services.segment_sizes import measure_due

log = structlog.get_logger(__name__)

NAME = "segment-keeper"
NAMESPACE = "crm"
LOOK_EVERY_S = 60.0  # for segments that are due; a restart measures none twice


@dataclass(frozen=True)
class SegmentsSpec:
    """Where the segments are, and how often they are measured."""

    brands: Mapping[str, Brand]
    dsn: str
    segments: SegmentSettings


class SegmentKeeper:
    """Works from its start on; Ray starts it again when it dies, and nothing is lost by that."""

    def __init__(self, spec: SegmentsSpec) -> None:
        self._brands = spec.brands
        self._every = timedelta(seconds=spec.segments.size_every_s)
        self._store = PostgresSegments(Pool(spec.dsn, most=1))
        self._shards = ShardGateway(spec.brands, PostgresEventLog(spec.dsn, clock.now))
        self._work = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(min(LOOK_EVERY_S, self._every.total_seconds()))
            try:
                measured = await measure_due(
                    self._store, self._shards, self._brands, clock.now, self._every
                )
            except Exception as error:  # noqa: BLE001 - whatever it was, the next round tries again
                log.warning("segments_not_measured", error=f"{type(error).__name__}: {error}")
            else:
                if measured:
                    log.info("segments_measured", segments=measured)


SegmentKeeperActor = ray.remote(max_restarts=-1, max_task_retries=0, num_cpus=0)(SegmentKeeper)


def start(spec: SegmentsSpec) -> None:
    """Start the keeper; one of a former service, or with former brands, ends."""
    stop()
    SegmentKeeperActor.options(name=NAME, namespace=NAMESPACE, lifetime="detached").remote(spec)


def stop() -> None:
    """End the keeper: whatever it was at is done by the next one."""
    with contextlib.suppress(ValueError, RayActorError):
        ray.kill(ray.get_actor(NAME, namespace=NAMESPACE), no_restart=True)
