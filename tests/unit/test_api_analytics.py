"""GET /v1/analytics/overview: the numbers of the features, in the contract's units."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date, timedelta
from typing import Any

import pytest

from tests.support.api import Api, an_api, an_event_body, problem_of

PATH = "/v1/analytics/overview"
TUESDAY = date(2026, 3, 10)  # the clock says so, at noon


def _acts(*acts: tuple[str, str, int, str]) -> list[dict[str, Any]]:
    """Events of (player, type, days ago, amount)."""
    return [
        an_event_body(
            event_id=f"e{number}", player_id=player, type=type_, amount=amount or ...,
            currency="EUR" if amount else ..., backfill=True,
            occurred_at=f"{TUESDAY - timedelta(days=ago)}T11:00:00Z",
            properties={"result": "won"} if type_ == "bet.settled" else {},
        )
        for number, (player, type_, ago, amount) in enumerate(acts)
    ]  # fmt: skip


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with an_api() as running:
        await running.take(
            *_acts(
                ("p1", "bet.placed", 0, "10.50"), ("p1", "bet.settled", 0, "12.25"),
                ("p1", "bet.placed", 1, "1"), ("p2", "deposit.completed", 1, "50"),
                ("p2", "bonus.granted", 1, "5"), ("p2", "withdrawal.completed", 2, "7"),
                ("p3", "player.registered", 31, ""), ("p4", "message.sent", 1, ""),
            )
        )  # fmt: skip
        yield running


async def _read(api: Api, **params: str) -> dict[str, Any]:
    answer = await api.client.get(PATH, params=params)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_numbers_by_day_and_week_and_in_all(api: Api) -> None:
    found = await _read(api, **{"brand": "demo", "from": "2026-03-08", "to": "2026-03-10"})
    assert found["as_of"] == "2026-03-10T12:00:00Z"
    assert (found["currency"], found["time_zone"]) == ("EUR", "Europe/Lisbon")
    sunday, monday, tuesday = found["days"]
    assert sunday["date"] == "2026-03-08"
    assert tuesday == {
        "date": "2026-03-10", "active_players": 1, "new_players": 0, "churned_players": 0,
        "deposit_count": 0, "deposit_amount": "0.00", "withdrawal_count": 0,
        "withdrawal_amount": "0.00", "bet_count": 1, "stake_amount": "10.50",
        "payout_amount": "12.25", "bonus_amount": "0.00", "ggr_amount": "-1.75",
        "ngr_amount": "-1.75",
    }  # fmt: skip
    assert (monday["new_players"], monday["active_players"], monday["ngr_amount"]) == (
        1,
        2,
        "-4.00",
    )
    first, second = found["weeks"]
    assert [(week["from"], week["to"]) for week in (first, second)] == [
        ("2026-03-08", "2026-03-08"),
        ("2026-03-09", "2026-03-10"),
    ]
    assert second["active_players"] == 2  # not 1 + 2
    assert second["stake_amount"] == "11.50"
    assert found["total"]["new_players"] == 2
    assert found["total"]["active_players"] == 2


async def test_without_days_it_is_the_last_30_and_who_went_away_churned(api: Api) -> None:
    found = await _read(api)
    assert (found["from"], found["to"], len(found["days"])) == ("2026-02-09", "2026-03-10", 30)
    churned = {day["date"]: day["churned_players"] for day in found["days"]}
    assert {day: count for day, count in churned.items() if count} == {"2026-03-09": 1}
    assert (await _read(api, brand="other"))["total"]["active_players"] == 0


async def test_an_answer_is_kept_for_a_while_and_says_of_when_it_is(api: Api) -> None:
    before = await _read(api)
    await api.take(an_event_body(event_id="new", player_id="p9"))
    api.clock.move(seconds=14)
    assert await _read(api) == before
    api.clock.move(seconds=2)
    after = await _read(api)
    assert after["as_of"] == "2026-03-10T12:00:16Z"
    assert after["total"]["new_players"] == before["total"]["new_players"] + 1


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"from": "2025-12-10"}, "not before 2025-12-11"),
        ({"from": "0001-01-01"}, "not before 2025-12-11"),
        ({"to": "2026-03-11"}, "not after today, 2026-03-10"),
        ({"to": "0001-01-02"}, "not before 2025-12-11"),
        ({"from": "2026-03-05", "to": "2026-03-04"}, "ends before it begins"),
        ({"from": "yesterday"}, "query.from"),
    ],
)
async def test_days_that_cannot_be_asked_about_are_refused(
    api: Api, params: dict[str, str], said: str
) -> None:
    problem = problem_of(await api.client.get(PATH, params=params), 422, "invalid_field")
    assert said in problem["message"]
    problem_of(await api.client.get(PATH, params={"brand": "nobody"}), 404, "unknown_brand")
