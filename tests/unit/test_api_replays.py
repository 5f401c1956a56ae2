"""POST /v1/segments/replay: past days of a segment, and what cannot be asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from crm.domain.replay import Replay
from crm.domain.rule_text import parse
from crm.domain.rules import to_tree
from tests.support.api import Api, an_api, an_event_body, problem_of
from tests.support.builders import NOON, a_brand
from tests.support.local_replays import LocalReplays

PATH = "/v1/segments/replay"
RULE = "bet_count_7d >= 2"
ASKED: dict[str, Any] = {"rule": RULE, "from": "2026-03-04", "to": "2026-03-09"}


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with an_api() as running:
        bets = [("p1", "01"), ("p1", "05"), ("p2", "06"), ("p2", "06"), ("p3", "02")]
        await running.take(
            *[
                an_event_body(
                    event_id=f"e{n}", player_id=player, backfill=True,
                    occurred_at=f"2026-03-{day}T11:00:00Z", known_at=f"2026-03-{day}T11:00:00Z",
                )
                for n, (player, day) in enumerate(bets)
            ],
            an_event_body(event_id="late", player_id="p3", occurred_at="2026-03-03T11:00:00Z"),
        )  # fmt: skip
        yield running


async def _replay(api: Api, **changes: Any) -> dict[str, Any]:
    answer = await api.client.post(PATH, json=ASKED | changes)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def _by_day(found: dict[str, Any], name: str) -> list[Any]:
    return [day[name] for day in found["days"]]


async def test_members_come_and_go_day_by_day_as_it_was_known_then(api: Api) -> None:
    found = await _replay(api)
    assert [day[-2:] for day in _by_day(found, "date")] == ["04", "05", "06", "07", "08", "09"]
    assert _by_day(found, "members") == [0, 1, 2, 2, 1, 1]
    assert _by_day(found, "entered_sample") == [[], ["p1"], ["p2"], [], [], []]
    assert _by_day(found, "left_sample") == [[], [], [], [], ["p1"], []]
    assert _by_day(found, "players") == [2, 2, 3, 3, 3, 3]
    assert found["total"] == {"entered": 2, "left": 1, "ever": 2}
    assert (found["members_before"], found["known_by"], found["rule"]) == (0, None, RULE)


async def test_with_what_is_known_now_the_late_bet_counts(api: Api) -> None:
    found = await _replay(api, known_by="now")
    assert (found["members_before"], found["known_by"]) == (1, "2026-03-10T12:00:00Z")
    assert _by_day(found, "members") == [1, 2, 3, 3, 2, 1]
    assert await _replay(api, known_by="2026-03-10T12:00:00+00:00") == found
    assert (await _replay(api, known_by="2026-03-10T11:00:00+00:00"))["total"]["ever"] == 2


async def test_a_tree_and_its_text_are_replayed_alike(api: Api) -> None:
    assert await _replay(api, rule=to_tree(parse(RULE))) == await _replay(api)
    assert (await _replay(api, brand="other"))["total"]["ever"] == 0


@pytest.mark.parametrize(
    ("changes", "status", "code", "said"),
    [
        ({"to": "2026-03-10"}, 422, "invalid_field", "a day that is over"),
        ({"from": "2026-03-10"}, 422, "invalid_field", "ends before it begins"),
        ({"from": "2019-12-31"}, 422, "invalid_field", "began on 2020-01-01"),
        ({"from": "2025-01-31"}, 422, "invalid_field", "at most 366 days"),
        ({"rule": "bet_count_7d >"}, 422, "invalid_rule", ""),
        ({"rule": 'segment "vip"'}, 422, "invalid_rule", 'there is no segment "vip"'),
        ({"rule": 'list "vip"'}, 422, "invalid_rule", 'there is no segment "vip"'),
        ({"brand": "nobody"}, 404, "unknown_brand", ""),
        ({"known_by": "2026-03-10T11:00:00"}, 422, "invalid_field", "known_by"),
        ({"more": 1}, 422, "invalid_field", "more"),
    ],
)
async def test_what_cannot_be_replayed_is_refused(
    api: Api, changes: dict[str, Any], status: int, code: str, said: str
) -> None:
    answer = await api.client.post(PATH, json=ASKED | changes)
    assert said in problem_of(answer, status, code)["message"]


async def test_what_would_take_too_long_is_refused_with_the_way_to_have_it(api: Api) -> None:
    await api.take(*[an_event_body(event_id=f"m{n}") for n in range(LocalReplays.most_events)])
    problem = problem_of(await api.client.post(PATH, json=ASKED), 422, "too_much_work")
    assert "at most 100 events" in problem["message"]


async def test_every_term_of_the_rules_can_be_replayed(api: Api) -> None:
    rule = f'({RULE}) and player_id starts with "p" and not (player_id in ("p2", "p3"))'
    assert _by_day(await _replay(api, rule=rule), "members") == [0, 1, 1, 1, 0, 0]


async def _save(api: Api, **fields: Any) -> str:
    answer = await api.client.post("/v1/segments", json=fields)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def test_a_rule_that_names_segments_and_lists_is_replayed_as_they_are_now(api: Api) -> None:
    players = ["p1", "p3", "stranger"]
    vip = await _save(api, name="VIP", kind="list", player_ids=players)
    await _save(api, name="Busy", rule=RULE)
    found = await _replay(api, rule='segment "Busy" and segment "VIP"')
    assert found["rule"] == f'{RULE} and list "{vip}"'
    assert _by_day(found, "entered_sample") == [[], ["p1"], [], [], [], []]
    assert _by_day(found, "members") == [0, 1, 1, 1, 0, 0]
    named = await _replay(api, rule={"kind": "not", "term": {"kind": "list", "list": "VIP"}})
    assert _by_day(named, "members") == [0, 0, 1, 1, 1, 1]


async def test_lists_over_http_have_a_bound(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crm.services.replays.LISTED_OVER_HTTP", 1)
    await _save(api, name="VIP", kind="list", player_ids=["p1", "p3"])
    answer = await api.client.post(PATH, json=ASKED | {"rule": 'segment "VIP"'})
    assert "here 2 players" in problem_of(answer, 422, "too_much_work")["message"]


def test_a_task_gets_its_own_shards_players_of_the_lists() -> None:
    asked = Replay(a_brand(), RULE, NOON.date(), NOON.date(), lists={"l": {1: ["a"], 2: ["b"]}})
    assert asked.of_shards({2, 3}).lists == {"l": {2: ["b"]}}
