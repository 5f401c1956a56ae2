"""/v1/segments over HTTP: changes, versions, conflicts, keys, members, files, lists and why."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pyarrow as pa
import pytest
from pyarrow import parquet

from crm.domain.errors import ShardsWarming
from crm.domain.rule_text import parse
from crm.domain.rules import Rule, to_tree
from crm.services import saved_segments
from tests.support.api import KEY, Api, a_client, an_api, an_event_body, problem_of
from tests.support.local_shards import LocalShards

PATH = "/v1/segments"
RULE = "stake_amount_lifetime >= 20"
CSV = {"content-type": "text/csv"}


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with an_api() as running:
        await bets(running, p1="20", p2="5", p3="50")
        yield running


async def bets(api: Api, **amounts: str) -> None:
    await api.take(
        *[
            an_event_body(event_id=f"{player}:{amount}", player_id=player, amount=amount)
            for player, amount in amounts.items()
        ]
    )


async def make(api: Api, **fields: Any) -> dict[str, Any]:
    answer = await api.client.post(PATH, json={"name": "Big", "rule": RULE} | fields)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"{PATH}/{answer.json()['id']}"
    return dict(answer.json())


async def imported(api: Api, body: str, **params: str) -> dict[str, Any]:
    params = {"name": "VIP"} | params
    answer = await api.client.post(f"{PATH}/lists", content=body, params=params, headers=CSV)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def read(api: Api, path: str, **params: Any) -> Any:
    answer = await api.client.get(f"{PATH}/{path}", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def members(api: Api, segment: str, **params: Any) -> list[str]:
    found = await read(api, f"{segment}/members", **params)
    return [one["player_id"] for one in found["items"]]


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


# --- members ----------------------------------------------------------------------------------


async def test_members_are_live_and_their_cursor_stays_right_while_they_change(api: Api) -> None:
    await bets(api, p0="30", p4="30", p5="30")
    segment = (await make(api))["id"]
    first = await read(api, f"{segment}/members", limit=2)
    assert [one["player_id"] for one in first["items"]] == ["p0", "p1"]
    await bets(api, a="99", p2="25")  # one before the cursor, one behind it
    rest = await read(api, f"{segment}/members", cursor=first["next"])
    assert [one["player_id"] for one in rest["items"]] == ["p2", "p3", "p4", "p5"]
    assert rest["next"] is None
    assert await members(api, segment) == ["a", "p0", "p1", "p2", "p3", "p4", "p5"]


async def test_members_of_a_list_are_those_of_the_list(api: Api) -> None:
    segment = (await imported(api, "p9\np1\np5\n"))["id"]
    assert await members(api, segment) == ["p1", "p5", "p9"]
    page = await read(api, f"{segment}/members", limit=2)
    assert [one["player_id"] for one in page["items"]] == ["p1", "p5"]
    assert (await read(api, f"{segment}/members", cursor=page["next"]))["items"] == [
        {"player_id": "p9"}
    ]


ODD = ["=1+2", "+1", "-1", "@a", "'=1", "'a", "''", 'a"b', "a,b", "ü", " b", "'"]


@pytest.mark.parametrize("page", [1, 3, 100])
async def test_an_export_holds_no_formula_and_is_imported_unchanged(
    api: Api, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved_segments, "PAGE", page)
    answer = await api.client.post(PATH, json={"name": "Odd", "kind": "list", "player_ids": ODD})
    path = f"{PATH}/{answer.json()['id']}/members"
    exported = await api.client.get(path, params={"format": "csv"})
    assert exported.headers["content-type"] == "text/csv; charset=utf-8"
    assert exported.headers["content-disposition"].endswith('-v1.csv"')
    cells = [row[0] for row in csv.reader(io.StringIO(exported.text, newline=""))]
    assert cells[0] == "player_id"
    assert not [cell for cell in cells if cell[:1] in "=+-@\t\r"]
    again = await imported(api, exported.text)
    assert again["report"]["accepted"] == len(ODD)
    assert await members(api, again["id"]) == sorted(ODD)
    file = await api.client.get(path, params={"format": "parquet"})
    table = parquet.read_table(io.BytesIO(file.content))
    assert table["player_id"].to_pylist() == sorted(ODD)
    assert parquet.ParquetFile(io.BytesIO(file.content)).num_row_groups == -(-len(ODD) // page)


async def test_an_export_may_begin_at_a_cursor_and_end_at_a_limit(api: Api) -> None:
    segment = (await imported(api, "\n".join(f"p{n}" for n in range(10, 20))))["id"]
    page = await read(api, f"{segment}/members", limit=3)
    params = {"format": "csv", "limit": 2, "cursor": page["next"]}
    answer = await api.client.get(f"{PATH}/{segment}/members", params=params)
    assert answer.text.split() == ["player_id", "p13", "p14"]


async def test_a_segment_without_members_exports_an_empty_file(api: Api) -> None:
    segment = (await make(api, rule="bet_count_7d > 99"))["id"]
    path = f"{PATH}/{segment}/members"
    assert (await api.client.get(path, params={"format": "csv"})).text.split() == ["player_id"]
    file = (await api.client.get(path, params={"format": "parquet"})).content
    table = parquet.read_table(io.BytesIO(file))
    assert (table.num_rows, table.schema.field(0).type) == (0, pa.string())
    assert table.schema.metadata[b"segment"].decode() == segment


# --- lists ------------------------------------------------------------------------------------


async def test_an_import_tells_of_each_line_and_of_players_that_nobody_knows(api: Api) -> None:
    body = "p1\np2\n\np1\nnobody\nana@example.com\n+5511999998888\n" + "x" * 129 + "\n"
    made = await imported(api, "\ufeff" + body)
    report = made["report"]
    errors = report.pop("errors")
    assert report == {
        "read": 7, "accepted": 3, "duplicates": 1, "rejected": 3, "unknown": 1, "added": 3,
        "removed": 0,
    }  # fmt: skip
    assert [error["line"] for error in errors] == [6, 7, 8]
    assert "ana" not in str(errors)
    assert (made["kind"], made["rule"], made["size"]["players"]) == ("list", None, 3)


@pytest.mark.parametrize(
    "body",
    [
        "email;Player_ID\nx;p1\ny;p2\n",
        'player_id,name\r\np1,"a\r\nb"\r\np2,c\r\n',
        '"p1"\n"p2"',
        "player_id\np1\np2",
        "p1\rp2\r",
    ],
)
async def test_a_csv_has_its_column_where_its_header_says(api: Api, body: str) -> None:
    assert await members(api, (await imported(api, body))["id"]) == ["p1", "p2"]


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("application/json", b'["p1", "p2"]'),
        ("application/json; charset=utf-8", b'{"player_ids": ["p1", "p2", 5, null, ""]}'),
        (
            "application/json",
            b'{"items": [{"player_id": "p1"}, {"player_id": "p2"}]}',
        ),
        ("text/plain", b"p1\np2"),
    ],
)
async def test_a_list_comes_in_the_body(api: Api, kind: str, content: bytes) -> None:
    answer = await api.client.post(
        f"{PATH}/lists?name=x", content=content, headers={"content-type": kind}
    )
    assert answer.status_code == 201, answer.text
    assert await members(api, answer.json()["id"]) == ["p1", "p2"]


@pytest.mark.parametrize(
    "file",
    [
        ("a.csv", b"player_id\r\np1\r\np2\r\n", "text/csv"),
        ("a.csv", b"p1\np2", "application/octet-stream"),
        ("a.json", b'["p1", "p2"]', "application/octet-stream"),
        ("a.json", b'["p1", "p2"]', "application/json"),
    ],
)
async def test_a_list_comes_as_a_file_in_a_form(api: Api, file: tuple[str, bytes, str]) -> None:
    answer = await api.client.post(f"{PATH}/lists?name=x", files={"file": file}, data={"note": "x"})
    assert answer.status_code == 201, answer.text
    assert await members(api, answer.json()["id"]) == ["p1", "p2"]


@pytest.mark.parametrize(
    ("kind", "content", "status", "code"),
    [
        ("text/csv", b"", 422, "invalid_list"),
        ("text/csv", b"player_id\n\n", 422, "invalid_list"),
        ("text/csv", b"p1\n\xff\n", 422, "invalid_list"),
        ("text/csv", b"a\0b\n", 422, "invalid_list"),
        ("text/csv", b'"' + b"x" * 200_000, 422, "invalid_list"),
        ("application/json", b"{", 400, "invalid_json"),
        ("application/json", b"[" * 100_000, 400, "invalid_json"),
        ("application/json", b"{}", 422, "invalid_list"),
        ("application/json", b"5", 422, "invalid_list"),
        ("application/json", b"[]", 422, "invalid_list"),
        ("application/json", b'["\\ud800"]', 400, "invalid_json"),
        ("image/png", b"p1", 415, "unsupported_media_type"),
        ("", b"p1", 415, "unsupported_media_type"),
        ("multipart/form-data", b"--x\r\n\r\n--x--", 422, "invalid_list"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\n\r\n--x--", 422, "invalid_list"),
        ("text/csv", b"p1\n" * 2_000_000, 413, "too_large"),
    ],
    ids=range(16),
)
async def test_a_bad_list_is_one_problem_and_nothing_is_saved(
    api: Api, kind: str, content: bytes, status: int, code: str
) -> None:
    path = f"{PATH}/lists?name=x"
    answer = await api.client.post(path, content=content, headers={"content-type": kind})
    problem_of(answer, status, code)
    assert await api.segments.active() == []


async def test_a_list_without_any_player_says_what_is_wrong_with_its_lines(api: Api) -> None:
    answer = await api.client.post(
        f"{PATH}/lists?name=x", content="player_id\nana@example.com\n\n+5511999998888", headers=CSV
    )
    body = problem_of(answer, 422, "invalid_list")
    assert [error["where"] for error in body["errors"]] == ["line 2", "line 4"]
    assert "ana" not in answer.text


async def test_an_import_adds_by_post_and_replaces_by_put(api: Api) -> None:
    segment = (await imported(api, "p1\np2"))["id"]
    path = f"{PATH}/{segment}/players"
    added = (await api.client.post(path, content="p2\np3", headers=CSV)).json()
    assert (added["version"], added["report"]["added"], added["report"]["removed"]) == (2, 1, 0)
    assert await members(api, segment) == ["p1", "p2", "p3"]
    late = await api.client.put(path, content="p9", headers=CSV, params={"version": 1})
    problem_of(late, 409, "segment_changed")
    put = await api.client.put(path, content="p3\np4", headers=CSV, params={"version": 2})
    assert (put.json()["version"], put.json()["size"]["players"]) == (3, 2)
    assert (put.json()["report"]["added"], put.json()["report"]["removed"]) == (1, 2)
    assert await members(api, segment) == ["p3", "p4"]
    rule = (await make(api))["id"]
    answer = await api.client.put(f"{PATH}/{rule}/players", content="p1", headers=CSV)
    problem_of(answer, 422, "invalid_segment")


# --- sizes, usage, why ------------------------------------------------------------------------


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
    assert (told["in"], told["why"]["terms"][0]["value"]) == (False, "50.00")


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


async def test_why_shows_every_term_with_its_value(api: Api) -> None:
    rule = (
        "stake_amount_lifetime >= 20 and not (days_since_last_deposit > 3 or "
        "bet_count_7d between 1 and 2)"
    )
    segment = await make(api, rule=rule)
    found = await read(api, f"{segment['id']}/players/p1/why")
    assert found.pop("as_of").endswith("Z")
    assert found == {
        "segment": segment["id"], "version": 1, "player_id": "p1", "in": False,
        "rule": segment["rule"],
        "why": {"kind": "and", "holds": False, "terms": [
            {"kind": "condition", "holds": True, "text": "stake_amount_lifetime >= 20",
             "feature": "stake_amount_lifetime", "op": ">=", "threshold": "20.00",
             "value": "20.00", "raw": 2000, "unit": "EUR"},
            {"kind": "not", "holds": False, "terms": [{"kind": "or", "holds": True, "terms": [
                {"kind": "condition", "holds": False, "text": "days_since_last_deposit > 3",
                 "feature": "days_since_last_deposit", "op": ">", "threshold": 3,
                 "value": None, "raw": None, "unit": "days"},
                {"kind": "condition", "holds": True, "text": "bet_count_7d between 1 and 2",
                 "feature": "bet_count_7d", "op": "between", "threshold": [1, 2],
                 "value": 1, "raw": 1, "unit": "count"},
            ]}]},
        ]},
    }  # fmt: skip
    answer = await api.client.get(f"{PATH}/{segment['id']}/players/nobody/why")
    problem_of(answer, 404, "player_not_found")


async def test_why_a_player_is_on_a_list(api: Api) -> None:
    segment = (await imported(api, "a/b\np1"))["id"]
    for player, there in (("a%2Fb", True), ("p1", True), ("p2", False)):
        found = await read(api, f"{segment}/players/{player}/why")
        assert found["in"] is found["why"]["holds"] is there
        assert found["why"]["text"] == 'in the list "VIP"'
        assert found["rule"] is None


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
