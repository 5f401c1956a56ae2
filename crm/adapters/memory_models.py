"""The twin in memory of the registry of models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from operator import attrgetter

from msgspec.structs import replace

from crm.adapters import clock
from crm.adapters.memory_facts import MemoryFacts
from crm.domain.errors import DatabaseAway, KeyReused, ModelNotFound
from crm.domain.model_changes import (
    REGISTERED,
    Deed,
    ModelChange,
    check_promotion,
    check_reason,
    check_same,
    check_seen,
    registered,
    registered_facts,
    serving_facts,
    to_go_back_to,
)
from crm.domain.models import ModelKind, RegisteredModel, TrainedModel
from crm.domain.saved_segments import Once


@dataclass(frozen=True)
class _Promotion:
    """Who serves, and the promotion that it took the place of."""

    model: str
    former: _Promotion | None


class MemoryModels:
    """Registered models without a database; `away` is its fault."""

    def __init__(
        self, facts: MemoryFacts | None = None, now: Callable[[], datetime] = clock.now
    ) -> None:
        self.away = False
        self.facts = facts or MemoryFacts(now)
        self._now = now
        self._models: dict[str, RegisteredModel] = {}
        self._trained: dict[str, TrainedModel] = {}
        self._serving: dict[tuple[str, str], _Promotion] = {}
        self._changes: list[ModelChange] = []
        self._revision = 0
        self._answers: dict[tuple[bytes, str], tuple[bytes, RegisteredModel]] = {}

    async def add(self, model: TrainedModel, run: str | None = None) -> RegisteredModel:
        """Register a model as a candidate; the same model again changes nothing."""
        self._must_answer()
        if model.id in self._models:
            found = self._read(model.id)
            document = await self.document(model.id)
            check_same(model, found, document, await self.digests(model.id))
            return found
        of_kind = (model.brand, model.kind)
        number = sum((one.brand, one.kind) == of_kind for one in self._models.values()) + 1
        self._trained[model.id] = model
        self._models[model.id] = added = registered(model, number, run)
        self._note(added, REGISTERED)
        await self.facts.tell("models", registered_facts(added))
        return added

    async def get(self, model: str) -> RegisteredModel:
        """Return a model; raises ModelNotFound."""
        self._must_answer()
        return self._read(model)

    async def listed(
        self,
        brand: str,
        kind: ModelKind | None = None,
        after: tuple[datetime, str] | None = None,
        limit: int = 100,
    ) -> list[RegisteredModel]:
        """Return a brand's models, the newest first, after (created_at, id)."""
        self._must_answer()
        key = attrgetter("created_at", "id")
        found = [
            self._read(one.id)
            for one in self._models.values()
            if one.brand == brand
            and kind in (None, one.kind)
            and (after is None or key(one) < after)
        ]
        return sorted(found, key=key, reverse=True)[:limit]

    async def serving(self, brand: str | None = None) -> list[RegisteredModel]:
        """Return the serving models, at most one a kind, of one brand or of all."""
        self._must_answer()
        return [
            self._read(promotion.model)
            for (of_brand, _), promotion in sorted(self._serving.items(), key=lambda item: item[0])
            if brand in (None, of_brand)
        ]

    async def document(self, model: str) -> bytes:
        """Return what serving loads, as it was handed over; raises ModelNotFound."""
        self._must_answer()
        self._read(model)
        return self._trained[model].document

    async def digests(self, model: str) -> dict[str, bytes]:
        """Return the SHA-256 of each file by name; raises ModelNotFound."""
        self._must_answer()
        self._read(model)
        files = self._trained[model].files
        return {name: sha256(data).digest() for name, data in files.items()}

    async def known(self, models: Sequence[str]) -> set[str]:
        """Return which of these ids are registered."""
        self._must_answer()
        return set(models) & self._models.keys()

    async def revision(self) -> int:
        """Return a number that every promotion and rollback has raised."""
        self._must_answer()
        return self._revision

    async def changes(
        self, brand: str, before: int | None = None, limit: int = 100
    ) -> list[ModelChange]:
        """Return the record of a brand's changes, the newest first, below an id."""
        self._must_answer()
        found = [
            one for one in self._changes[: None if before is None else before - 1]
            if one.brand == brand
        ]  # fmt: skip
        return found[::-1][:limit]

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
        """Have a model serve; nothing changes if it does already."""
        if (answer := self._answered(once)) is not None:
            return answer
        wanted = self._read(model)
        check_promotion(wanted, why, force=force)
        now = self._serving.get((wanted.brand, wanted.kind))
        before = None if now is None else now.model
        if before != model:
            check_seen(seen, before)
            self._serving[wanted.brand, wanted.kind] = _Promotion(model, now)
            await self._serve(wanted, Deed("promoted", by, before, why, force))
        return self._answer(model, once)

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
        """Have the model serve that served before, and return it."""
        if (answer := self._answered(once)) is not None:
            return answer
        now = self._serving.get((brand, kind))
        before = None if now is None else now.model
        check_reason(why)
        check_seen(seen, before)
        former = to_go_back_to(None if now is None else now.former, brand, kind)
        self._serving[brand, kind] = former
        await self._serve(self._models[former.model], Deed("rolled_back", by, before, why))
        return self._answer(former.model, once)

    async def _serve(self, model: RegisteredModel, deed: Deed) -> None:
        self._models[model.id] = replace(model, promoted_at=self._now())
        self._note(model, deed)
        self._revision += 1
        await self.facts.tell("models", serving_facts(model, deed.before))

    def _note(self, model: RegisteredModel, deed: Deed) -> None:
        place = (len(self._changes) + 1, self._now(), deed.by, model.brand, model.kind)
        what = (deed.action, model.id, deed.before, deed.why, deed.forced)
        self._changes.append(ModelChange(*place, *what))

    def _read(self, model: str) -> RegisteredModel:
        if model not in self._models:
            raise ModelNotFound("no model has this id")
        found = self._models[model]
        promotion = self._serving.get((found.brand, found.kind))
        if promotion is not None and promotion.model == model:
            return replace(found, state="serving")
        return replace(found, state="former" if found.promoted_at else "candidate")

    def _answered(self, once: Once | None) -> RegisteredModel | None:
        self._must_answer()
        if once is None or (once.caller, once.key) not in self._answers:
            return None
        request, answer = self._answers[once.caller, once.key]
        if request != once.request:
            raise KeyReused("this Idempotency-Key came with another request before; use a new one")
        return answer

    def _answer(self, model: str, once: Once | None) -> RegisteredModel:
        answer = self._read(model)
        if once is not None:
            self._answers[once.caller, once.key] = (once.request, answer)
        return answer

    def _must_answer(self) -> None:
        if self.away:
            raise DatabaseAway("the store is away")
