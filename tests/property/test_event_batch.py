"""No bytes at all make the reading of a request raise anything but its three errors."""

from __future__ import annotations

import contextlib
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from crm.domain.errors import InvalidJson
from crm.domain.event_batch import Refused, decode_batch

FIELDS = (
    "event_id", "type", "player_id", "brand", "occurred_at", "amount", "currency", "properties",
    "backfill", "known_at", "other",
)  # fmt: skip
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["2026-06-01T12:00:00Z", "12.50", "demo", "\ud800", "\0", 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
EVENTS = st.dictionaries(st.sampled_from(FIELDS), VALUES) | VALUES


@given(st.binary() | st.binary().map(lambda some: b'{"events":[' + some + b"]}"))
def test_any_bytes_are_events_or_invalid_json(body: bytes) -> None:
    with contextlib.suppress(InvalidJson):
        decode_batch(body, "demo")


@settings(max_examples=300)
@given(st.lists(EVENTS, max_size=4))
def test_any_json_is_answered_event_by_event(events: list[object]) -> None:
    try:
        body = json.dumps({"events": events}, allow_nan=False).encode()
    except ValueError:  # NaN is no JSON
        return
    answers = decode_batch(body, None)
    assert len(answers) == len(events)
    for index, answer in enumerate(answers):
        assert not isinstance(answer, Refused) or answer.index == index


@given(st.data())
def test_a_body_cut_or_changed_anywhere_raises_nothing_else(data: st.DataObject) -> None:
    event = {"event_id": "e", "type": "t", "player_id": "p", "amount": "1", "properties": {"a": 1}}
    body = bytearray(json.dumps({"events": [event, event]}).encode())
    at = data.draw(st.integers(0, len(body) - 1))
    if data.draw(st.booleans()):
        del body[at:]
    else:
        body[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidJson):
        decode_batch(bytes(body), "demo")
