"""The keeper of retrains: asks for what is due, submits it to Ray, and finds what has ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import ray
import structlog
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.drift_looks import DriftLooks
from actors.gateway import ShardGateway
from actors.ray_jobs import RayJobs
from actors.retrain_metrics import RetrainMetrics
from actors.settings import RetrainSettings
from crm.adapters import clock
from crm.adapters.model_files import LakeModelFiles
from crm.adapters.postgres.events import PostgresEventLog
from crm.adapters.postgres.live import PostgresJobs
from crm.adapters.postgres.models import PostgresModels
from crm.adapters.postgres.pool import Pool
from crm.adapters.postgres.retrains import PostgresRetrains
from crm.domain.brands import Brand
from crm.domain.drift import Thresholds
from crm.domain.errors import CrmError
from crm.domain.live import Job, JobState
from crm.domain.retrains import Retrain
from crm.services.retraining import Change, Plan, ask_drifted, ask_planned, look_after

log = structlog.get_logger(__name__)

NAME = "retrain-keeper"
NAMESPACE = "crm"
ENTRYPOINT = ("python", "-m", "pipelines.retraining", "--id")
_UNKNOWN = datetime(1970, 1, 1, tzinfo=UTC)  # the store's clock decides
_EVENTS = {"asked": "retrain_asked", "submitted": "retrain_submitted"}
_STATES: Mapping[str, JobState] = {"done": "done", "failed": "failed"}


@dataclass(frozen=True)
class RetrainsSpec:
    """Where retrains, models and the lake are, and what is due when; jobs get `runtime_env`."""

    brands: Mapping[str, Brand]
    dsn: str
    lake_uri: str
    retrains: RetrainSettings
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ENTRYPOINT


class RetrainKeeper:
    """Works from its start on; Ray starts it again when it dies, and nothing is lost by that."""

    def __init__(self, spec: RetrainsSpec) -> None:
        pool = Pool(spec.dsn, most=2)
        settings = spec.retrains
        self._spec = spec
        self._plans = [Plan(plan.kind, plan.schedule(), plan.brand) for plan in settings.plans]
        self._store = PostgresRetrains(pool)
        self._jobs = RayJobs(spec.entrypoint, spec.runtime_env, settings.batch)
        self._told = PostgresJobs(pool)
        self._looks = DriftLooks(
            spec.brands,
            PostgresModels(Pool(spec.dsn, most=1)),
            LakeModelFiles(spec.lake_uri),
            ShardGateway(spec.brands, PostgresEventLog(spec.dsn, clock.now)),
            Thresholds(settings.drift.features, settings.drift.scores),
        )
        self._metrics = RetrainMetrics()
        self._known: set[str] = set()  # those that had not ended at the last look
        self._tasks = [asyncio.get_running_loop().create_task(self._keep())]
        if settings.drift.every_s:
            self._tasks.append(asyncio.get_running_loop().create_task(self._watch_drift()))

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._spec.retrains.look_every_s)
            try:
                await self._round()
            except Exception as error:  # noqa: BLE001 - whatever it was, the next round tries again
                log.warning("retrains_not_looked_after", error=_said(error))

    async def _round(self) -> None:
        """Ask for what is due, look after what is on its way, and tell of it."""
        now = clock.now()
        for change in await ask_planned(self._store, self._plans, self._spec.brands, now):
            self._log(change)
        longest = timedelta(seconds=self._spec.retrains.longest_s)
        for change in await look_after(self._store, self._jobs, now, longest):
            self._log(change)
            if change.event == "failed":
                await self._tell(change.retrain)
        active = await self._store.active()
        for retrain in active:
            if retrain.state != "running":  # then the job itself tells how far it is
                await self._tell(retrain)
        ids = {retrain.id for retrain in active}
        for ended in self._known - ids:
            self._ended(await self._store.get(ended))
        self._known = ids
        self._metrics.active(len(ids))

    async def _watch_drift(self) -> None:
        settings = self._spec.retrains.drift
        rest = timedelta(seconds=settings.rest_s)
        while True:
            await asyncio.sleep(settings.every_s)
            try:
                async for model, drift in self._looks.look():  # each is noted before the next
                    await self._store.note_drift(drift)
                    self._metrics.drift(drift)
                    now = clock.now()
                    for change in await ask_drifted(
                        self._store, drift, model.created_at, rest, now
                    ):
                        self._log(change, drifted=drift.drifted[:5])
            except Exception as error:  # noqa: BLE001 - whatever it was, the next look tries again
                log.warning("drift_not_looked_at", error=_said(error))

    async def _tell(self, retrain: Retrain) -> None:
        """Tell the live socket of a retrain whose job does not."""
        state = _STATES.get(retrain.state, "running")
        message = retrain.reason or "waiting for a node of the batch group"
        job = Job(
            retrain.id, "retrain", retrain.kind, state, 0, None, "steps", _UNKNOWN, _UNKNOWN,
            retrain.brand, message,
        )  # fmt: skip
        await self._told.put(job)

    def _ended(self, retrain: Retrain) -> None:
        self._metrics.ended(retrain)
        if retrain.state == "done":
            log.info("retrain_done", **_about(retrain), model=retrain.model, note=retrain.note)
        else:
            log.error("retrain_failed", **_about(retrain), reason=retrain.reason)

    def _log(self, change: Change, **facts: object) -> None:
        if change.event != "failed":  # that is told of when it is found among the ended
            log.info(_EVENTS[change.event], **_about(change.retrain), **facts)
        self._known.add(change.retrain.id)


def _about(retrain: Retrain) -> dict[str, str]:
    return {
        "retrain": retrain.id,
        "brand": retrain.brand,
        "kind": retrain.kind,
        "cause": retrain.cause,
    }


def _said(error: Exception) -> str:
    return error.message if isinstance(error, CrmError) else type(error).__name__


RetrainKeeperActor = ray.remote(max_restarts=-1, max_task_retries=0, num_cpus=0)(RetrainKeeper)


def start(spec: RetrainsSpec) -> None:
    """Start the keeper, on this node if it can be; one of a former service, or with former brands,
    ends. It needs no warning: what it was at is found by the next one.
    """
    stop()
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    RetrainKeeperActor.options(
        name=NAME, namespace=NAMESPACE, lifetime="detached", scheduling_strategy=here
    ).remote(spec)


def stop() -> None:
    """End the keeper: whatever it was at is done by the next one."""
    with contextlib.suppress(ValueError, RayActorError):
        ray.kill(ray.get_actor(NAME, namespace=NAMESPACE), no_restart=True)
