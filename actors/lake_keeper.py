"""The lake's keeper: one process that writes the log into the lake and keeps it tidy."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

import ray
import structlog
from ray.exceptions import RayActorError

from crm.adapters import clock
from crm.adapters.lake import Lake, LakeSettings
from crm.adapters.lake_events import LakeEventFiles
from crm.adapters.postgres.lake import PostgresManifest
from crm.adapters.postgres.pool import Pool
from crm.services.lake_writing import LakeWriter

log = structlog.get_logger(__name__)

NAME = "lake-keeper"
NAMESPACE = "crm"
TIDY_EVERY_S = 600.0


@dataclass(frozen=True)
class LakeSpec:
    """Where the log and the lake are; `lake.uri` is set."""

    dsn: str
    lake: LakeSettings


class LakeKeeper:
    """Works from its start on; Ray starts it again when it dies, and nothing is lost by that."""

    def __init__(self, spec: LakeSpec) -> None:
        self._spec = spec
        self._writer: LakeWriter | None = None
        self._tidied = -TIDY_EVERY_S
        self._work = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._spec.lake.write_every_s)
            try:
                if self._writer is None:  # a bucket may be away when this process starts
                    self._writer = await asyncio.to_thread(self._open)
                await self._round(self._writer)
            except Exception as error:  # noqa: BLE001 - whatever it was, the next round tries again
                log.warning("lake_not_written", error=f"{type(error).__name__}: {error}")

    def _open(self) -> LakeWriter:
        pool = Pool(self._spec.dsn, most=1)
        files = LakeEventFiles(Lake(str(self._spec.lake.uri)))
        return LakeWriter(PostgresManifest(pool), files, clock.now)

    async def _round(self, writer: LakeWriter) -> None:
        written = await writer.catch_up()
        if written:
            log.info("lake_written", events=written)
        now = asyncio.get_running_loop().time()
        if now - self._tidied > TIDY_EVERY_S:
            self._tidied = now
            merged, swept = await writer.compact(), await writer.sweep()
            await writer.drop_sessions()
            log.info("lake_tidied", merged=merged, deleted=swept)


LakeKeeperActor = ray.remote(max_restarts=-1, max_task_retries=0, num_cpus=0)(LakeKeeper)


def start(spec: LakeSpec) -> None:
    """Start the keeper; one of a former service ends."""
    stop()
    LakeKeeperActor.options(name=NAME, namespace=NAMESPACE, lifetime="detached").remote(spec)


def stop() -> None:
    """End the keeper: whatever it was at is done by the next one."""
    with contextlib.suppress(ValueError, RayActorError):
        ray.kill(ray.get_actor(NAME, namespace=NAMESPACE), no_restart=True)
