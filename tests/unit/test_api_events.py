"""POST /v1/events: good events are stored, each bad one is answered for itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from crm.domain.errors import DatabaseAway, ShardsWarming
from tests.support.api import Api, an_api, an_event_body, problem_of
from tests.support.builders import some_rates
from tests.support.local_shards import LocalShards

EMAIL = "ana.souza@example.com"
CARD = "4111111111111111"


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with an_api() as running:
        yield running


async def test_events_are_stored_and_counted(api: Api) -> None:
    report = await api.take(an_event_body(), an_event_body(event_id="e2", player_id="p2"))
    assert report == {"accepted": 2, "duplicates": 0, "rejected": []}
    assert sorted(api.stored) == ["e1", "e2"]
    assert api.quarantine.rows == []


async def test_no_events_are_no_fault(api: Api) -> None:
    assert await api.take() == {"accepted": 0, "duplicates": 0, "rejected": []}


async def test_an_event_sent_again_is_a_duplicate(api: Api) -> None:
    report = await api.take(an_event_body(), an_event_body())
    assert (report["accepted"], report["duplicates"]) == (1, 1)
    report = await api.take(an_event_body())
    assert report == {"accepted": 0, "duplicates": 1, "rejected": []}
    assert api.stored == ["e1"]


async def test_the_same_id_with_another_content_is_a_conflict(api: Api) -> None:
    await api.take(an_event_body())
    report = await api.take(an_event_body(event_id="e2"), an_event_body(amount="99"), 5)
    assert report["accepted"] == 1
    assert [(r["index"], r["event_id"], r["code"]) for r in report["rejected"]] == [
        (1, "e1", "conflict"),
        (2, None, "invalid_field"),
    ]
    assert api.unsealed() == [an_event_body(amount="99"), 5]
    features = (await api.client.get("/v1/players/p1/features")).json()["features"]
    assert features["stake_amount_lifetime"] == "25.00"


async def test_an_amount_in_another_currency_counts_in_the_brands() -> None:
    async with an_api(rates=some_rates(USD_EUR={"2026-03-10": "0.9"})) as api:
        abroad = an_event_body(event_id="usd", currency="USD", amount="10.00")
        early = an_event_body(event_id="early", currency="USD", occurred_at="2026-03-09T11:00:00Z")
        report = await api.take(an_event_body(), abroad, early)
        assert (report["accepted"], len(report["rejected"])) == (2, 1)
        assert report["rejected"][0] == {
            "index": 2, "event_id": "early", "code": "unknown_currency",
            "message": "no rate from USD to EUR held on 2026-03-09: add it to the file of rates",
        }  # fmt: skip
        features = (await api.client.get("/v1/players/p1/features")).json()["features"]
        assert features["stake_amount_lifetime"] == "21.50"
        assert (await api.take(abroad))["duplicates"] == 1
        conflict = await api.take(abroad | {"amount": "10.001"})  # nine euros as well
        assert conflict["rejected"][0]["code"] == "conflict"


BAD: list[tuple[dict[str, Any], str]] = [
    ({"type": "bet.plaeced"}, "unknown_type"),
    ({"type": 5}, "invalid_field"),
    *[({name: ...}, "missing_field") for name in ("event_id", "type", "player_id", "occurred_at")],
    ({"brand": ...}, "missing_field"),
    ({"amount": ...}, "missing_field"),
    ({"amount": "-1"}, "invalid_amount"),
    ({"amount": -1}, "invalid_amount"),
    ({"amount": "1e400"}, "invalid_amount"),
    ({"amount": "1000000000000000"}, "invalid_amount"),
    ({"amount": "NaN"}, "invalid_amount"),
    ({"amount": "Infinity"}, "invalid_amount"),
    ({"amount": "0.001"}, "invalid_amount"),
    ({"currency": "XXX"}, "unknown_currency"),
    ({"brand": "nobody"}, "unknown_brand"),
    ({"occurred_at": "2999-01-01T00:00:00Z"}, "future_event"),
    ({"occurred_at": "1999-01-01T00:00:00Z"}, "before_brand_start"),
    ({"occurred_at": "2026-03-10T11:00:00"}, "invalid_time"),
    ({"occurred_at": "yesterday"}, "invalid_time"),
    ({"event_id": "x" * 10_000}, "invalid_field"),
    ({"player_id": "x" * 10_000}, "invalid_field"),
    ({"player_id": ""}, "invalid_field"),
    ({"player_id": EMAIL}, "invalid_field"),
    ({"properties": {"text": "x" * 20_000}}, "invalid_field"),
    ({"properties": {"note": CARD}}, "card_number"),
    ({"surprise": 1}, "invalid_field"),
]


@pytest.mark.parametrize(("changes", "code"), BAD, ids=[f"{c}-{n}" for n, (_, c) in enumerate(BAD)])
async def test_only_the_bad_event_of_a_batch_is_refused(
    api: Api, changes: dict[str, Any], code: str
) -> None:
    bad = an_event_body(**{"event_id": "bad", **changes})
    report = await api.take(an_event_body(event_id="a"), bad, an_event_body(event_id="b"))
    assert (report["accepted"], report["duplicates"]) == (2, 0)
    (refused,) = report["rejected"]
    assert (refused["index"], refused["code"]) == (1, code)
    assert refused["message"]
    assert sorted(api.stored) == ["a", "b"]
    assert [row.code for row in api.quarantine.rows] == [code]
    assert api.unsealed() == [None if code == "card_number" else bad]


async def test_a_batch_of_bad_events_only_is_answered_event_by_event(api: Api) -> None:
    report = await api.take(*[5, None, {}, "x"])
    assert report["accepted"] == 0
    assert [r["index"] for r in report["rejected"]] == [0, 1, 2, 3]
    assert len(api.quarantine.rows) == 4


async def test_half_a_surrogate_pair_spoils_only_its_event(api: Api) -> None:
    report = await api.take(an_event_body(player_id="\ud800"), an_event_body(event_id="e2"))
    assert (report["accepted"], report["rejected"][0]["code"]) == (1, "invalid_field")
    assert len(api.quarantine.rows) == 1


async def test_the_brand_of_the_query_is_for_events_that_name_none(api: Api) -> None:
    report = await api.take(an_event_body(brand=...), an_event_body(event_id="e2"), brand="other")
    assert report["accepted"] == 2
    assert (await api.client.get("/v1/players/p1", params={"brand": "other"})).status_code == 200
    assert (await api.client.get("/v1/players/p1")).json()["brand"] == "demo"
    report = await api.take(an_event_body(brand=..., event_id="e3"), brand="nobody")
    assert report["rejected"][0]["code"] == "unknown_brand"


BODIES: list[tuple[bytes, int, str]] = [
    (b"", 400, "invalid_json"),
    (b'{"events": [', 400, "invalid_json"),
    (b"[]", 400, "invalid_json"),
    (b'{"events": ["\xff\xfe"]}', 400, "invalid_json"),
    (b'{"events": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "invalid_json"),
    (json.dumps({"events": [an_event_body()]}).encode().ljust(6_000_000), 413, "too_large"),
    (json.dumps({"events": [an_event_body()] * 5_001}).encode(), 413, "too_many_events"),
    (json.dumps({"events": [an_event_body()] * 10_001}).encode(), 413, "too_many_events"),
]


@pytest.mark.parametrize(("body", "status", "code"), BODIES, ids=range(len(BODIES)))
async def test_a_body_that_cannot_be_taken_is_one_problem_and_changes_nothing(
    api: Api, body: bytes, status: int, code: str
) -> None:
    problem_of(await api.client.post("/v1/events", content=body), status, code)
    assert api.stored == []
    assert api.quarantine.rows == []


async def test_five_thousand_events_are_taken(api: Api) -> None:
    report = await api.take(*[an_event_body(event_id=f"e{n}") for n in range(5_000)])
    assert report == {"accepted": 5_000, "duplicates": 0, "rejected": []}


async def test_a_body_without_a_length_is_read_no_further_than_the_limit(api: Api) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 100_000_000:
            sent += 1_000_000
            yield b" " * 1_000_000

    for path in ("/v1/events", "/v1/segments/preview"):
        sent = 0
        answer = await api.client.post(
            path, content=endless(), headers={"content-type": "application/json"}
        )
        problem_of(answer, 413, "too_large")
        assert sent <= 7_000_000


async def test_a_client_that_leaves_in_the_middle_of_its_body_does_nothing(api: Api) -> None:
    whole = json.dumps({"events": [an_event_body()]}).encode()
    for path in ("/v1/events", "/v1/segments/preview"):
        messages = iter(
            [
                {"type": "http.request", "body": whole, "more_body": True},
                {"type": "http.disconnect"},
            ]
        )

        async def receive(left: Any = messages) -> Any:
            return next(left)

        async def send(message: Any) -> None:
            assert message.get("status") != 500

        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [
                (b"authorization", api.client.headers["authorization"].encode()),
                (b"content-type", b"application/json"),
            ],
        }
        await api.app(scope, receive, send)
    assert api.stored == []


class _Away(LocalShards):
    """Shards of which none answers."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def append(self, groups: Any) -> Any:
        raise self._error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ShardsWarming("the owner is being replaced; try again"), "warming"),
        (DatabaseAway("PostgreSQL does not answer; try again"), "database_unavailable"),
    ],
)
async def test_while_nothing_can_be_stored_the_client_is_told_to_come_again(
    error: Exception, code: str
) -> None:
    async with an_api(shards=_Away(error)) as api:
        problem_of(await api.send(an_event_body(), 5), 503, code)
        assert api.quarantine.rows == []  # the retry will keep it, once


