"""POST /v1/segments/preview: exact counts, and a bad rule with the place where it goes wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from crm.domain.rule_text import parse
from crm.domain.rules import to_tree
from tests.support.api import Api, an_api, an_event_body, problem_of

PATH = "/v1/segments/preview"


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with an_api() as running:
        bets = [("p1", "10"), ("p1", "10"), ("p2", "5"), ("p3", "50")]
        events = [
            an_event_body(event_id=f"e{n}", player_id=player, amount=amount)
            for n, (player, amount) in enumerate(bets)
        ]
        await running.take(*events)
        yield running


async def test_a_rule_counts_the_same_as_text_and_as_a_tree(api: Api) -> None:
    text = "stake_amount_lifetime >= 20 and bet_count_lifetime > 0"
    found = [
        (await api.client.post(PATH, json={"brand": "demo", "rule": rule})).json()
        for rule in (text, to_tree(parse(text)))
    ]
    assert found[0] == found[1]
    assert found[0].pop("as_of").endswith("Z")
    terms = [
        {"rule": "stake_amount_lifetime >= 20", "matches": 2, "removes": 1},
        {"rule": "bet_count_lifetime > 0", "matches": 3, "removes": 0},
    ]
    breakdown = {"players": 3, "terms": terms, "clusters": []}
    assert found[0] == {
        "count": 2,
        "meaning": "players who staked EUR 20.00 or more in all, and who bet at least once in all",
        "breakdown": breakdown,
        "sample": ["p1", "p3"],
    }


async def test_a_rule_that_joins_nothing_by_and_is_its_own_only_term(api: Api) -> None:
    rule = "not(stake_amount_lifetime < 20) or bet_count_7d = 9"
    breakdown = (await api.client.post(PATH, json={"rule": rule})).json()["breakdown"]
    text = "not (stake_amount_lifetime < 20) or bet_count_7d = 9"
    assert breakdown["terms"] == [{"rule": text, "matches": 2, "removes": 1}]


async def test_without_a_brand_the_first_one_is_asked(api: Api) -> None:
    rule = {"rule": "exists first_bet_at"}
    assert (await api.client.post(PATH, json=rule)).json()["count"] == 3
    assert (await api.client.post(PATH, json={**rule, "brand": "other"})).json()["count"] == 0
    answer = await api.client.post(PATH, json={**rule, "brand": "nobody"})
    problem_of(answer, 404, "unknown_brand")


@pytest.mark.parametrize(
    ("rule", "position"),
    [
        ("", 0),
        ("bet_count_lifetime", 18),
        ("bet_count_lifetime > 1 and", 26),
        ("no_such_feature > 1", 0),
        ("bet_count_lifetime > 1.5", 21),
        ("stake_amount_lifetime > 0.001", 24),
        ({"kind": "compare"}, None),
        ({"kind": "exists", "feature": "no_such_feature"}, None),
        ({}, None),
    ],
)
async def test_a_bad_rule_says_where(api: Api, rule: Any, position: int | None) -> None:
    answer = await api.client.post(PATH, json={"rule": rule})
    assert problem_of(answer, 422, "invalid_rule")["position"] == position


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b"", 422, "invalid_field"),
        (b'{"rule": "\xff"}', 400, "invalid_json"),
        (b'{"rule": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "invalid_json"),
        (b"[]", 422, "invalid_field"),
        (b"{}", 422, "invalid_field"),
        (b'{"rule": 5}', 422, "invalid_field"),
        (b'{"rule": "exists first_bet_at", "extra": 1}', 422, "invalid_field"),
        (b'{"rule": "exists first_bet_at", "brand": 5}', 422, "invalid_field"),
        (b'{"rule": "' + b"x" * 20_000 + b'"}', 422, "invalid_rule"),
        (b'{"rule": "' + b"x" * 6_000_000 + b'"}', 413, "too_large"),
    ],
    ids=range(11),
)
async def test_a_bad_body_is_one_problem(api: Api, content: bytes, status: int, code: str) -> None:
    headers = {"content-type": "application/json"}
    problem_of(await api.client.post(PATH, content=content, headers=headers), status, code)


async def test_a_missing_field_is_named(api: Api) -> None:
    body = problem_of(await api.client.post(PATH, json={}), 422, "invalid_field")
    assert "body.rule" in body["message"]
    assert body["errors"][0]["where"] == "body.rule"


@pytest.mark.parametrize("secret", ["ana.souza@example.com", "4111111111111111"])
async def test_what_is_sent_is_not_repeated_where_it_looks_personal(api: Api, secret: str) -> None:
    bodies: list[Any] = [
        {"rule": secret},
        {"rule": f"{secret} > 1"},
        {"rule": f"bet_count_lifetime > '{secret}'"},
        {"rule": f"bet_count_lifetime > 1 {secret}"},
        {"rule": {"kind": secret}},
        {"rule": {"kind": "exists", "feature": secret}},
        {"rule": {"kind": "exists", "feature": "first_bet_at", secret: 1}},
        {"rule": "exists first_bet_at", "brand": secret},
        {"rule": "exists first_bet_at", secret: 1},
        {"rule": [secret]},
        secret,
        [secret],
    ]
    for body in bodies:
        answer = await api.client.post(PATH, json=body)
        assert answer.status_code in {404, 422}, body
        assert secret not in answer.text, body


async def test_a_body_that_does_not_say_it_is_json_is_told_what_to_send(api: Api) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    body = b'{"rule": "exists first_bet_at"}'
    told = problem_of(await api.client.post(PATH, content=body, headers=form), 400, "invalid_json")
    assert "Content-Type: application/json" in told["message"]
