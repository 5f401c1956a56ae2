"""The registry of models: what is kept of a training, who serves, and how a model comes in whole.

A training hands its TrainedModel to `register`. Its bytes go into the lake, then its run to MLflow,
then its row to PostgreSQL, in one transaction: only the row makes it a model. What a crash leaves
before that is nothing that anybody reads, and `sweep` takes it away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

import structlog

from crm.domain.error_lines import line_of
from crm.domain.errors import ModelFileNotFound
from crm.domain.facts import Fact, NewFact, Stream
from crm.domain.model_changes import (
    ModelChange,
    PromotionRule,
    StoredModel,
    check_same,
    check_trained,
)
from crm.domain.models import ModelKind, RegisteredModel, TrainedModel
from crm.domain.promotion import may_serve
from crm.domain.saved_segments import Once

log = structlog.get_logger(__name__)

LEFTOVER_AFTER = timedelta(days=1)  # longer than any registration takes
BY_RULE = "rule"


class ServingModels(Protocol):
    """What those load who serve; every call may raise DatabaseAway."""

    async def revision(self) -> int:
        """Return a number that every promotion and rollback has raised."""

    async def serving(self, brand: str | None = None) -> list[RegisteredModel]:
        """Return the serving models of one brand or of all, by brand and kind: one a kind."""

    async def document(self, model: str) -> bytes:
        """Return what serving loads, as it was handed over; raises ModelNotFound."""


class Models(ServingModels, Protocol):
    """The registered models, for ever; every call may raise DatabaseAway.

    A change that comes with `once` happens once, whatever happens; its answer is kept with it.
    """

    async def add(self, model: TrainedModel, run: str | None = None) -> RegisteredModel:
        """Register a model as a candidate; the same model again changes nothing.

        Raises InvalidModel if its id is another model's.
        """

    async def get(self, model: str) -> RegisteredModel:
        """Return a model; raises ModelNotFound."""

    async def listed(
        self,
        brand: str,
        kind: ModelKind | None = None,
        after: tuple[datetime, str] | None = None,
        limit: int = 100,
    ) -> list[RegisteredModel]:
        """Return a brand's models, the newest first, after (created_at, id)."""

    async def promote(
        self,
        model: str,
        by: str,
        *,
        why: str = "",
        force: bool = False,
        seen: str | None = None,
        once: Once | None = None,
    ) -> RegisteredModel:
        """Have a model serve; nothing changes if it does already.

        `seen` is who should serve until then, "" for nobody.
        Raises ModelNotFound, ModelNotBetter, ServingChanged, InvalidReason, KeyReused.
        """

    async def rollback(
        self,
        brand: str,
        kind: ModelKind,
        by: str,
        *,
        why: str = "",
        seen: str | None = None,
        once: Once | None = None,
    ) -> RegisteredModel:
        """Have the model serve that served before, and return it; `seen` is who should serve now.

        Raises NoFormerModel, ServingChanged, InvalidReason, KeyReused.
        """

    async def changes(
        self, brand: str, before: int | None = None, limit: int = 100
    ) -> list[ModelChange]:
        """Return the record of a brand's changes, the newest first, below an id."""

    async def digests(self, model: str) -> dict[str, bytes]:
        """Return the SHA-256 of each file by name; raises ModelNotFound."""

    async def known(self, models: Sequence[str]) -> set[str]:
        """Return which of these ids are registered."""


class Facts(Protocol):
    """Streams of facts; every call may raise DatabaseAway."""

    async def tell(self, stream: Stream, facts: Iterable[NewFact]) -> None:
        """Append facts to a stream."""

    async def after(self, stream: Stream, seq: int, limit: int) -> list[Fact]:
        """Return at most `limit` facts behind `seq`, in order; nothing comes late before one."""

    async def head(self, stream: Stream) -> int:
        """Return the seq of a stream's newest fact, 0 before the first."""


