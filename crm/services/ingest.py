"""Taking in events: each is judged alone; good ones are stored, bad ones quarantined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from crm.domain.errors import EventRefused
from crm.domain.event_batch import Refused, decode_batch, raw_events
from crm.domain.events import Door, LoggedEvent, check_id
from crm.domain.personal import holds_card
from crm.domain.ports import FeatureShards, Quarantine, Quarantined

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
                rejected.append(
                    Rejected(index, _showable(event.event_id), refusal.code, refusal.message)
                )
        verdicts = [v for (v,) in await self.shards.append([[event] for _, event in good])]
        rejected += [
            Rejected(index, event.event_id, "conflict", _CONFLICT)
            for (index, event), verdict in zip(good, verdicts, strict=True)
            if verdict == "conflict"
        ]
        rejected.sort(key=lambda item: item.index)
        if rejected:  # before the answer: a refused event is never lost, and a retry keeps it once
            await self._keep(body, received_at, rejected)
        return IngestReport(
            accepted=verdicts.count("accepted"),
            duplicates=verdicts.count("duplicate"),
            rejected=rejected,
        )

    async def _keep(self, body: bytes, received_at: datetime, rejected: Sequence[Rejected]) -> None:
        events = raw_events(body)
        kept = [self._quarantined(item, bytes(events[item.index])) for item in rejected]
        await self.quarantine.keep(received_at, "http", kept)

    def _quarantined(self, item: Rejected, raw: bytes) -> Quarantined:
        digest = self.door.vault.fingerprint(item.code.encode() + b"\0" + raw)
        return Quarantined(item.code, item.message, digest, self._sealed(item.code, raw.decode()))

    def _sealed(self, code: str, text: str) -> bytes | None:
        """Return the event's text sealed, or None where a card's number may stand in it."""
        if code == "card_number" or holds_card(text) or holds_card(_unescaped(text)):
            return None
        return self.door.vault.seal("", "", "quarantine", text)


def _unescaped(text: str) -> str:
    """Return JSON as it is read: an escape may stand for any character."""
    try:
        return msgspec.json.encode(msgspec.json.decode(text)).decode()
    except (ValueError, RecursionError):
        return text


def _showable(event_id: str) -> str | None:
    """Return the id for the report, unless it is none: what was refused is not repeated."""
    try:
        check_id(event_id, "event_id")
    except EventRefused:
        return None
    return event_id
