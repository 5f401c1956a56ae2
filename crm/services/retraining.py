"""Retraining: what asks for it, and the way from a row to a job, whose truth is the row.

A scheduler may be killed at any line, and two may run at once: ids are derived from what asks, Ray
takes each id once, and the row lets one job begin.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal, NamedTuple, Protocol

import structlog

from crm.domain.brands import Brand
from crm.domain.drift import Drift
from crm.domain.errors import CrmError
from crm.domain.models import ModelKind
from crm.domain.retrains import (
    Cause,
    Retrain,
    RetrainOptions,
    RetrainRunning,
    new_retrain,
    retrain_id,
)
from crm.domain.saved_segments import Once
from crm.domain.schedules import Schedule
from crm.services.retrain_store import RetrainStore

log = structlog.get_logger(__name__)

UNREPORTED = "the job ended without a report: see its log in Ray's dashboard"
UNKNOWN = "Ray does not know the job any more: the service was restarted meanwhile"


class JobsAway(CrmError):
    """Ray's job API does not answer; it may be asked again."""

    code = "jobs_away"


class JobRefused(CrmError):
    """Ray's job API takes no such job; the message says why."""

    code = "job_refused"


class JobFound(NamedTuple):
    """What Ray says of a job; `reason` is without text of the job's own: it may hold anything."""

    state: Literal["waiting", "running", "done", "failed"]
    reason: str | None = None


class RetrainJobs(Protocol):
    """The jobs of retrains; every call may raise JobsAway."""

    async def submit(self, retrain: Retrain) -> None:
        """Have a retrain's job run; nothing happens if its id was submitted. Raises JobRefused."""

    async def found(self, retrain: str) -> JobFound | None:
        """Return how a retrain's job is, None if there is none."""

    async def stop(self, retrain: str) -> None:
        """End a retrain's job."""


class Plan(NamedTuple):
    """Models of a kind are retrained by this schedule; `brand` None: of every brand."""

    kind: ModelKind
    schedule: Schedule
    brand: str | None = None


class Change(NamedTuple):
    """A retrain that stands otherwise than before."""

    retrain: Retrain
    event: Literal["asked", "submitted", "failed"]


async def ask(
    store: RetrainStore,
    brand: Brand,
    kind: ModelKind,
    options: RetrainOptions,
    once: Once | None,
    at: datetime,
) -> Retrain:
    """Ask for a retrain; the same key brings the same one, for ever, as it stands then.

    Raises RetrainRunning, KeyReused.
    """
    named = (secrets.token_hex(16),) if once is None else (once.caller.hex(), once.key)
    # of the key alone: another brand or kind under it is another request, not another retrain
    identity = retrain_id("request", *named)
    retrain = Retrain(identity, brand.id, kind, "request", "request", options, "queued", at, at)
    return await store.ask(retrain, None if once is None else once.request)


async def ask_planned(
    store: RetrainStore, plans: Iterable[Plan], brands: Mapping[str, Brand], at: datetime
) -> list[Change]:
    """Ask for what is due by schedule; what was missed while nobody looked is due once."""
    found = []
    for brand, plan in _each(plans, brands):
        since = await store.planned_since(brand.id, plan.kind, at)
        newest = await store.newest(brand.id, plan.kind)
        due = plan.schedule.after(max(since, newest or since), brand.zone)
        if due <= at:
            found += await _asked(store, brand.id, plan.kind, "schedule", due.isoformat(), at)
    return found


def _each(plans: Iterable[Plan], brands: Mapping[str, Brand]) -> Sequence[tuple[Brand, Plan]]:
    """Return each brand's plan of each kind: of several the first, but one that names it first."""
    chosen: dict[tuple[str, ModelKind], Plan] = {}
    for plan in sorted(plans, key=lambda plan: plan.brand is None):
        for brand in brands if plan.brand is None else [plan.brand]:
            chosen.setdefault((brand, plan.kind), plan)
    return [(brands[brand], plan) for (brand, _), plan in chosen.items() if brand in brands]


async def ask_drifted(
    store: RetrainStore, drift: Drift, trained_at: datetime, rest: timedelta, at: datetime
) -> list[Change]:
    """Ask for a retrain of a model that has drifted, unless one was asked for, or it was trained,
    within `rest`: what a retrain does not mend is not tried again and again.
    """
    if not drift.drifted:
        return []
    newest = await store.newest(drift.brand, drift.kind)
    if at - max(trained_at, newest or trained_at) < rest:
        return []
    since = (newest or trained_at).isoformat()
    return await _asked(store, drift.brand, drift.kind, "drift", f"{drift.model} {since}", at)


async def _asked(
    store: RetrainStore, brand: str, kind: ModelKind, cause: Cause, occasion: str, at: datetime
) -> list[Change]:
    asked = new_retrain(brand, kind, cause, occasion, at)
    try:
        retrain = await store.ask(asked)
    except RetrainRunning:
        return []  # what runs does it
    return [Change(retrain, "asked")] if retrain.asked_at == at else []


async def look_after(
    store: RetrainStore, jobs: RetrainJobs, at: datetime, longest: timedelta
) -> list[Change]:
    """Submit what waits, and find what has ended without a word: a killed driver, a lost node.

    Raises JobsAway, DatabaseAway: the next call goes on.
    """
    changes = []
    for retrain in await store.active():
        if retrain.state == "queued":
            changes.append(await _submit(store, jobs, retrain, at))
        elif reason := await _fault(jobs, retrain, at, longest):
            changes += await _failed(store, retrain, reason, at)
    return changes


async def _submit(store: RetrainStore, jobs: RetrainJobs, retrain: Retrain, at: datetime) -> Change:
    try:
        await jobs.submit(retrain)
    except JobRefused as error:
        await store.fail(retrain.id, error.message, at)
        return Change(await store.get(retrain.id), "failed")
    await store.note_submitted(retrain.id, at)
    return Change(await store.get(retrain.id), "submitted")


async def _fault(
    jobs: RetrainJobs, retrain: Retrain, at: datetime, longest: timedelta
) -> str | None:
    """Return what is wrong with a retrain that was submitted, None if nothing is."""
    job = await jobs.found(retrain.id)
    if job is None:
        return UNKNOWN
    if job.state == "failed":
        return job.reason or UNREPORTED
    if job.state == "done":
        return UNREPORTED
    if at - (retrain.started_at or retrain.changed_at) > longest:
        await jobs.stop(retrain.id)
        return f"it took longer than {longest} and was stopped"
    return None


async def _failed(store: RetrainStore, retrain: Retrain, reason: str, at: datetime) -> list[Change]:
    """Mark it, unless it has told its end itself since it was read."""
    if not await store.fail(retrain.id, reason, at):
        return []
    return [Change(await store.get(retrain.id), "failed")]
