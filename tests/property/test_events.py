"""Laws of the door: one content has one fingerprint, and any event is accepted or refused."""

from __future__ import annotations

import contextlib
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from crm.adapters.vault import FileKeyVault
from crm.domain.brands import Brand, Currency
from crm.domain.errors import EventRefused
from crm.domain.events import EVENT_TYPES, Door, IncomingEvent
from crm.domain.personal import cut_personal_fields, nothing_to_cut
from tests.support.builders import some_rates

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
BRANDS = {
    name: Brand(name, name, Currency("EUR", 2), "Europe/Lisbon", date(2020, 1, 1), "PT")
    for name in ("demo", "other")
}
DOOR = Door(BRANDS, FileKeyVault(bytes(32)), some_rates(USD_EUR={"2020-01-01": "0.9123"}))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text("ab \u00e9", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=6,
)
CONTENTS = st.fixed_dictionaries(
    {
        "event_id": st.text("abc1-", min_size=1, max_size=8),
        "type": st.sampled_from(["bet.placed", "custom.a", "custom.b"]),
        "player_id": st.text("abc1-", min_size=1, max_size=8),
        "brand": st.sampled_from(list(BRANDS)),
        "occurred_at": st.integers(0, 10**9).map(lambda us: NOW - timedelta(microseconds=us)),
        "amount": st.integers(0, 10**6).map(lambda minor: Decimal(minor).scaleb(-2)),
        "currency": st.sampled_from([None, "EUR", "USD"]),
        "properties": st.none() | st.dictionaries(st.text("abc"), JSON, max_size=4),
        "backfill": st.booleans(),
    }
)


def fingerprint(content: dict[str, Any], received_at: datetime = NOW) -> bytes:
    return DOOR.accept(IncomingEvent(**content), received_at).fingerprint


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reordered(item) for key, item in reversed(value.items())}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@given(CONTENTS, st.integers(-14, 14), st.integers(0, 5), st.integers(0, 300))
def test_the_same_content_in_another_spelling_has_the_same_fingerprint(
    content: dict[str, Any], zone_hours: int, zeros: int, seconds_later: int
) -> None:
    zone = timezone(timedelta(hours=zone_hours))
    amount = content["amount"]
    other = {
        **content,
        "occurred_at": content["occurred_at"].astimezone(zone),
        "amount": Decimal(f"{amount:f}" + "0" * zeros) if "." in f"{amount:f}" else amount,
        "properties": reordered(content["properties"]) or None,
    }
    later = NOW + timedelta(seconds=seconds_later)
    assert fingerprint(other, later) == fingerprint(content)


@given(CONTENTS, CONTENTS, st.data())
def test_any_other_content_has_another_fingerprint(
    content: dict[str, Any], other: dict[str, Any], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(list(content)))
    changed = {**content, name: other[name]}
    assume((changed[name] or None) != (content[name] or None))
    # JSON tells true from 1, though Python does not
    assert fingerprint(changed) != fingerprint(content)


@given(CONTENTS)
def test_a_personal_value_is_part_of_the_content(content: dict[str, Any]) -> None:
    prints = {
        fingerprint({**content, "properties": {"email": text}})
        for text in ("ana@example.com", "rui@example.com")
    }
    assert len(prints) == 2


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(codec=None)),
    st.binary(),
    st.decimals(),
    st.datetimes(timezones=st.none() | st.just(UTC) | st.timezones()),
    st.dates(),
)
ANYTHING = st.recursive(
    ODD,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)
ODD_EVENTS = st.fixed_dictionaries(
    {
        "event_id": st.just("e") | ANYTHING,
        "type": st.sampled_from(sorted(EVENT_TYPES)) | ANYTHING,
        "player_id": st.just("p") | ANYTHING,
        "brand": st.just("demo") | ANYTHING,
        "occurred_at": st.just(NOW) | ANYTHING,
        "amount": st.just(Decimal(1)) | st.decimals() | ANYTHING,
        "currency": st.none() | st.just("USD") | ANYTHING,
        "properties": st.dictionaries(st.text(), ANYTHING, max_size=3) | ANYTHING,
        "backfill": st.booleans() | ANYTHING,
        "known_at": st.none() | ANYTHING,
    }
)


@settings(max_examples=500)
@given(ODD_EVENTS)
def test_any_event_built_in_python_is_accepted_or_refused(event: dict[str, Any]) -> None:
    with contextlib.suppress(EventRefused):
        logged = DOOR.accept(IncomingEvent(**event), NOW)
        msgspec.json.decode(logged.properties)
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(logged), type=type(logged)) == logged


SECRETS = st.sampled_from(
    ["ana.secret@example.com", "+55 (11) 9secret".replace("secret", "8765-4321"), "+4915112345678"]
)


@given(
    st.text(" .,:;ab1", max_size=10), SECRETS, st.text(" .,:;ab", max_size=10), st.integers(0, 5)
)
def test_a_secret_in_any_text_at_any_depth_is_cut(
    before: str, secret: str, after: str, depth: int
) -> None:
    properties: Any = f"{before} {secret} {after}"
    for level in range(depth):
        properties = [properties] if level % 2 else {"a": properties}
    properties = {"a": properties}
    assert not nothing_to_cut(properties, msgspec.json.encode(properties))
    kept, cut = cut_personal_fields(properties)
    assert secret not in repr(kept)
    assert len(cut) == 1