async def test_a_request_that_could_not_keep_its_refusals_may_be_sent_again(api: Api) -> None:
    api.quarantine.away = True
    problem_of(await api.send(an_event_body(), 5), 503, "database_unavailable")
    api.quarantine.away = False
    report = await api.take(an_event_body(), 5)
    assert (report["duplicates"], len(report["rejected"])) == (1, 1)
    assert api.stored == ["e1"]
    assert len(api.quarantine.rows) == 1


PLANTED = [
    *[(name, secret) for name in (*an_event_body(), "custom.x") for secret in (EMAIL, CARD)],
    ("nested", EMAIL),
    ("nested", CARD),
]


@pytest.mark.parametrize(("name", "secret"), PLANTED, ids=range(len(PLANTED)))
async def test_a_secret_in_any_field_is_in_no_answer_log_or_readable_row(
    api: Api, name: str, secret: str, caplog: pytest.LogCaptureFixture, capsys: Any
) -> None:
    changes: dict[str, Any] = {name: secret}
    if name == "nested":
        changes = {"properties": {"a": {"b": [secret]}, secret: 1}}
    event = an_event_body(**changes)
    answer = await api.send(event)
    again = await api.send({**event, "amount": "1"})  # a conflict, where the first was taken
    output = capsys.readouterr()
    seen = [answer.text, again.text, caplog.text, output.out, output.err]
    seen += [f"{row.code} {row.message} {row.sealed!r}" for row in api.quarantine.rows]
    ids = name in {"event_id", "player_id"} and secret == CARD  # digits alone are the operator's
    if not ids:
        seen += [repr(events) for events in api.log.events.values() if events]
        assert not [text for text in seen if secret in text]
    if secret == CARD:
        assert not any("4111" in json.dumps(kept) for kept in api.unsealed() if not ids)


async def test_a_card_number_behind_escapes_is_not_kept_in_quarantine(api: Api) -> None:
    hidden = "".join(f"\\u{ord(digit):04x}" for digit in CARD)
    body = f'{{"events": [{{"type": "unheard-of", "note": "{hidden}"}}]}}'
    await api.client.post("/v1/events", content=body)
    assert api.unsealed() == [None]
