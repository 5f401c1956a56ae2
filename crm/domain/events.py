"""The event: what a client sends, what may be wrong with it, and what the log keeps.

Every way in (HTTP, import, queue) makes `IncomingEvent`s and calls `accept`; nothing else decides
what an acceptable event is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import blake2b
from typing import Any, Protocol

import msgspec

from crm.domain.brands import MAX_DIGITS, Brand
from crm.domain.errors import EventRefused
from crm.domain.personal import Cut, cut_personal_fields, looks_personal
from crm.domain.shards import shard_of

MAX_ID_BYTES = 128
MAX_PROPERTIES_BYTES = 16_384
MAX_AHEAD = timedelta(minutes=5)
RESULTS = ("won", "lost", "void")

_MONEY_TYPES = frozenset(
    {
        "deposit.requested",
        "deposit.completed",
        "deposit.failed",
        "withdrawal.requested",
        "withdrawal.completed",
        "withdrawal.cancelled",
        "bet.placed",
        "bet.settled",
        "bonus.granted",
    }
)
_OTHER_TYPES = frozenset(
    {
        "player.registered",
        "player.updated",
        "session.started",
        "session.ended",
        "transaction.suspicious",
        "message.sent",
        "message.delivered",
        "message.opened",
        "message.clicked",
        "message.bounced",
        "message.complained",
        "message.unsubscribed",
    }
)
EVENT_TYPES = _MONEY_TYPES | _OTHER_TYPES
SESSION_TYPES = frozenset({"session.started", "session.ended"})
_CUSTOM_TYPE = re.compile(r"custom\.[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class IncomingEvent(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One event as a client states it; the field names are the contract's."""

    event_id: str
    type: str
    player_id: str
    brand: str
    occurred_at: datetime
    amount: Decimal | None = None
    currency: str | None = None
    properties: dict[str, Any] | None = None
    backfill: bool = False
    known_at: datetime | None = None


class LoggedEvent(msgspec.Struct, array_like=True, gc=False):
    """One accepted event on its way to the log; holds nothing personal in clear.

    `properties` is JSON text, `fingerprint` 16 bytes over what the client sent, `personal` the fields
    that were cut out, each encrypted.
    """

    brand: str
    event_id: str
    shard: int
    player_id: str
    type: str
    occurred_at: datetime
    received_at: datetime
    known_at: datetime
    local_day: date
    amount_minor: int | None
    currency: str | None
    properties: str
    result: str | None
    backfill: bool
    fingerprint: bytes
    personal: tuple[tuple[str, bytes], ...] = ()


class Vault(Protocol):
    """Keeps personal fields unreadable, and makes fingerprints that tell nothing."""

    def seal(self, brand: str, player_id: str, field: str, value: str) -> bytes:
        """Encrypt one personal value, bound to its place."""

    def fingerprint(self, content: bytes) -> bytes:
        """Return a keyed 16-byte digest."""


@dataclass(frozen=True)
class Door:
    """What every event is checked against: the brands, and the vault for what is cut out."""

    brands: Mapping[str, Brand]
    vault: Vault

    def accept(self, event: IncomingEvent, received_at: datetime) -> LoggedEvent:
        """Return `event` as the log keeps it; raises EventRefused, and then nothing has happened."""
        brand = self.brands.get(event.brand)
        if brand is None:
            raise EventRefused("unknown_brand", "no such brand; see configs/brands", "brand")
        _check_id(event.event_id, "event_id")
        _check_id(event.player_id, "player_id")
        _check_type(event.type)
        known_at = _check_times(event, brand, received_at)
        amount_minor, currency = _check_money(event, brand)
        properties, cut = _check_properties(event.properties)
        return LoggedEvent(
            brand=event.brand,
            event_id=event.event_id,
            shard=shard_of(event.brand, event.player_id),
            player_id=event.player_id,
            type=event.type,
            occurred_at=event.occurred_at.astimezone(UTC),
            received_at=received_at,
            known_at=known_at,
            local_day=brand.local_day(event.occurred_at),
            amount_minor=amount_minor,
            currency=currency,
            properties=properties,
            result=_check_result(event),
            backfill=event.backfill,
            fingerprint=self.vault.fingerprint(_sent(event)),
            personal=tuple(
                (field, self.vault.seal(event.brand, event.player_id, field, value))
                for field, value in cut
            ),
        )


def _check_id(value: str, field: str) -> None:
    if not value:
        raise EventRefused("invalid_field", f"{field} is empty", field)
    if len(value.encode()) > MAX_ID_BYTES:
        raise EventRefused("invalid_field", f"{field} is longer than {MAX_ID_BYTES} bytes", field)
    if _CONTROL.search(value):
        raise EventRefused("invalid_field", f"{field} holds a control character", field)
    if looks_personal(value):
        raise EventRefused(
            "invalid_field", f"{field} must not be an e-mail address or a phone number", field
        )


