"""The event: what a client sends, what may be wrong with it, and what the log keeps.

Every way in (HTTP, import, queue) makes `IncomingEvent`s and calls `accept`; nothing else decides
what an acceptable event is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from hashlib import blake2b
from typing import Any, Protocol

import msgspec

from crm.domain.brands import MAX_DIGITS, Brand
from crm.domain.errors import EventRefused
from crm.domain.personal import (
    Cut,
    cut_personal_fields,
    holds_card,
    looks_personal,
    nothing_to_cut,
    unstorable,
)
from crm.domain.rates import FINEST, Rates, to_minor
from crm.domain.shards import shard_of

MAX_ID_BYTES = 128
MAX_PROPERTIES_BYTES = 16_384
MAX_AHEAD = timedelta(minutes=5)
MAX_HOURS_KEPT = 100_000  # local days of eleven years, about 10 MB
_LAST_OF_HOUR = timedelta(hours=1, microseconds=-1)
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
# Older ones have no partition of their own, and leave PostgreSQL once they are in the lake. Longer
# than every window, and one number for all writers: no day's partition is made anew.
SESSION_RETENTION = timedelta(days=400)
_CUSTOM_TYPE = re.compile(r"custom\.[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


_LONG_NUMBER = re.compile(
    r"(?<![0-9])[0-9][0-9 .\-]{12}"
)  # the least of a card, in one piece or in groups
_LIMIT_MINOR = 10**MAX_DIGITS


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

    `amount_minor` is in the brand's currency; where the client stated another one, `original_*`
    keep what it stated. `properties` is JSON text, `fingerprint` 16 bytes over what the client
    sent, `personal` the fields that were cut out, each encrypted.
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
    original_amount: Decimal | None = None
    original_currency: str | None = None


class Vault(Protocol):
    """Keeps personal fields unreadable, and makes fingerprints that tell nothing."""

    def seal(self, brand: str, player_id: str, field: str, value: str) -> bytes:
        """Encrypt one personal value, bound to its place."""

    def fingerprint(self, content: bytes) -> bytes:
        """Return a keyed 16-byte digest."""


class _Calendar:
    """A brand's first instant, and its local days, each looked up once an hour of UTC."""

    def __init__(self, brand: Brand) -> None:
        self.begins_at = brand.begins_at
        self._brand = brand
        self._days: dict[int, date] = {}

    def local_day(self, at: datetime) -> date:
        """Return the calendar day of `at`, in UTC, where the brand is."""
        hour = at.toordinal() * 24 + at.hour
        day = self._days.get(hour)
        return day if day is not None else self._look_up(at, hour)

    def _look_up(self, at: datetime, hour: int) -> date:
        """Ask the zone; remember its answer for the hour unless midnight falls into it."""
        first = at.replace(minute=0, second=0, microsecond=0)
        day = self._brand.local_day(first)
        if day != self._brand.local_day(first + _LAST_OF_HOUR):
            return self._brand.local_day(at)
        if len(self._days) >= MAX_HOURS_KEPT:
            self._days.clear()
        self._days[hour] = day
        return day


@dataclass(frozen=True)
class Door:
    """What every event is checked against: brands, rates, and the vault for what is cut out."""

    brands: Mapping[str, Brand]
    vault: Vault
    rates: Rates = field(default_factory=Rates)
    _calendars: dict[str, _Calendar] = field(default_factory=dict, init=False, repr=False)

    def accept(self, event: IncomingEvent, received_at: datetime) -> LoggedEvent:
        """Return `event` as the log keeps it; raises EventRefused, and nothing has happened."""
        brand_id, player_id = event.brand, event.player_id
        brand = self._brand(brand_id)
        _check_ids(event.event_id, player_id)
        check_type(event.type)
        calendar = self._calendar(brand)
        occurred_at, known_at = _check_times(event, brand, calendar.begins_at, received_at)
        local_day = calendar.local_day(occurred_at)
        code, rate = brand.currency.code, None
        if event.currency is not None and event.currency != code:
            rate = self.rates.needed(local_day, event.currency, code)
        amount_minor = _check_money(event, brand, rate)
        stated = None if rate is None else _spelled(event.amount)
        properties, sent_properties, cut = _check_properties(event.properties)
        sent_amount = amount_minor if stated is None else stated
        sent = _sent(event, occurred_at, sent_amount, sent_properties)
        return LoggedEvent(
            brand=brand_id,
            event_id=event.event_id,
            shard=shard_of(brand_id, player_id),
            player_id=player_id,
            type=event.type,
            occurred_at=occurred_at,
            received_at=received_at,
            known_at=known_at or received_at,
            local_day=local_day,
            amount_minor=amount_minor,
            currency=None if amount_minor is None else code,
            properties=properties,
            result=_check_result(event) if event.type == "bet.settled" else None,
            backfill=event.backfill,
            fingerprint=self.vault.fingerprint(sent),
            personal=self._sealed(event, cut) if cut else (),
            original_amount=stated,
            original_currency=None if stated is None else event.currency,
        )

    def _brand(self, brand_id: str) -> Brand:
        if not isinstance(brand_id, str):
            raise EventRefused("invalid_field", "brand is text", "brand")
        brand = self.brands.get(brand_id)
        if brand is None:
            raise EventRefused("unknown_brand", "no such brand; see configs/brands", "brand")
        return brand

    def _calendar(self, brand: Brand) -> _Calendar:
        calendar = self._calendars.get(brand.id)
        if calendar is None:
            calendar = self._calendars[brand.id] = _Calendar(brand)
        return calendar

    def _sealed(self, event: IncomingEvent, cut: Cut) -> tuple[tuple[str, bytes], ...]:
        seal = self.vault.seal
        return tuple((name, seal(event.brand, event.player_id, name, value)) for name, value in cut)


