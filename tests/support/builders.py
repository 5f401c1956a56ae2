"""Builders: data of a test, with what matters to it said and the rest believable."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from hashlib import blake2b
from typing import Any

from crm.domain.brands import Brand, Currency
from crm.domain.events import Door, IncomingEvent, LoggedEvent

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)


def a_brand(**changes: Any) -> Brand:
    """A brand in euros, in Lisbon, that began in 2020."""
    fields: dict[str, Any] = {
        "id": "demo",
        "name": "Demonstration",
        "currency": Currency("EUR", 2),
        "time_zone": "Europe/Lisbon",
        "starts_on": date(2020, 1, 1),
        "country": "PT",
    }
    return Brand(**(fields | changes))


class OpenVault:
    """A vault whose seals can be read: tests see what was cut out."""

    def seal(self, brand: str, player_id: str, field: str, value: str) -> bytes:
        """Return the value behind its place."""
        return f"{brand}/{player_id}/{field}={value}".encode()

    def fingerprint(self, content: bytes) -> bytes:
        """Return an unkeyed digest."""
        return blake2b(content, digest_size=16).digest()


def a_door(*brands: Brand) -> Door:
    """A door to the given brands, or to the usual one."""
    return Door({brand.id: brand for brand in brands or (a_brand(),)}, OpenVault())


def an_event(**changes: Any) -> IncomingEvent:
    """A bet of 12.50 euros at noon."""
    fields: dict[str, Any] = {
        "event_id": "e1",
        "type": "bet.placed",
        "player_id": "p1",
        "brand": "demo",
        "occurred_at": NOON,
        "amount": Decimal("12.50"),
        "currency": "EUR",
        "properties": {"product": "casino"},
    }
    return IncomingEvent(**(fields | changes))


def a_logged_event(received_at: datetime = NOON, **changes: Any) -> LoggedEvent:
    """An event as the log keeps it."""
    return a_door().accept(an_event(**changes), received_at)
