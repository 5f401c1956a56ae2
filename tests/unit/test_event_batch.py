"""Request bodies: the whole is refused, or each event is answered for itself."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from crm.domain.errors import CrmError, InvalidJson, TooLarge, TooManyEvents
from crm.domain.event_batch import MAX_BYTES, Refused, decode_batch
from crm.domain.events import IncomingEvent

GOOD: dict[str, Any] = {
    "event_id": "e-1",
    "type": "bet.placed",
    "player_id": "p-1",
    "brand": "demo",
    "occurred_at": "2026-06-01T12:00:00Z",
    "amount": "12.50",
}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in GOOD.items() if key != name}


def decoded(*events: object, default_brand: str | None = None) -> list[IncomingEvent | Refused]:
    return decode_batch(json.dumps({"events": events}).encode(), default_brand)


def refused(event: object) -> Refused:
    before, found, after = decoded(GOOD, event, GOOD)
    assert isinstance(before, IncomingEvent)
    assert isinstance(after, IncomingEvent)
    assert isinstance(found, Refused)
    assert found.index == 1
    return found


def amount_of(written: str) -> Decimal | str | None:
    body = json.dumps({"events": [{**GOOD, "amount": 0}]})
    (event,) = decode_batch(body.replace('"amount": 0', f'"amount": {written}').encode(), None)
    return event.code if isinstance(event, Refused) else event.amount


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", InvalidJson),
        (b"{", InvalidJson),
        (b"[]", InvalidJson),
        (b"{}", InvalidJson),
        (b"null", InvalidJson),
        (b'{"events": 5}', InvalidJson),
        (b'{"events": null}', InvalidJson),
        (b'{"events": {}}', InvalidJson),
        (b'{"events": []} x', InvalidJson),
        (b'{"events": [{"event_id": "ana]}', InvalidJson),
        (b'{"events": ["\xff"]}', InvalidJson),
        (b'{"note": "\xff", "events": []}', InvalidJson),
        (b'\xef\xbb\xbf{"events": []}', InvalidJson),
        (b'{"events": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}", InvalidJson),
        (b'{"events": [' + b"1," * 5_000 + b"1]}", TooManyEvents),
        (b" " * (MAX_BYTES + 1), TooLarge),
    ],
    ids=range(16),
)
def test_a_body_that_cannot_be_taken_is_one_clear_error(body: bytes, error: type[CrmError]) -> None:
    with pytest.raises(error) as found:
        decode_batch(body, None)
    assert "ana" not in found.value.message
    assert found.value.code in {"invalid_json", "too_many_events", "too_large"}


def test_five_thousand_events_and_five_megabytes_are_taken() -> None:
    assert len(decoded(*[GOOD] * 5_000)) == 5_000
    body = json.dumps({"events": [GOOD]}).encode()
    assert len(decode_batch(body.ljust(MAX_BYTES), None)) == 1
    assert decoded() == []


@pytest.mark.parametrize("name", ["event_id", "type", "player_id", "occurred_at", "brand"])
def test_a_missing_field_is_named(name: str) -> None:
    found = refused(without(name))
    assert found.code == "missing_field"
    assert found.message.startswith(f"{name} is missing")
    assert found.event_id == (None if name == "event_id" else "e-1")


def test_an_event_without_a_brand_is_the_default_brands() -> None:
    own, defaulted = decoded(GOOD, without("brand"), default_brand="trial")
    assert isinstance(own, IncomingEvent)
    assert isinstance(defaulted, IncomingEvent)
    assert (own.brand, defaulted.brand) == ("demo", "trial")


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"event_id": 5}, "invalid_field", "event_id is text"),
        ({"player_id": None}, "invalid_field", "player_id is text"),
        ({"type": ["ana"]}, "invalid_field", "type is text"),
        ({"currency": 5}, "invalid_field", "currency is text"),
        ({"properties": ["ana"]}, "invalid_field", "properties is an object"),
        ({"backfill": "ana"}, "invalid_field", "backfill is true or false"),
        ({"amuont": "ana"}, "invalid_field", "no field amuont"),
        ({"ana@example.com": 1}, "invalid_field", "no field;"),
        ({"occurred_at": "ana"}, "invalid_time", "occurred_at is an RFC 3339 time"),
        ({"occurred_at": 1767225600}, "invalid_time", "occurred_at is an RFC 3339 time"),
        ({"occurred_at": "2016-12-31T23:59:60Z"}, "invalid_time", "occurred_at"),
        ({"occurred_at": "2026-13-01T00:00:00Z"}, "invalid_time", "occurred_at"),
        ({"occurred_at": "2026-01-31"}, "invalid_time", "occurred_at"),
        ({"known_at": "ana"}, "invalid_time", "known_at"),
        ({"amount": "ana"}, "invalid_amount", "amount is a decimal"),
    ],
)
def test_a_bad_event_gets_its_code_and_spoils_no_neighbour(
    changes: dict[str, Any], code: str, says: str
) -> None:
    found = refused({**GOOD, **changes})
    assert found.code == code
    assert says in found.message
    assert "ana" not in found.message


@pytest.mark.parametrize("event", [5, None, "ana", [], [GOOD], True])
def test_what_is_no_object_is_no_event(event: object) -> None:
    found = refused(event)
    assert (found.event_id, found.code) == (None, "invalid_field")


@pytest.mark.parametrize("event_id", ["ana@example.com", "+5511987654321", "x" * 129, "a\0", ""])
def test_a_report_never_repeats_an_id_that_is_none(event_id: str) -> None:
    assert refused({**GOOD, "event_id": event_id, "occurred_at": "x"}).event_id is None


def test_half_a_surrogate_pair_spoils_only_its_event() -> None:
    halves = [{**GOOD, "player_id": half} for half in ("\ud800", "\udfff", "\udc00\ud800")]
    whole = [{**GOOD, "player_id": text} for text in ("\U0001f600", "\\ud800", "\\\\ud800")]
    players = [
        event.player_id for event in decoded(*halves, *whole) if isinstance(event, IncomingEvent)
    ]
    # the door refuses a NUL as it would the half
    assert players == ["\0", "\0", "\0\0", "\U0001f600", "\\ud800", "\\\\ud800"]
    body = json.dumps({"events": [{**GOOD, "player_id": "\ud800", "type": 5}, GOOD]}).encode()
    bad, good = decode_batch(body, None)
    assert isinstance(bad, Refused)
    assert isinstance(good, IncomingEvent)


@pytest.mark.parametrize(
    ("written", "amount"),
    [
        ("null", None),
        ('"12.50"', Decimal("12.50")),
        ("12.50", Decimal("12.50")),
        ("12", Decimal(12)),
        ("0.1", Decimal("0.1")),
        ("1.0000000000000000000001", Decimal("1.0000000000000000000001")),
        ("1e2", Decimal(100)),
        ('"-1"', Decimal(-1)),
    ],
)
def test_an_amount_is_read_exactly(written: str, amount: Decimal | None) -> None:
    assert amount_of(written) == amount


@pytest.mark.parametrize(
    "written",
    [
        '" 1"', '"1 "', '"1_000"', '"1,5"', '"+1"', '"1e5"', '".5"', '"5."', '"NaN"', '"Infinity"',
        '"\uff11"', '"0x1"', '""', "true", "[]", "{}", '["1"]', f'"{"1" * 5000}"', "1" * 5000,
        r'"\u0031"',
    ],
)  # fmt: skip
def test_an_amount_in_any_other_spelling_is_refused(written: str) -> None:
    assert amount_of(written) == "invalid_amount"


def test_of_a_field_that_comes_twice_the_last_counts() -> None:
    body = json.dumps({"events": [GOOD]}).replace('"amount"', '"amount": "1", "amount"')
    (event,) = decode_batch(body.encode(), None)
    assert isinstance(event, IncomingEvent)
    assert event.amount == Decimal("12.50")


@pytest.mark.parametrize("amount", ["1e9999999999999999999", "0e99999", "1e-99999", "1e400"])
def test_an_amount_of_any_exponent_spoils_no_neighbour(amount: str) -> None:
    bad = json.dumps({**GOOD, "amount": 0}).replace('"amount": 0', f'"amount": {amount}')
    body = f'{{"events": [{json.dumps(GOOD)}, {bad}]}}'.encode()
    good, found = decode_batch(body, None)
    assert isinstance(good, IncomingEvent)
    assert isinstance(found, Refused) or found.amount == Decimal("1e400")  # the door's to refuse
