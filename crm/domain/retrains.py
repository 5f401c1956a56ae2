"""Retrains: trainings that the service itself starts, each once, and what became of them."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import Literal, TypeAlias

import msgspec

from crm.domain.errors import CrmError
from crm.domain.models import ModelKind

Cause: TypeAlias = Literal["request", "schedule", "drift"]
RetrainState: TypeAlias = Literal["queued", "submitted", "running", "done", "failed"]
Promotion: TypeAlias = Literal["rule", "never"]
MAX_REASON_CHARS = 500


class RetrainNotFound(CrmError):
    """No retrain has this id."""

    code = "retrain_not_found"


class RetrainRunning(CrmError):
    """The brand's models of this kind are being retrained already; `running` is that retrain."""

    code = "retrain_running"

    def __init__(self, message: str, running: str = "") -> None:
        super().__init__(message, running)
        self.running = running


class RetrainOptions(msgspec.Struct, frozen=True):
    """What may be chosen; `promote`: by rule, or never (the new model stays a candidate)."""

    seed: int = 0
    budget_s: float | None = None
    promote: Promotion = "rule"


class Retrain(msgspec.Struct, frozen=True):
    """One retrain; its id is also that of its Ray job, and is derived from what asked for it.

    `occasion` says what that was: a due time, a model that has drifted, a client's key. `note` says
    why the new model was promoted, or was not; `reason` why the retrain failed.
    """

    id: str
    brand: str
    kind: ModelKind
    cause: Cause
    occasion: str
    options: RetrainOptions
    state: RetrainState
    asked_at: datetime
    changed_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    reason: str | None = None
    model: str | None = None
    promoted: bool | None = None
    note: str | None = None

    @property
    def active(self) -> bool:
        """Whether it has not ended."""
        return self.state in ("queued", "submitted", "running")


class Outcome(msgspec.Struct, frozen=True):
    """What a retrain has made: the model, whether it serves now, and why."""

    model: str
    promoted: bool
    note: str


def retrain_id(*occasion: str) -> str:
    """Return the id that whoever sees the same occasion derives."""
    return f"retrain-{sha256(chr(0).join(occasion).encode()).hexdigest()[:24]}"


def new_retrain(
    brand: str,
    kind: ModelKind,
    cause: Cause,
    occasion: str,
    at: datetime,
    options: RetrainOptions | None = None,
) -> Retrain:
    """Return a retrain of the service's own asking; its id is derived from all but the moment."""
    identity = retrain_id(brand, kind, cause, occasion)
    chosen = options or RetrainOptions()
    return Retrain(identity, brand, kind, cause, occasion, chosen, "queued", at, at)


def running_already(active: Retrain) -> RetrainRunning:
    """Return the fact that another retrain of the brand and kind has not ended."""
    return RetrainRunning(
        f"{active.kind} of brand {active.brand} are being retrained already: see"
        f" /v1/retrains/{active.id}",
        active.id,
    )


def short(reason: str) -> str:
    """Return a reason as one line that a table can show."""
    line = " ".join(reason.split())
    return line if len(line) <= MAX_REASON_CHARS else f"{line[: MAX_REASON_CHARS - 1]}…"