def _check_ids(event_id: str, player_id: str) -> None:
    """Check both ids, at one glance where nothing in them asks for a closer look."""
    if type(event_id) is str and type(player_id) is str:
        both = f"{event_id}|{player_id}"
        if (
            both.isascii()
            and both.isprintable()
            and 0 < len(event_id) <= MAX_ID_BYTES
            and 0 < len(player_id) <= MAX_ID_BYTES
            and "@" not in both
            and "+" not in both
            and "%" not in both
            and not _LONG_NUMBER.search(both)
        ):
            return
    check_id(event_id, "event_id")
    check_id(player_id, "player_id")


def check_id(value: str, name: str) -> None:
    """Raise EventRefused unless `value` can be an id: short, printable and not personal."""
    if not isinstance(value, str):
        raise EventRefused("invalid_field", f"{name} is text", name)
    if not value:
        raise EventRefused("invalid_field", f"{name} is empty", name)
    if _CONTROL.search(value) or unstorable(value):
        raise EventRefused(
            "invalid_field", f"{name} holds a control character or half a surrogate pair", name
        )
    if len(value) > MAX_ID_BYTES or len(value.encode()) > MAX_ID_BYTES:
        raise EventRefused("invalid_field", f"{name} is longer than {MAX_ID_BYTES} bytes", name)
    if looks_personal(value):
        raise EventRefused(
            "invalid_field", f"{name} must not be an e-mail address or a phone number", name
        )
    # digits alone are the operator's own number, whatever their check digit
    if not value.isdigit() and holds_card(value):
        raise EventRefused("card_number", "payment card numbers are never taken in", name)


def check_type(value: str) -> None:
    """Raise EventRefused unless `value` is an event type."""
    if not isinstance(value, str):
        raise EventRefused("invalid_field", "type is text", "type")
    if value in EVENT_TYPES:
        return
    if not _CUSTOM_TYPE.fullmatch(value):
        raise EventRefused(
            "unknown_type", "unknown event type (see /docs); name your own custom.NAME", "type"
        )
    if holds_card(value):
        raise EventRefused("card_number", "payment card numbers are never taken in", "type")


def _check_times(
    event: IncomingEvent, brand: Brand, begins_at: datetime, received_at: datetime
) -> tuple[datetime, datetime | None]:
    """Return when the event happened and, if it says so, when that was known; both in UTC."""
    occurred_at, known_at = event.occurred_at, event.known_at
    _check_has_zone(occurred_at, "occurred_at")
    # compared before they are converted: the ends of the calendar do not fit every zone
    if occurred_at > received_at and occurred_at - received_at > MAX_AHEAD:
        raise EventRefused("future_event", "occurred_at is over 5 minutes ahead", "occurred_at")
    if occurred_at < begins_at:
        raise EventRefused(
            "before_brand_start", f"the brand began on {brand.starts_on}", "occurred_at"
        )
    if not isinstance(event.backfill, bool):
        raise EventRefused("invalid_field", "backfill is true or false", "backfill")
    if known_at is not None:
        if not event.backfill:
            raise EventRefused("invalid_field", "known_at goes with backfill: true", "known_at")
        _check_has_zone(known_at, "known_at")
        if not occurred_at <= known_at <= received_at:
            raise EventRefused(
                "invalid_time", "known_at lies between occurred_at and now", "known_at"
            )
        known_at = known_at.astimezone(UTC)
    return occurred_at if occurred_at.tzinfo is UTC else occurred_at.astimezone(UTC), known_at


