"""Numbers and what-if on a whole running system: over HTTP, by command, with Redis and without."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from tests.support.instance import Instance, an_instance

RULE = "bet_count_7d >= 3"
PLAYERS, DAYS = 40, 20


def _bets(now: datetime) -> list[dict[str, Any]]:
    """Every player bets once on each of as many days as the number says, the last two days ago."""
    return [
        {
            "event_id": f"e{player}-{day}", "type": "bet.placed", "player_id": f"p{player:02}",
            "brand": "demo", "amount": "2.50", "backfill": True,
            "occurred_at": (at := (now - timedelta(days=day + 2)).isoformat()), "known_at": at,
        }
        for player in range(PLAYERS) for day in range(player % DAYS)
    ]  # fmt: skip


async def test_a_running_system_tells_its_numbers_and_what_a_segment_would_have_been() -> None:
    now = datetime.now(UTC)
    bets = _bets(now)
    with an_instance() as instance:
        async with instance.client() as client:
            sent = await client.post("/v1/events", json={"events": bets})
            assert sent.json()["accepted"] == len(bets), sent.text
            total = (await _get(client, "/v1/analytics/overview"))["total"]
            assert total["bet_count"] == len(bets)
            assert total["stake_amount"] == f"{2.5 * len(bets):.2f}"
            assert total["active_players"] == PLAYERS - PLAYERS // DAYS
            day = (now - timedelta(days=1)).date()
            asked = {
                "brand": "demo",
                "rule": RULE,
                "from": f"{day - timedelta(days=9)}",
                "to": f"{day}",
            }
            answer = await client.post("/v1/segments/replay", json=asked, timeout=120)
            assert answer.status_code == 200, answer.text
            told = answer.json()
        by_command = _replay(instance, asked)
        assert by_command == told
        assert told["days"][-1]["members"] == PLAYERS * (DAYS - 3) // DAYS
        assert told["days"][-1]["players"] == total["active_players"]
        assert told["total"]["entered"] > 0


async def _get(client: httpx.AsyncClient, path: str) -> dict[str, Any]:
    answer = await client.get(path, params={"brand": "demo"})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def _replay(instance: Instance, asked: dict[str, str]) -> dict[str, Any]:
    done = instance.crm(
        "segments", "replay", asked["rule"], "--from", asked["from"], "--to", asked["to"],
        "--brand", "demo", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))