def _check_type(value: str) -> None:
    if value in EVENT_TYPES or _CUSTOM_TYPE.fullmatch(value):
        return
    raise EventRefused(
        "unknown_type", "unknown event type; your own types are named custom.NAME", "type"
    )


def _check_times(event: IncomingEvent, brand: Brand, received_at: datetime) -> datetime:
    """Return `known_at`: the time of reception, or what a backfill states."""
    if event.occurred_at.tzinfo is None:
        raise EventRefused("invalid_time", "occurred_at needs a time zone, such as Z", "occurred_at")
    if event.occurred_at > received_at + MAX_AHEAD:
        raise EventRefused("future_event", "occurred_at is over 5 minutes ahead", "occurred_at")
    if event.occurred_at < brand.begins_at:
        raise EventRefused(
            "before_brand_start", f"the brand began on {brand.starts_on}", "occurred_at"
        )
    if event.known_at is None:
        return received_at
    if not event.backfill:
        raise EventRefused("invalid_field", "known_at goes with backfill: true", "known_at")
    if event.known_at.tzinfo is None:
        raise EventRefused("invalid_time", "known_at needs a time zone, such as Z", "known_at")
    if not event.occurred_at <= event.known_at <= received_at:
        raise EventRefused(
            "invalid_time", "known_at lies between occurred_at and now", "known_at"
        )
    return event.known_at.astimezone(UTC)


def _check_money(event: IncomingEvent, brand: Brand) -> tuple[int | None, str | None]:
    amount, currency = event.amount, event.currency
    if amount is None:
        if event.type in _MONEY_TYPES:
            raise EventRefused("missing_field", f"{event.type} needs an amount", "amount")
        if currency is not None and currency != brand.currency.code:
            raise EventRefused("unknown_currency", _expected(brand), "currency")
        return None, None
    if currency is not None and currency != brand.currency.code:
        raise EventRefused("unknown_currency", _expected(brand), "currency")
    if not amount.is_finite() or amount < 0:
        raise EventRefused("invalid_amount", "amount is a decimal of at least 0", "amount")
    if amount.adjusted() >= MAX_DIGITS:
        raise EventRefused("invalid_amount", f"amount has over {MAX_DIGITS} digits", "amount")
    minor = brand.currency.to_minor(amount)
    if minor is None:
        decimals = brand.currency.decimals
        raise EventRefused("invalid_amount", f"amount has over {decimals} decimals", "amount")
    if minor >= 10**MAX_DIGITS:
        raise EventRefused("invalid_amount", f"amount has over {MAX_DIGITS} digits", "amount")
    return minor, brand.currency.code


def _expected(brand: Brand) -> str:
    return f"unknown currency; this brand's is {brand.currency.code}"


def _check_properties(properties: dict[str, Any] | None) -> tuple[str, Cut]:
    """Return the properties as JSON text without personal fields, and those fields."""
    if not properties:
        return "{}", ()
    kept, cut = cut_personal_fields(properties)
    text = msgspec.json.encode(kept)
    if len(text) > MAX_PROPERTIES_BYTES:
        raise EventRefused(
            "invalid_field", f"properties exceed {MAX_PROPERTIES_BYTES} bytes", "properties"
        )
    if b"\\u0000" in text:
        raise EventRefused("invalid_field", "properties hold a NUL character", "properties")
    return text.decode(), cut


def _check_result(event: IncomingEvent) -> str | None:
    if event.type != "bet.settled":
        return None
    result = (event.properties or {}).get("result")
    if result is None:
        raise EventRefused("missing_field", "bet.settled needs properties.result", "properties.result")
    if result not in RESULTS:
        raise EventRefused(
            "invalid_field", f"properties.result is one of {', '.join(RESULTS)}", "properties.result"
        )
    return str(result)


def _sent(event: IncomingEvent) -> bytes:
    """Return one byte string for all that the client sent, the same for every way to write it."""
    return msgspec.json.encode(
        (
            event.brand,
            event.event_id,
            event.type,
            event.player_id,
            event.occurred_at.astimezone(UTC),
            None if event.amount is None else str(event.amount.normalize()),
            event.currency,
            event.properties or None,
            event.backfill,
            None if event.known_at is None else event.known_at.astimezone(UTC),
        ),
        order="deterministic",
    )


def derived_event_id(*parts: str) -> str:
    """Return a stable event id for something that has none: a digest of what identifies it."""
    return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
