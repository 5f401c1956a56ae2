"""Who is in a segment, over HTTP: members, files, lists by import, and why."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator

import pyarrow as pa
import pytest
from pyarrow import parquet

from crm.services import saved_segments
from tests.support.api import Api, problem_of
from tests.support.saved_segments import (
    CSV,
    PATH,
    RULE,
    an_api_with_bets,
    bets,
    imported,
    make,
    members,
    read,
)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with an_api_with_bets() as running:
        yield running


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


# --- why --------------------------------------------------------------------------------------


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


async def test_why_shows_segments_by_their_names_with_their_terms_below(api: Api) -> None:
    big = await make(api, rule=f"{RULE} and bet_count_7d > 0")
    inner = await make(api, name="Inner", rule='not segment "Big"')
    rule = 'bet_count_7d > 5 or segment "Inner" and stake_amount_7d < 10'
    outer = await make(api, name="Outer", rule=rule)
    for player, bet in (("p1", True), ("p2", False)):  # p1 has staked 20, p2 5
        found = await read(api, f"{outer['id']}/players/{player}/why")
        why = found["why"]
        assert found["in"] is why["holds"] is not bet
        many, both = why["terms"]
        assert (many["text"], both["kind"]) == ("bet_count_7d > 5", "and")
        named, few = both["terms"]
        assert (few["text"], few["holds"]) == ("stake_amount_7d < 10", not bet)
        assert (named["kind"], named["segment"], named["name"]) == (
            "segment", inner["id"], "Inner"
        )  # fmt: skip
        assert (named["text"], named["holds"]) == ('segment "Inner"', not bet)
        (within,) = named["terms"]
        (of_big,) = within["terms"]
        assert (within["kind"], of_big["name"], of_big["segment"]) == ("not", "Big", big["id"])
        (terms,) = of_big["terms"]
        assert [(one["text"], one["holds"]) for one in terms["terms"]] == [
            (RULE, bet), ("bet_count_7d > 0", True)
        ]  # fmt: skip


async def test_why_a_player_is_on_a_list(api: Api) -> None:
    segment = (await imported(api, "a/b\np1"))["id"]
    for player, there in (("a%2Fb", True), ("p1", True), ("p2", False)):
        found = await read(api, f"{segment}/players/{player}/why")
        assert found["in"] is found["why"]["holds"] is there
        assert found["why"]["text"] == 'in the list "VIP"'
        assert found["rule"] is None