def _check_has_zone(at: datetime, name: str) -> None:
    if not isinstance(at, datetime):
        raise EventRefused("invalid_time", f"{name} is an RFC 3339 time", name)
    if at.tzinfo is not UTC and at.utcoffset() is None:
        raise EventRefused("invalid_time", f"{name} needs a time zone, such as Z", name)


def _check_money(event: IncomingEvent, brand: Brand, rate: Fraction | None) -> int | None:
    """Return the amount in minor units of the brand's currency, or None where there is none.

    `rate` converts an amount of another currency; None: it is the brand's own.
    """
    amount, currency = event.amount, brand.currency if rate is None else FINEST
    if amount is None:
        if event.type in _MONEY_TYPES:
            raise EventRefused("missing_field", f"{event.type} needs an amount", "amount")
        return None
    if not isinstance(amount, Decimal):
        raise EventRefused("invalid_amount", "amount is a decimal of at least 0", "amount")
    if not amount.is_finite() or amount < 0:
        raise EventRefused("invalid_amount", "amount is a decimal of at least 0", "amount")
    if amount.adjusted() >= MAX_DIGITS:
        raise EventRefused("invalid_amount", f"amount has over {MAX_DIGITS} digits", "amount")
    decimals = currency.decimals
    minor = currency.to_minor(amount)
    # compared exactly: what to_minor computes is rounded to the context's 28 digits
    if minor is None or Decimal(minor).scaleb(-decimals) != amount:
        raise EventRefused("invalid_amount", f"amount has over {decimals} decimals", "amount")
    if rate is not None:
        minor = to_minor(minor, rate, brand.currency)
    if minor >= _LIMIT_MINOR:
        message = f"amount has over {MAX_DIGITS} digits in {brand.currency.code}"
        raise EventRefused("invalid_amount", message, "amount")
    return minor


def _spelled(amount: Decimal | None) -> Decimal | None:
    """Return a checked amount in its one spelling."""
    return None if amount is None else abs(amount.normalize())


def _check_properties(properties: dict[str, Any] | None) -> tuple[str, bytes, Cut]:
    """Return the properties as JSON text without personal fields, all as sent, and those fields."""
    if not properties:
        return "{}", b"{}", ()
    if not isinstance(properties, dict):
        raise EventRefused("invalid_field", "properties is an object", "properties")
    try:
        sent = _encode(properties)
    except (TypeError, ValueError, RecursionError):
        cut_personal_fields(properties)  # says what is wrong, and where
        raise EventRefused(
            "invalid_field", "properties hold what JSON cannot", "properties"
        ) from None
    if len(sent) > MAX_PROPERTIES_BYTES:
        raise EventRefused(
            "invalid_field", f"properties exceed {MAX_PROPERTIES_BYTES} bytes", "properties"
        )
    if nothing_to_cut(properties, sent):
        return sent.decode(), sent, ()
    kept, cut = cut_personal_fields(properties)
    return (_encode(kept) if cut else sent).decode(), sent, cut


def _check_result(event: IncomingEvent) -> str:
    result = (event.properties or {}).get("result")
    if result is None:
        raise EventRefused(
            "missing_field", "bet.settled needs properties.result", "properties.result"
        )
    if result not in RESULTS:
        raise EventRefused(
            "invalid_field",
            f"properties.result is one of {', '.join(RESULTS)}",
            "properties.result",
        )
    return str(result)


def _sent(
    event: IncomingEvent, occurred_at: datetime, amount: int | Decimal | None, properties: bytes
) -> bytes:
    """Return one byte string for all that the client sent, the same for every way to write it.

    `amount` is in the brand's minor units, or as stated in another currency: what a rate made of it
    is not the client's, and may come out differently when the event is sent again.
    """
    known_at = event.known_at
    return _encode(
        (
            event.brand,
            event.event_id,
            event.type,
            event.player_id,
            occurred_at,
            amount,
            event.currency,
            msgspec.Raw(properties),
            event.backfill,
            None if known_at is None else known_at.astimezone(UTC),
        )
    )


def _encode(value: object) -> bytes:
    return msgspec.json.encode(value, order="deterministic")


def derived_event_id(*parts: str) -> str:
    """Return a stable event id for something that has none: a digest of what identifies it."""
    return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
