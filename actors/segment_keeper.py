"""The segments' keeper: one process that measures saved segments, and puts old transitions away."""

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
from crm.adapters.lake import Lake
from crm.adapters.lake_transitions import LakeTransitionFiles
from crm.adapters.postgres.events import PostgresEventLog
from crm.adapters.postgres.old_transitions import PostgresOldTransitions
from crm.adapters.postgres.pool import Pool
from crm.adapters.postgres.segments import PostgresSegments
from crm.domain.brands import Brand
from crm.services.old_transitions import drop_old
from crm.services.segment_sizes import measure_due

log = structlog.get_logger(__name__)

NAME = "segment-keeper"
NAMESPACE = "crm"
LOOK_EVERY_S = 60.0  # for segments that are due; a restart measures none twice
TIDY_EVERY_S = 600.0


@dataclass(frozen=True)
class SegmentsSpec:
    """Where the segments and the lake are, how often and how long."""

    brands: Mapping[str, Brand]
    dsn: str
    segments: SegmentSettings
    lake_uri: str


class SegmentKeeper:
    """Works from its start on; Ray starts it again when it dies, and nothing is lost by that."""

    def __init__(self, spec: SegmentsSpec) -> None:
        self._spec = spec
        pool = Pool(spec.dsn, most=1)
        self._store = PostgresSegments(pool)
        self._old = PostgresOldTransitions(pool)
        self._shards = ShardGateway(spec.brands, PostgresEventLog(spec.dsn, clock.now))
        self._tidied = -TIDY_EVERY_S
        self._work = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(min(LOOK_EVERY_S, self._spec.segments.size_every_s))
            for work in (self._measure, self._tidy):
                try:
                    await work()
                except Exception as error:  # noqa: BLE001 - the next round tries again
                    reason = f"{type(error).__name__}: {error}"
                    log.warning("segments_not_kept", work=work.__name__, error=reason)

    async def _measure(self) -> None:
        every = timedelta(seconds=self._spec.segments.size_every_s)
        measured = await measure_due(self._store, self._shards, self._spec.brands, clock.now, every)
        if measured:
            log.info("segments_measured", segments=measured)

    async def _tidy(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._tidied < TIDY_EVERY_S:
            return
        self._tidied = now
        # a bucket may be away when this process starts
        files = LakeTransitionFiles(await asyncio.to_thread(Lake, self._spec.lake_uri))
        kept = timedelta(days=self._spec.segments.transitions_kept_days)
        dropped = await drop_old(self._old, files, clock.now(), kept)
        if dropped:
            log.info("transitions_dropped", transitions=dropped)


SegmentKeeperActor = ray.remote(max_restarts=-1, max_task_retries=0, num_cpus=0)(SegmentKeeper)


def start(spec: SegmentsSpec) -> None:
    """Start the keeper; one of a former service, or with former brands, ends."""
    stop()
    SegmentKeeperActor.options(name=NAME, namespace=NAMESPACE, lifetime="detached").remote(spec)


def stop() -> None:
    """End the keeper: whatever it was at is done by the next one."""
    with contextlib.suppress(ValueError, RayActorError):
        ray.kill(ray.get_actor(NAME, namespace=NAMESPACE), no_restart=True)
