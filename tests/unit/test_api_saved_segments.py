"""/v1/segments over HTTP: changes, versions, conflicts, keys, sizes and usage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from crm.domain.errors import ShardsWarming
from crm.domain.rule_text import parse
from crm.domain.rules import Rule, to_tree
from tests.support.api import KEY, Api, a_client, an_api, problem_of
from tests.support.local_shards import LocalShards
from tests.support.saved_segments import (
    CSV,
    PATH,
    RULE,
    an_api_with_bets,
    imported,
    make,
    members,
    read,
)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with an_api_with_bets() as running:
        yield running


# --- changes ----------------------------------------------------------------------------------


async def test_a_saved_rule_is_read_as_it_was_made_with_its_size(api: Api) -> None:
    made = await make(api, rule="stake_amount_lifetime>=20.00")
    assert made["rule"] == RULE
    assert (made["kind"], made["version"], made["brand"]) == ("rule", 1, "demo")
    assert (made["size"]["players"], made["size"]["version"]) == (2, 1)
    assert made.pop("report") is None
    assert await read(api, made["id"]) == made
    tree = await make(api, name="The same", rule=to_tree(parse(RULE)))
    assert tree["rule"] == RULE


async def test_segments_are_listed_the_newest_first_page_by_page(api: Api) -> None:
    for n in range(5):
        api.clock.move(seconds=1)
        await make(api, name=f"n{n}")
    await make(api, name="n0", brand="other")
    names: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await api.client.get(PATH, params={"limit": "2", **cursor})).json()
        names += [one["name"] for one in page["items"]]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert names == ["n4", "n3", "n2", "n1", "n0"]
    other = (await api.client.get(PATH, params={"brand": "other"})).json()
    assert [one["brand"] for one in other["items"]] == ["other"]


async def test_an_edit_states_the_version_that_was_read(api: Api) -> None:
    path = f"{PATH}/{(await make(api))['id']}"
    first = await api.client.patch(path, json={"version": 1, "rule": "bet_count_7d > 0"})
    assert (first.json()["version"], first.json()["size"]["players"]) == (2, 3)
    late = await api.client.patch(path, json={"version": 1, "name": "Mine"})
    assert "version 2" in problem_of(late, 409, "segment_changed")["message"]
    problem_of(await api.client.patch(path, json={"name": "x"}), 422, "invalid_field")
    renamed = (await api.client.patch(path, json={"version": 2, "name": "Mine"})).json()
    assert (renamed["version"], renamed["name"]) == (3, "Mine")
    found = (await api.client.get(f"{path}/versions", params={"limit": 2})).json()
    assert [(one["version"], one["name"]) for one in found["items"]] == [(3, "Mine"), (2, "Big")]
    rest = (await api.client.get(f"{path}/versions", params={"cursor": found["next"]})).json()
    assert [(one["version"], one["rule"]) for one in rest["items"]] == [(1, RULE)]
    assert rest["next"] is None


async def test_a_name_that_is_taken_is_a_clear_conflict(api: Api) -> None:
    made = await make(api)
    again = await api.client.post(PATH, json={"name": "Big", "rule": RULE})
    problem_of(again, 409, "segment_name_taken")
    other = await make(api, name="Other")
    edit = {"version": 1, "name": "Big"}
    answer = await api.client.patch(f"{PATH}/{other['id']}", json=edit)
    problem_of(answer, 409, "segment_name_taken")
    assert (await api.client.delete(f"{PATH}/{made['id']}")).status_code == 200
    assert (await api.client.patch(f"{PATH}/{other['id']}", json=edit)).status_code == 200


async def test_an_archived_segment_is_read_and_nothing_else(api: Api) -> None:
    made = await make(api)
    path = f"{PATH}/{made['id']}"
    problem_of(await api.client.delete(path, params={"version": 9}), 409, "segment_changed")
    gone = await api.client.delete(path, params={"version": 1})
    assert gone.json()["archived_at"] is not None
    assert (await api.client.get(path)).json() == gone.json()
    assert (await api.client.delete(path)).json() == gone.json()
    for answer in (
        await api.client.patch(path, json={"version": 1, "name": "x"}),
        await api.client.get(f"{path}/members"),
        await api.client.get(f"{path}/members", params={"format": "csv"}),
        await api.client.get(f"{path}/players/p1/why"),
    ):
        problem_of(answer, 409, "segment_archived")
    assert (await api.client.get(PATH)).json()["items"] == []
    archived = (await api.client.get(PATH, params={"archived": "true"})).json()["items"]
    assert [one["id"] for one in archived] == [made["id"]]


@pytest.mark.parametrize(
    "path", ["", "/versions", "/members", "/sizes", "/usage", "/players/p/why"]
)
async def test_a_segment_that_is_not_there_is_not_found(api: Api, path: str) -> None:
    problem_of(await api.client.get(f"{PATH}/nothing{path}"), 404, "segment_not_found")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": "x"}, "invalid_segment"),
        ({"name": "x", "rule": RULE, "player_ids": ["p"]}, "invalid_segment"),
        ({"name": "x", "kind": "list", "rule": RULE}, "invalid_segment"),
        ({"name": "x", "kind": "list"}, "invalid_list"),
        ({"name": "", "rule": RULE}, "invalid_segment"),
        ({"name": " x", "rule": RULE}, "invalid_segment"),
        ({"name": 'a "b"', "rule": RULE}, "invalid_segment"),
        ({"name": "a\nb", "rule": RULE}, "invalid_segment"),
        ({"name": "x" * 101, "rule": RULE}, "invalid_segment"),
        ({"name": "x", "rule": "no_such_feature > 1"}, "invalid_rule"),
        ({"name": "x", "rule": RULE, "kind": "other"}, "invalid_field"),
        ({"name": "x", "rule": RULE, "extra": 1}, "invalid_field"),
    ],
    ids=range(12),
)
async def test_a_bad_segment_is_one_problem_and_nothing_is_saved(
    api: Api, body: dict[str, Any], code: str
) -> None:
    problem_of(await api.client.post(PATH, json=body), 422, code)
    assert await api.segments.active() == []


@pytest.mark.parametrize("cursor", ["", "x", "bm90aGluZw", "WzEsMl0", "é"])
async def test_a_cursor_of_elsewhere_is_refused(api: Api, cursor: str) -> None:
    segment = (await make(api))["id"]
    for path in ("", f"/{segment}/versions", f"/{segment}/sizes", f"/{segment}/members"):
        answer = await api.client.get(f"{PATH}{path}", params={"cursor": cursor})
        problem_of(answer, 422, "invalid_cursor")


async def test_while_the_shards_are_loaded_a_segment_is_saved_without_a_size() -> None:
    class Warming(LocalShards):
        def __init__(self) -> None:
            pass

        async def count(self, brand: str, rule: Rule) -> Any:
            raise ShardsWarming("not yet")

    async with an_api(shards=Warming()) as api:
        assert (await make(api))["size"] is None


# --- keys -------------------------------------------------------------------------------------


async def test_a_request_that_is_sent_again_under_its_key_changes_nothing(api: Api) -> None:
    key = {"idempotency-key": "k1"}
    body = {"name": "Big", "rule": RULE}
    first = await api.client.post(PATH, json=body, headers=key)
    api.clock.move(hours=1)
    again = await api.client.post(PATH, json=body, headers=key)
    assert (again.status_code, again.json()) == (201, first.json())
    other = await api.client.post(PATH, json=body | {"name": "x"}, headers=key)
    problem_of(other, 422, "idempotency_key_reused")
    path = f"{PATH}/{first.json()['id']}"
    edits = [
        await api.client.patch(
            path, json={"version": 1, "name": "New"}, headers={"idempotency-key": "k2"}
        )
        for _ in range(2)
    ]
    assert [edit.json()["version"] for edit in edits] == [2, 2]
    assert edits[0].content == edits[1].content
    assert len(await api.segments.active()) == 1


async def test_a_key_is_its_callers_own(api: Api) -> None:
    api.keys.known.add("another-key")
    body, key = {"name": "Big", "rule": RULE}, {"idempotency-key": "k1"}
    await api.client.post(PATH, json=body, headers=key)
    async with a_client(api.app, {"authorization": "Bearer another-key"} | key) as other:
        api.clock.move(seconds=9)
        problem_of(await other.post(PATH, json=body), 409, "segment_name_taken")


@pytest.mark.parametrize("key", ["", "a b", "x" * 256])
async def test_a_key_that_is_none_is_refused(api: Api, key: str) -> None:
    body = {"name": "Big", "rule": RULE}
    answer = await api.client.post(PATH, json=body, headers={"idempotency-key": key})
    problem_of(answer, 400, "invalid_idempotency_key")


# --- sizes, usage -----------------------------------------------------------------------------


async def test_sizes_are_a_curve(api: Api) -> None:
    segment = (await imported(api, "p1"))["id"]
    for player in ("p2", "p3"):
        api.clock.move(hours=1)
        await api.client.post(f"{PATH}/{segment}/players", content=player, headers=CSV)
    page = await read(api, f"{segment}/sizes", limit=2)
    assert [(one["version"], one["players"]) for one in page["items"]] == [(3, 3), (2, 2)]
    rest = await read(api, f"{segment}/sizes", cursor=page["next"])
    assert [one["players"] for one in rest["items"]] == [1]


async def test_nothing_relies_on_a_segment_that_no_rule_names(api: Api) -> None:
    first = await make(api)
    await make(api, name="Other")
    assert await read(api, f"{first['id']}/usage") == {"items": [], "next": None}


async def test_what_a_rule_names_is_used_and_stays(api: Api) -> None:
    big = await make(api)
    inner = await make(api, name="Inner", rule='not segment "Big"')
    outer = await make(api, name="Outer", rule='segment "Inner" or segment "Big"')
    assert outer["rule"] == f'segment "{inner["id"]}" or segment "{big["id"]}"'
    assert [one["size"]["players"] for one in (big, inner, outer)] == [2, 1, 3]
    used = (await read(api, f"{big['id']}/usage"))["items"]
    assert [(one["kind"], one["id"], one["name"], one["version"]) for one in used] == [
        ("segment", one["id"], one["name"], 1) for one in sorted((inner, outer), key=_id)
    ]
    answer = await api.client.delete(f"{PATH}/{big['id']}")
    assert '"Inner"' in problem_of(answer, 409, "segment_in_use")["message"]
    assert await members(api, inner["id"]) == ["p2"]
    edit = {"version": 1, "name": "Renamed", "rule": "stake_amount_lifetime >= 50"}
    assert (await api.client.patch(f"{PATH}/{big['id']}", json=edit)).status_code == 200
    assert await members(api, inner["id"]) == ["p1", "p2"]  # by the rule that Big has now
    told = await read(api, f"{inner['id']}/players/p3/why")
    (named,) = told["why"]["terms"]
    assert (told["in"], named["terms"][0]["value"]) == (False, "50.00")


def _id(segment: dict[str, Any]) -> str:
    return str(segment["id"])


async def test_segments_that_go_in_a_circle_or_are_not_there_are_refused(api: Api) -> None:
    big = await make(api)
    inner = await make(api, name="Inner", rule='segment "Big"')
    edit = {"version": 1, "rule": 'bet_count_7d > 1 or segment "Inner"'}
    answer = await api.client.patch(f"{PATH}/{big['id']}", json=edit)
    assert "circle" in problem_of(answer, 422, "invalid_rule")["message"]
    for rule in ('segment "Nobody"', 'segment "Other brand"'):
        answer = await api.client.post(PATH, json={"name": "x", "rule": rule})
        problem_of(answer, 422, "invalid_rule")
    assert (await read(api, inner["id"]))["version"] == 1
    await api.client.delete(f"{PATH}/{inner['id']}")
    assert (await api.client.delete(f"{PATH}/{big['id']}")).status_code == 200


async def test_a_rule_that_would_make_those_that_name_it_too_large_is_refused(api: Api) -> None:
    big = await make(api)
    half = "bet_count_7d in (" + ", ".join(map(str, range(120))) + ")"
    await make(api, name="Inner", rule=f'{half} or segment "Big"')
    answer = await api.client.patch(f"{PATH}/{big['id']}", json={"version": 1, "rule": half})
    assert '"Inner" is too large' in problem_of(answer, 422, "invalid_rule")["message"]


async def test_a_list_that_a_rule_names_is_used_and_keeps_its_name(api: Api) -> None:
    vip = await imported(api, "p1")
    made = await make(api, rule='list "VIP" or segment "VIP"')
    assert made["rule"] == f'list "VIP" or segment "{vip["id"]}"'
    assert made["size"] is None  # no owner has loaded the list yet
    path = f"{PATH}/{vip['id']}"
    assert [one["name"] for one in (await read(api, f"{vip['id']}/usage"))["items"]] == ["Big"]
    renamed = await api.client.patch(path, json={"version": 1, "name": "x"})
    problem_of(renamed, 409, "segment_in_use")
    problem_of(await api.client.delete(path), 409, "segment_in_use")


async def test_a_preview_says_what_a_named_segment_means(api: Api) -> None:
    await make(api)
    answer = await api.client.post(f"{PATH}/preview", json={"rule": 'not segment "Big"'})
    assert answer.json()["meaning"] == (
        'players other than those who are in the segment "Big" (those who staked EUR 20.00 or'
        " more in all)"
    )


async def test_two_at_once_make_one_version(api: Api) -> None:
    path = f"{PATH}/{(await make(api))['id']}"
    edits = [api.client.patch(path, json={"version": 1, "name": f"n{n}"}) for n in range(5)]
    answers: list[httpx.Response] = await asyncio.gather(*edits)
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]


async def test_a_store_that_is_away_is_told_as_such(api: Api) -> None:
    api.segments.away = True
    problem_of(await api.client.get(PATH), 503, "database_unavailable")
    answer = await api.client.post(PATH, json={"name": "Big", "rule": RULE})
    problem_of(answer, 503, "database_unavailable")
    assert KEY not in answer.text
