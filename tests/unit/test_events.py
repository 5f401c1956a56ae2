"""The door: every fault has its code, and nothing personal comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from crm.adapters.vault import FileKeyVault
from crm.domain.brands import Brand, Currency
from crm.domain.errors import EventRefused
from crm.domain.events import Door, IncomingEvent, LoggedEvent

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
LISBON = Brand("demo", "Demo", Currency("EUR", 2), "Europe/Lisbon", date(2020, 1, 1), "PT")
KABUL = Brand("kabul", "Kabul", Currency("AFN", 0), "Asia/Kathmandu", date(2020, 1, 1), "NP")
COIN = Brand("coin", "Coin", Currency("XBT", 8), "UTC", date(2020, 1, 1), "XX")
VAULT = FileKeyVault(bytes(32))
DOOR = Door({brand.id: brand for brand in (LISBON, KABUL, COIN)}, VAULT)


def a_bet(**changes: Any) -> IncomingEvent:
    return IncomingEvent(
        **{
            "event_id": "e-1",
            "type": "bet.placed",
            "player_id": "p-1",
            "brand": "demo",
            "occurred_at": NOW,
            "amount": Decimal("12.50"),
            "currency": "EUR",
            "properties": {"bet_id": "b-1", "product": "casino"},
            **changes,
        }
    )


def accept(**changes: Any) -> LoggedEvent:
    return DOOR.accept(a_bet(**changes), NOW)


def refused(**changes: Any) -> EventRefused:
    with pytest.raises(EventRefused) as found:
        accept(**changes)
    return found.value


def test_a_usual_bet_goes_to_the_log_as_it_was_sent() -> None:
    logged = accept()
    assert (logged.amount_minor, logged.currency) == (1250, "EUR")
    assert logged.occurred_at == logged.received_at == logged.known_at == NOW
    assert logged.properties == '{"bet_id":"b-1","product":"casino"}'
    assert (logged.result, logged.backfill, logged.personal) == (None, False, ())
    assert len(logged.fingerprint) == 16


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"brand": "nobody"}, "unknown_brand"),
        ({"type": "bet.lost"}, "unknown_type"),
        ({"type": "custom."}, "unknown_type"),
        ({"type": "custom.a b"}, "unknown_type"),
        ({"type": "custom.x\n"}, "unknown_type"),
        ({"type": "custom.4111111111111111"}, "card_number"),
        ({"amount": None}, "missing_field"),
        ({"type": "bet.settled", "properties": None}, "missing_field"),
        ({"type": "bet.settled", "properties": {"result": "WON"}}, "invalid_field"),
        ({"type": "bet.settled", "properties": {"result": ["won"]}}, "invalid_field"),
        ({"event_id": ""}, "invalid_field"),
        ({"currency": "USD"}, "unknown_currency"),
        ({"type": "custom.x", "amount": None, "currency": "USD"}, "unknown_currency"),
        ({"known_at": NOW}, "invalid_field"),
        ({"brand": ["demo"]}, "invalid_field"),
        ({"type": ["bet.placed"]}, "invalid_field"),
        ({"event_id": 5}, "invalid_field"),
        ({"player_id": None}, "invalid_field"),
        ({"backfill": "yes"}, "invalid_field"),
        ({"properties": ["x"]}, "invalid_field"),
        ({"properties": "x"}, "invalid_field"),
        ({"occurred_at": "2026-06-01T12:00:00Z"}, "invalid_time"),
        ({"occurred_at": date(2026, 6, 1)}, "invalid_time"),
        ({"amount": 12.5}, "invalid_amount"),
        ({"properties": {"note": "4111 1111 1111 1111"}}, "card_number"),
    ],
)
def test_every_fault_has_its_code(changes: dict[str, Any], code: str) -> None:
    assert refused(**changes).code == code


@pytest.mark.parametrize("name", ["event_id", "player_id"])
@pytest.mark.parametrize(
    "value",
    [
        "x" * 10_000, "x" * 129, "\u00e9" * 65, "a\0", "a\nb", "a\x7f", "a\x85", "\ud800",
        "a\udfff",        "ana@example.com", "+5511987654321", "ana%40example.com",
    ],
)  # fmt: skip
def test_an_id_is_short_printable_and_not_personal(name: str, value: str) -> None:
    error = refused(**{name: value})
    assert (error.code, error.field) == ("invalid_field", name)
    assert value not in str(error)


@pytest.mark.parametrize("value", ["4111 1111 1111 1111", "x-4111-1111-1111-1111"])
def test_a_card_in_groups_is_no_id(value: str) -> None:
    assert refused(player_id=value).code == refused(event_id=value).code == "card_number"


@pytest.mark.parametrize(
    "value",
    [
        "x" * 128, "\u00e9" * 64, "4111111111111111", "0012345678901", "a b", "joao", "1",
        "8e2b7c1d-4111-4111-8111-111111111111", "2026-01-31T18:00:00.000Z",
    ],
)  # fmt: skip
def test_an_operators_own_ids_are_accepted(value: str) -> None:
    assert accept(player_id=value, event_id=value).player_id == value


@pytest.mark.parametrize(
    "amount",
    [
        "-1", "-0.01", "NaN", "sNaN", "-NaN", "Infinity", "-Infinity", "1e308", "1e-9", "1.005",
        "1234567890123456", "10000000000000.00", "1E+999999999999", "1E-999999999999", "1E+15",
        "1.0000000000000000000000000000000001", "1" * 5000,
    ],
)  # fmt: skip
def test_an_absurd_amount_is_refused(amount: str) -> None:
    error = refused(amount=Decimal(amount))
    assert (error.code, error.field) == ("invalid_amount", "amount")
    assert amount not in str(error)


@pytest.mark.parametrize(
    ("brand", "amount", "minor"),
    [
        ("demo", "0", 0),
        ("demo", "-0", 0),
        ("demo", "0.01", 1),
        ("demo", "1.500", 150),
        ("demo", "1E+2", 10_000),
        ("demo", "9999999999999.99", 10**15 - 1),
        ("kabul", "999999999999999", 10**15 - 1),
        ("coin", "0.00000001", 1),
    ],
)
def test_an_amount_is_kept_exactly_in_minor_units(brand: str, amount: str, minor: int) -> None:
    assert accept(brand=brand, amount=Decimal(amount), currency=None).amount_minor == minor


@pytest.mark.parametrize(
    ("at", "code"),
    [
        (datetime(2026, 6, 1, 12), "invalid_time"),  # noqa: DTZ001 - that is the fault
        (NOW + timedelta(minutes=5, microseconds=1), "future_event"),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))), "future_event"),
        (datetime.max.replace(tzinfo=UTC), "future_event"),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), "before_brand_start"),
        (datetime.min.replace(tzinfo=UTC), "before_brand_start"),
        (datetime(2019, 12, 31, 23, 59, 59, tzinfo=UTC), "before_brand_start"),
    ],
)
def test_a_time_out_of_range_is_refused(at: datetime, code: str) -> None:
    assert refused(occurred_at=at).code == code


def test_a_brand_begins_at_midnight_where_it_is() -> None:
    # 2020-01-01 00:00 in Kathmandu is 18:15 UTC of the day before
    begin = datetime(2019, 12, 31, 18, 15, tzinfo=UTC)
    bet = {"brand": "kabul", "currency": None, "amount": Decimal(1)}
    assert accept(**bet, occurred_at=begin).local_day == date(2020, 1, 1)
    too_early = refused(**bet, occurred_at=begin - timedelta(microseconds=1))
    assert too_early.code == "before_brand_start"


def test_five_minutes_ahead_is_still_now() -> None:
    at = NOW + timedelta(minutes=5)
    assert accept(occurred_at=at).occurred_at == at


@pytest.mark.parametrize("brand", [LISBON, KABUL])
def test_the_local_day_is_right_in_every_hour_asked_in_any_order(brand: Brand) -> None:
    door = Door({brand.id: brand}, VAULT)
    # around Lisbon's changes of clocks, and Kathmandu's midnight in the middle of an hour
    starts = [datetime(2025, 3, 29, 20, tzinfo=UTC), datetime(2025, 10, 25, 20, tzinfo=UTC)]
    times = [start + timedelta(minutes=7 * step) for start in starts for step in range(300)]
    for at in [*times, *reversed(times)]:
        event = a_bet(brand=brand.id, occurred_at=at, amount=Decimal(1), currency=None)
        assert door.accept(event, NOW).local_day == at.astimezone(brand.zone).date()


def test_a_time_of_another_zone_is_kept_in_utc() -> None:
    at = datetime(2026, 3, 29, 3, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    logged = accept(occurred_at=at)
    assert logged.occurred_at == at
    assert logged.occurred_at.tzinfo is UTC


def test_known_at_goes_with_a_backfill_and_lies_between() -> None:
    before = NOW - timedelta(days=1)
    backfill = {"occurred_at": before, "backfill": True}
    assert accept(**backfill, known_at=before).known_at == before
    assert accept(**backfill).known_at == NOW
    for known_at in (before - timedelta(seconds=1), NOW + timedelta(seconds=1)):
        assert refused(**backfill, known_at=known_at).code == "invalid_time"
    naive = before.replace(tzinfo=None)
    assert refused(**backfill, known_at=naive).code == "invalid_time"
    assert refused(**backfill, known_at="yesterday").code == "invalid_time"


def test_the_size_of_properties_is_measured_on_what_was_sent() -> None:
    fits = {"note": "x" * (16_384 - len('{"note":""}'))}
    assert len(accept(properties=fits).properties) == 16_384
    assert refused(properties={"note": fits["note"] + "x"}).code == "invalid_field"
    # cut fields count too, or the vault would take what the log does not
    assert refused(properties={"email": "x" * 17_000}).code == "invalid_field"


def test_a_backslash_before_u0000_is_no_nul() -> None:
    assert accept(properties={"path": "C:\\u0000"}).properties == '{"path":"C:\\\\u0000"}'


@pytest.mark.parametrize(
    "properties",
    [
        {"x": float("nan")}, {"x": 10**5000}, {"x": "\ud800"}, {"\ud800": 1}, {"x": object()},
        {1: 2}, {"x": {1, 2}}, {"x": b"x"}, {"x": "\0"},
    ],
)  # fmt: skip
def test_properties_that_cannot_be_kept_are_refused(properties: dict[str, Any]) -> None:
    assert refused(properties=properties).code == "invalid_field"


def test_endless_properties_are_refused() -> None:
    endless: dict[str, Any] = {}
    endless["x"] = endless
    assert refused(properties=endless).code == "invalid_field"


def test_personal_values_are_sealed_and_stand_nowhere_else() -> None:
    logged = accept(
        properties={"game": "x", "email": "ana@example.com", "who": {"phone": 5511987654321}}
    )
    assert logged.properties == '{"game":"x","who":{}}'
    assert "ana" not in repr(logged)
    assert "5511987654321" not in repr(logged)
    opened = {name: VAULT.unseal("demo", "p-1", name, sealed) for name, sealed in logged.personal}
    assert opened == {"email": "ana@example.com", "who.phone": "5511987654321"}


def test_personal_values_never_stand_in_an_error() -> None:
    secrets = ("ana@example.com", "+5511987654321", "4111 1111 1111 1111")
    for secret in secrets:
        for changes in (
            {"event_id": secret},
            {"player_id": secret},
            {"type": secret},
            {"brand": secret},
            {"currency": secret},
            {"properties": {secret: 1}},
            {"properties": {"email": {secret: 1}}},
            {"type": "bet.settled", "properties": {"result": secret}},
        ):
            error = refused(**changes)
            assert secret not in repr(error) + str(error.__cause__)


@pytest.mark.parametrize(
    ("changes", "digest"),
    [
        ({}, "94a7785193547eeb5954f089b390ef77"),
        ({"currency": None}, "0fd6a7ab14b1976b7ddf6436e3a7740e"),
        (
            {"type": "custom.x", "amount": None, "currency": None, "properties": None},
            "62804fe3b339ab281f26fbc8ba6a22a5",
        ),
        (
            {"backfill": True, "known_at": NOW, "amount": Decimal("0.5")},
            "6f418858ed187896d43335f32ee9eff2",
        ),
    ],
)
def test_a_fingerprint_is_for_ever(changes: dict[str, Any], digest: str) -> None:
    # those of accepted events stand in stores: another one would make each retry a conflict
    assert accept(**changes).fingerprint.hex() == digest


@dataclass
class Refusing:
    """A vault that cannot be written to."""

    def seal(self, brand: str, player_id: str, field: str, value: str) -> bytes:
        raise AssertionError

    def fingerprint(self, content: bytes) -> bytes:
        return content[:16]


def test_an_event_without_personal_fields_never_asks_the_vault_to_seal() -> None:
    assert Door({"demo": LISBON}, Refusing()).accept(a_bet(), NOW).personal == ()
