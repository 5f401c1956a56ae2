"""Builders: data of a test, with what matters to it said and the rest believable."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from hashlib import blake2b
from typing import Any

from crm.domain.brands import Brand, Currency
from crm.domain.events import Door, IncomingEvent, LoggedEvent
from crm.domain.rates import Rates, Series

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


def a_door(*brands: Brand, rates: Rates | None = None) -> Door:
    """A door to the given brands, or to the usual one; without rates but for the given."""
    named = {brand.id: brand for brand in brands or (a_brand(),)}
    return Door(named, OpenVault(), rates or Rates())


def some_rates(**pairs: dict[str, str | None]) -> Rates:
    """Rates by pair and day, such as USD_EUR={"2026-03-10": "0.90"}; None ends them."""
    return Rates({(pair[:3], pair[4:]): _series(by_day) for pair, by_day in pairs.items()})


def _series(by_day: dict[str, str | None]) -> Series:
    days = sorted(by_day)
    times = [None if (rate := by_day[day]) is None else Decimal(rate) for day in days]
    return Series([date.fromisoformat(day) for day in days], times, [Decimal(1)] * len(days))


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


def a_logged_event(
    received_at: datetime = NOON, rates: Rates | None = None, **changes: Any
) -> LoggedEvent:
    """An event as the log keeps it."""
    return a_door(rates=rates).accept(an_event(**changes), received_at)
