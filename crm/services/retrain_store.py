"""The port to where retrains are kept, with what the scheduler has to remember."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from crm.domain.drift import Drift
from crm.domain.models import ModelKind
from crm.domain.retrains import Outcome, Retrain


class RetrainStore(Protocol):
    """Retrains for ever, and the newest look at each model's drift; may raise DatabaseAway.

    Of a brand and kind at most one retrain is active, whoever asks.
    """

    async def ask(self, retrain: Retrain, request: bytes | None = None) -> Retrain:
        """Store a retrain, or return the one that has its id as it stands.

        `request` is a digest of what was asked: another one under the same id raises KeyReused.
        Raises RetrainRunning while another one is active.
        """

    async def get(self, retrain: str) -> Retrain:
        """Return a retrain; raises RetrainNotFound."""

    async def page(
        self, brand: str, kind: ModelKind | None, after: tuple[datetime, str] | None, limit: int
    ) -> list[Retrain]:
        """Return retrains of a brand, the newest first, older than `after`."""

    async def active(self) -> list[Retrain]:
        """Return all retrains that have not ended, the oldest first."""

    async def note_submitted(self, retrain: str, at: datetime) -> None:
        """Note that Ray has taken its job; changes nothing unless it is queued."""

    async def begin(self, retrain: str, at: datetime) -> Retrain | None:
        """Begin: only the first who asks is given it, and only while it waits."""

    async def finish(self, retrain: str, outcome: Outcome, at: datetime) -> bool:
        """Note what it has made; False if it is not running (any more)."""

    async def fail(self, retrain: str, reason: str, at: datetime) -> bool:
        """Note that it has failed; False if it had ended before."""

    async def newest(self, brand: str, kind: ModelKind) -> datetime | None:
        """Return when the brand's newest retrain of this kind was asked for."""

    async def planned_since(self, brand: str, kind: ModelKind, at: datetime) -> datetime:
        """Return since when there is a schedule: `at`, if it was never asked before."""

    async def note_drift(self, drift: Drift) -> None:
        """Keep a look at a model in the place of the one before."""

    async def drift(self, model: str) -> Drift | None:
        """Return the newest look at a model, None before the first."""
