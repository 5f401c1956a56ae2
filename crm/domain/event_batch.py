"""A request's body as events, each read alone: a bad one does not spoil its neighbours."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from crm.domain.errors import EventRefused, InvalidJson, TooLarge, TooManyEvents
from crm.domain.events import IncomingEvent, check_id

MAX_EVENTS = 5_000
MAX_BYTES = 5_000_000


class Refused(msgspec.Struct, frozen=True):
    """An event that cannot be accepted: its place in the request, and the contract's code for why.

    `event_id` is None where there is none to name. The message never carries a value.
    """

    index: int
    event_id: str | None
    code: str
    message: str


class _Body(msgspec.Struct):
    events: list[msgspec.Raw]


class _Written(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An event as JSON spells it: the amount stays as written, since 1_000 is no decimal here."""

    event_id: str
    type: str
    player_id: str
    occurred_at: datetime
    brand: str | None = None
    amount: msgspec.Raw = msgspec.Raw(b"null")  # immutable
    currency: str | None = None
    properties: dict[str, Any] | None = None
    backfill: bool = False
    known_at: datetime | None = None


_body = msgspec.json.Decoder(_Body)
_written = msgspec.json.Decoder(_Written)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text = msgspec.json.Decoder(str)
_decoder_of: Final = {
    field.name: msgspec.json.Decoder(field.type) for field in msgspec.structs.fields(_Written)
}
_AMOUNT = re.compile(rb'"(-?[0-9]+(?:\.[0-9]+)?)"|(-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?)')
MAX_AMOUNT_CHARS = 64
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a whole pair
    rb"|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_SHOWABLE = re.compile(r"[A-Za-z_]{1,32}")
_TIMES = frozenset({"occurred_at", "known_at"})
_EXPECTED = {
    "occurred_at": "an RFC 3339 time with its zone, such as 2026-01-31T18:00:00Z",
    "known_at": "an RFC 3339 time with its zone, such as 2026-01-31T18:00:00Z",
    "properties": "an object",
    "backfill": "true or false",
}


class _Unreadable(Exception):
    """Why one event cannot be read; never leaves this module."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code, self.message = code, message


def decode_batch(body: bytes, default_brand: str | None) -> list[IncomingEvent | Refused]:
    """Return what `{"events": [...]}` holds, in order; one without a brand is `default_brand`'s.

    Raises TooLarge, InvalidJson or TooManyEvents where the body as a whole cannot be taken.
    """
    if len(body) > MAX_BYTES:
        raise TooLarge(f"the body has over {MAX_BYTES} bytes; send the events in several requests")
    try:
        body.decode()
        events = raw_events(body)
    except UnicodeDecodeError as error:
        raise InvalidJson(f"the body is not UTF-8 (byte {error.start})") from None
    except msgspec.ValidationError:
        raise InvalidJson('the body is an object such as {"events": [...]}') from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidJson(f"the body is not JSON: {_where(error)}") from None
    if len(events) > MAX_EVENTS:
        raise TooManyEvents(f"a request takes at most {MAX_EVENTS} events")
    return [_read(index, raw, default_brand) for index, raw in enumerate(events)]


def raw_events(body: bytes) -> list[msgspec.Raw]:
    """Return the events of a body as they stand in it; raises what msgspec raises."""
    try:
        return _body.decode(body).events
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # half a surrogate pair is the one thing in JSON that msgspec cannot read; as a NUL, which
        # the door refuses too, it spoils its own event only
        mended = _ESCAPE.sub(lambda found: b"\\u0000" if found[1] else found[0], body)
        return _body.decode(mended).events


def _read(index: int, raw: msgspec.Raw, default_brand: str | None) -> IncomingEvent | Refused:
    try:
        return _incoming(_written.decode(raw), default_brand)
    except _Unreadable as error:
        reason = error
    except (ValueError, RecursionError):  # msgspec's own, and UnicodeDecodeError
        reason = _fault(raw)
    return Refused(index, _event_id(raw), reason.code, reason.message)


def _incoming(event: _Written, default_brand: str | None) -> IncomingEvent:
    brand = event.brand if event.brand is not None else default_brand
    if brand is None:
        raise _Unreadable("missing_field", "brand is missing; ?brand= names it for all")
    return IncomingEvent(
        event_id=event.event_id,
        type=event.type,
        player_id=event.player_id,
        brand=brand,
        occurred_at=event.occurred_at,
        amount=_amount(bytes(event.amount)),
        currency=event.currency,
        properties=event.properties,
        backfill=event.backfill,
        known_at=event.known_at,
    )


def _amount(written: bytes) -> Decimal | None:
    """Return the amount exactly as it is written, as a string or a number."""
    if written == b"null":
        return None
    plain = _AMOUNT.fullmatch(written) if len(written) <= MAX_AMOUNT_CHARS else None
    if plain is None:
        raise _Unreadable("invalid_amount", 'amount is a decimal, such as "12.50"')
    return Decimal((plain[1] or plain[2]).decode())


def _fault(raw: msgspec.Raw) -> _Unreadable:
    """Return what is wrong with the first field that cannot be read."""
    try:
        fields = _fields.decode(raw)
    except (ValueError, RecursionError):
        return _Unreadable("invalid_field", "an event is an object of named fields")
    for name in ("event_id", "type", "player_id", "occurred_at"):
        if name not in fields:
            return _Unreadable("missing_field", f"{name} is missing")
    for name, value in fields.items():
        decoder = _decoder_of.get(name)
        if decoder is None:
            shown = f" {name}" if _SHOWABLE.fullmatch(name) else ""
            return _Unreadable("invalid_field", f"there is no field{shown}; see properties")
        try:
            decoder.decode(value)
        except (ValueError, RecursionError):
            code = "invalid_time" if name in _TIMES else "invalid_field"
            return _Unreadable(code, f"{name} is {_EXPECTED.get(name, 'text')}")
    return _Unreadable("invalid_field", "the event cannot be read")


def _event_id(raw: msgspec.Raw) -> str | None:
    """Return the event's id for the report, unless it is missing or no id at all."""
    try:
        event_id = _text.decode(_fields.decode(raw)["event_id"])
        check_id(event_id, "event_id")
    except (ValueError, KeyError, RecursionError, EventRefused):
        return None
    return event_id


def _where(error: Exception) -> str:
    return "it is nested too deep" if isinstance(error, RecursionError) else str(error)
