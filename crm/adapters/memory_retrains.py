"""The twin in memory of the store of retrains."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

import msgspec

from crm.domain.drift import Drift
from crm.domain.errors import KeyReused
from crm.domain.models import ModelKind
from crm.domain.retrains import (
    Outcome,
    Retrain,
    RetrainNotFound,
    RetrainState,
    running_already,
    short,
)

_QUEUED: tuple[RetrainState, ...] = ("queued",)
_WAITING: tuple[RetrainState, ...] = ("queued", "submitted")
_RUNNING: tuple[RetrainState, ...] = ("running",)
_ACTIVE: tuple[RetrainState, ...] = ("queued", "submitted", "running")


class MemoryRetrains:
    """Retrains by id, without a database."""

    def __init__(self) -> None:
        self._retrains: dict[str, tuple[Retrain, bytes | None]] = {}
        self._since: dict[tuple[str, ModelKind], datetime] = {}
        self._drifts: dict[str, Drift] = {}

    async def ask(self, retrain: Retrain, request: bytes | None = None) -> Retrain:
        """Store a retrain, or return the one that has its id as it stands."""
        if retrain.id in self._retrains:
            found, asked = self._retrains[retrain.id]
            if asked != request:
                raise KeyReused(
                    "this Idempotency-Key came with another request before; use a new one"
                )
            return found
        for other in await self.active():
            if (other.brand, other.kind) == (retrain.brand, retrain.kind):
                raise running_already(other)
        self._retrains[retrain.id] = (retrain, request)
        return retrain

    async def get(self, retrain: str) -> Retrain:
        """Return a retrain; raises RetrainNotFound."""
        if retrain not in self._retrains:
            raise RetrainNotFound("no retrain has this id")
        return self._retrains[retrain][0]

    async def page(
        self, brand: str, kind: ModelKind | None, after: tuple[datetime, str] | None, limit: int
    ) -> list[Retrain]:
        """Return retrains of a brand, the newest first, older than `after`."""
        found = [
            one
            for one, _ in self._retrains.values()
            if one.brand == brand
            and kind in (None, one.kind)
            and (after is None or (one.asked_at, one.id) < after)
        ]
        return sorted(found, key=lambda one: (one.asked_at, one.id), reverse=True)[:limit]

    async def active(self) -> list[Retrain]:
        """Return all retrains that have not ended, the oldest first."""
        found = [one for one, _ in self._retrains.values() if one.active]
        return sorted(found, key=lambda one: (one.asked_at, one.id))

    async def note_submitted(self, retrain: str, at: datetime) -> None:
        """Note that Ray has taken its job; changes nothing unless it is queued."""
        self._change(retrain, _QUEUED, state="submitted", changed_at=at)

    async def begin(self, retrain: str, at: datetime) -> Retrain | None:
        """Begin: only the first who asks is given it, and only while it waits."""
        if self._change(retrain, _WAITING, state="running", changed_at=at, started_at=at):
            return await self.get(retrain)
        return None

    async def finish(self, retrain: str, outcome: Outcome, at: datetime) -> bool:
        """Note what it has made; False if it is not running (any more)."""
        made = msgspec.structs.asdict(outcome)
        return self._change(retrain, _RUNNING, state="done", changed_at=at, ended_at=at, **made)

    async def fail(self, retrain: str, reason: str, at: datetime) -> bool:
        """Note that it has failed; False if it had ended before."""
        told: dict[str, Any] = {"changed_at": at, "ended_at": at, "reason": short(reason)}
        return self._change(retrain, _ACTIVE, state="failed", **told)

    async def newest(self, brand: str, kind: ModelKind) -> datetime | None:
        """Return when the brand's newest retrain of this kind was asked for."""
        found = await self.page(brand, kind, None, 1)
        return found[0].asked_at if found else None

    async def planned_since(self, brand: str, kind: ModelKind, at: datetime) -> datetime:
        """Return since when there is a schedule: `at`, if it was never asked before."""
        return self._since.setdefault((brand, kind), at)

    async def note_drift(self, drift: Drift) -> None:
        """Keep a look at a model in the place of the one before."""
        before = self._drifts.get(drift.model)
        if before is None or before.at <= drift.at:
            self._drifts[drift.model] = drift

    async def drift(self, model: str) -> Drift | None:
        """Return the newest look at a model, None before the first."""
        return self._drifts.get(model)

    def _change(self, retrain: str, states: Collection[RetrainState], **changes: Any) -> bool:
        found = self._retrains.get(retrain)
        if found is None or found[0].state not in states:
            return False
        self._retrains[retrain] = (msgspec.structs.replace(found[0], **changes), found[1])
        return True
