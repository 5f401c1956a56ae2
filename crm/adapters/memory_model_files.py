"""The twins in memory of what a registration writes beside PostgreSQL: files, and MLflow's runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from hashlib import sha256

from crm.adapters import clock
from crm.domain.errors import ModelFileLost, RunsAway
from crm.domain.model_changes import DOCUMENT, StoredModel
from crm.domain.models import RegisteredModel, TrainedModel


class MemoryModelFiles:
    """The files of models without a lake."""

    def __init__(self, now: Callable[[], datetime] = clock.now) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self._now = now
        self._at: dict[str, datetime] = {}

    def put(self, model: TrainedModel) -> None:
        """Store the document and the files; storing them again changes nothing."""
        self.files[model.id] = {**model.files, DOCUMENT: model.document}
        self._at[model.id] = self._now()

    def read(self, model: RegisteredModel, name: str, digest: bytes) -> bytes:
        """Return a file; raises ModelFileLost."""
        data = self.files.get(model.id, {}).get(name)
        if data is None or sha256(data).digest() != digest:
            raise ModelFileLost(f"{name} of model {model.id} cannot be read from the lake")
        return data

    def stored(self) -> list[StoredModel]:
        """Return every model of which anything is stored."""
        return [StoredModel(model, at) for model, at in self._at.items()]

    def forget(self, model: str) -> None:
        """Delete all that is stored of a model."""
        self.files.pop(model, None)
        self._at.pop(model, None)


class MemoryRuns:
    """Runs without MLflow; `away` is its fault."""

    def __init__(self, now: Callable[[], datetime] = clock.now) -> None:
        self.away = False
        self.runs: dict[str, TrainedModel] = {}
        self._ended: set[str] = set()
        self._now = now
        self._at: dict[str, datetime] = {}

    def record(self, model: TrainedModel) -> str | None:
        """Record a training, once; return its run's id."""
        self.begin(model)
        self._ended.add(model.id)
        return f"run-{model.id}"

    def begin(self, model: TrainedModel) -> None:
        """Record as much as a crash leaves."""
        self._must_answer()
        self.runs.setdefault(model.id, model)
        self._at.setdefault(model.id, self._now())

    def unfinished(self) -> list[StoredModel]:
        """Return every model of which a run was begun that never ended."""
        self._must_answer()
        return [StoredModel(one, at) for one, at in self._at.items() if one not in self._ended]

    def forget(self, model: str) -> None:
        """Delete the run of a model."""
        self._must_answer()
        self._ended.discard(model)
        self.runs.pop(model, None)
        self._at.pop(model, None)

    def _must_answer(self) -> None:
        if self.away:
            raise RunsAway("MLflow is away")
