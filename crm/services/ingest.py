"""Taking in events: each is judged alone; good ones are stored, bad ones quarantined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from crm.domain.errors import EventRefused
from crm.domain.event_batch import Refused, decode_batch
from crm.domain.events import Door, LoggedEvent
from crm.domain.ports import FeatureShards, Quarantine, Quarantined

_NEVER_KEPT = {"card_number"}
_CONFLICT = "this event_id was taken in before with another content; nothing was changed"


class Rejected(msgspec.Struct):
    """One event that was not stored, by its place in the request."""

    index: int
    event_id: str | None
    code: str
    message: str


class IngestReport(msgspec.Struct):
    """What became of a request's events."""

    accepted: int
    duplicates: int
    rejected: list[Rejected]


@dataclass(frozen=True)
class Ingest:
    """The door for requests; imports come through the same `Door` and the same shards."""

    door: Door
    shards: FeatureShards
    quarantine: Quarantine
    now: Callable[[], datetime]

    async def take(self, body: bytes, default_brand: str | None) -> IngestReport:
        """Store the acceptable events of a request body; returns when they are durable.

        Raises InvalidJson, TooLarge, TooManyEvents, ShardsWarming or DatabaseAway; after the last
        two the same request may be sent again: what was stored is a duplicate then.
        """
        received_at = self.now()
        good: list[tuple[int, LoggedEvent]] = []
        rejected: list[Rejected] = []
        for index, event in enumerate(decode_batch(body, default_brand)):
            if isinstance(event, Refused):
                rejected.append(Rejected(index, event.event_id, event.code, event.message))
                continue
            try:
                good.append((index, self.door.accept(event, received_at)))
            except EventRefused as refusal:
                rejected.append(Rejected(index, event.event_id, refusal.code, refusal.message))
        if rejected:  # before anything is stored: a refused event is never lost
            await self._keep(body, received_at, rejected)
        verdicts = [v for (v,) in await self.shards.append([[event] for _, event in good])]
        conflicts = [
            Rejected(index, event.event_id, "conflict", _CONFLICT)
            for (index, event), verdict in zip(good, verdicts, strict=True)
            if verdict == "conflict"
        ]
        if conflicts:
            await self._keep(body, received_at, conflicts)
        return IngestReport(
            accepted=verdicts.count("accepted"),
            duplicates=verdicts.count("duplicate"),
            rejected=sorted(rejected + conflicts, key=lambda item: item.index),
        )

    async def _keep(self, body: bytes, received_at: datetime, rejected: Sequence[Rejected]) -> None:
        events = _raw_events(body)
        kept = [
            Quarantined(
                item.code,
                item.message,
                None if item.code in _NEVER_KEPT else self._seal(events[item.index]),
            )
            for item in rejected
        ]
        await self.quarantine.keep(received_at, "http", kept)

    def _seal(self, raw: msgspec.Raw) -> bytes:
        return self.door.vault.seal("", "", "quarantine", bytes(raw).decode(errors="replace"))


class _Body(msgspec.Struct):
    events: list[msgspec.Raw]


def _raw_events(body: bytes) -> list[msgspec.Raw]:
    return msgspec.json.decode(body, type=_Body).events