class ModelFiles(Protocol):
    """The bytes of models, in the lake; nothing in it is a model until the registry says so."""

    def put(self, model: TrainedModel) -> None:
        """Store the document and the files; storing them again changes nothing."""

    def read(self, model: RegisteredModel, name: str, digest: bytes) -> bytes:
        """Return a file; raises ModelFileLost."""

    def stored(self) -> list[StoredModel]:
        """Return every model of which anything is stored."""

    def forget(self, model: str) -> None:
        """Delete all that is stored of a model."""


class Runs(Protocol):
    """Where trainings are compared: MLflow."""

    def record(self, model: TrainedModel) -> str | None:
        """Record a training with its parameters, metrics and files, once; return its run's id."""

    def unfinished(self) -> list[StoredModel]:
        """Return every model of which this installation has begun a run that never ended."""

    def forget(self, model: str) -> None:
        """Delete this installation's runs of a model."""


class Parts(NamedTuple):
    """All that a registration writes to, in this order but for `models`, which comes last."""

    files: ModelFiles
    runs: Runs
    models: Models


async def register(
    parts: Parts, model: TrainedModel, rule: PromotionRule = "first"
) -> RegisteredModel:
    """Register a training whole, and have it serve if the rule says so; raises InvalidModel.

    Called again after a crash, with the same model, it goes on where it was. Nothing is written
    under an id that another model has.
    """
    check_trained(model)
    registered = await _there(parts.models, model)
    if registered is None:
        parts.files.put(model)
        run = parts.runs.record(model)
        registered = await parts.models.add(model, run)
    return await promote_by_rule(parts.models, registered, rule)


async def _there(models: Models, model: TrainedModel) -> RegisteredModel | None:
    """Return the model if it is registered; raises InvalidModel if its id is another one's."""
    if not await models.known([model.id]):
        return None
    found = await models.get(model.id)
    check_same(model, found, await models.document(model.id), await models.digests(model.id))
    return found


async def promote_by_rule(
    models: Models, model: RegisteredModel, rule: PromotionRule
) -> RegisteredModel:
    """Promote a candidate by rule, if it may serve.

    `first`: if nothing of its kind serves. `always`: also in the place of what serves.
    """
    may = may_serve(model.kind, beats_baseline=model.beats_baseline)
    if rule == "never" or model.state != "candidate" or not may:
        return model
    if rule == "first" and any(one.kind == model.kind for one in await models.serving(model.brand)):
        return model
    why = "first of its kind" if rule == "first" else "trained anew"
    return await models.promote(model.id, BY_RULE, why=why)


async def read_file(
    models: Models,
    files: ModelFiles,
    model: str,
    name: str,
    aside: Callable[..., Awaitable[bytes]],
) -> bytes:
    """Return a file of a model, read where `aside` runs what blocks.

    Raises ModelNotFound, ModelFileNotFound, ModelFileLost.
    """
    registered = await models.get(model)
    digest = (await models.digests(model)).get(name)
    if digest is None:
        raise ModelFileNotFound(f"model {model} has no file of this name; GET it for the list")
    return await aside(files.read, registered, name, digest)


async def sweep(parts: Parts, now: datetime) -> list[str]:
    """Take away what registrations have left behind that never ended; return the models' ids.

    What is younger than LEFTOVER_AFTER may be at work.
    """
    old = now - LEFTOVER_AFTER
    stored = {one.model for one in parts.files.stored() if one.at < old}
    run = {one.model for one in parts.runs.unfinished() if one.at < old}
    gone = sorted((stored | run) - await parts.models.known(sorted(stored | run)))
    for model in gone:
        parts.runs.forget(model)
        parts.files.forget(model)
    return gone


async def tidy(parts: Parts, now: datetime) -> list[str]:
    """Sweep after a registration, which has succeeded whatever becomes of this: that is logged."""
    try:
        return await sweep(parts, now)
    except Exception as error:  # noqa: BLE001 - the model stands; the next registration sweeps again
        log.warning("sweep_failed", error=type(error).__name__, reason=line_of(error))
        return []
