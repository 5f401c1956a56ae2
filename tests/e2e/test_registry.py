"""The registry of a running system: trained by command, promoted and rolled back over HTTP."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from tests.support.instance import Instance, an_instance

PLAYERS = 60


def _bets(now: datetime) -> list[dict[str, Any]]:
    """Three kinds of players: by how often they bet, and how much."""
    return [
        {
            "event_id": f"e{player}-{bet}", "type": "bet.placed", "player_id": f"p{player:02}",
            "brand": "demo", "amount": f"{10 ** (player % 3)}.{player:02}", "backfill": True,
            "occurred_at": (at := (now - timedelta(hours=30 + bet)).isoformat()), "known_at": at,
        }
        for player in range(PLAYERS) for bet in range(3 ** (player % 3))
    ]  # fmt: skip


async def test_what_is_trained_is_registered_and_serves_when_somebody_says_so() -> None:
    with an_instance() as instance:
        async with instance.client() as client:
            bets = _bets(datetime.now(UTC))
            sent = await client.post("/v1/events", json={"events": bets})
            assert sent.json()["accepted"] == len(bets), sent.text
            _crm(instance, "train", "clusters", "--brand", "demo", "--k", "3", "--json")
            _crm(instance, "train", "clusters", "--brand", "demo", "--k", "2", "--json")
            second, first = _crm(instance, "models", "list", "--brand", "demo", "--json")["items"]
            assert [(one["number"], one["state"]) for one in (first, second)] == [
                (1, "serving"), (2, "candidate"),
            ]  # fmt: skip
            assert first["data"]["players"] == PLAYERS
            assert len(first["data"]["digest"]) == len(first["feature_list"]) == 64
            assert (await client.get("/v1/models?brand=demo")).json()["items"] == [second, first]
            assert await _clusters(client) == 3

            path, key = f"/v1/models/{second['id']}/promote", {"idempotency-key": "once"}
            assert (await client.post(path, json={"why": "fewer"})).json()["state"] == "serving"
            assert await _clusters(client) == 2
            asked = {"brand": "demo", "kind": "clusters"}
            for _ in range(2):
                back = await client.post("/v1/models/rollback", json=asked, headers=key)
                assert back.json()["id"] == first["id"], back.text
            assert await _clusters(client) == 3
            shown = _crm(instance, "models", "promote", second["id"], "--why", "again", "--json")
            assert (shown["state"], await _clusters(client)) == ("serving", 2)
            changes = (await client.get("/v1/models/changes?brand=demo")).json()["items"]
            assert [one["action"] for one in changes] == [
                "promoted", "rolled_back", "promoted", "registered", "promoted", "registered",
            ]  # fmt: skip
            assert changes[1]["by"] == changes[2]["by"] != changes[0]["by"]


async def _clusters(client: httpx.AsyncClient) -> int:
    answer = await client.get("/v1/clusters?brand=demo")
    assert answer.status_code == 200, answer.text
    return len(answer.json()["items"])


def _crm(instance: Instance, *arguments: str) -> dict[str, Any]:
    done = instance.crm(*arguments)
    assert done.returncode == 0, done.stderr + _story(instance)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _story(instance: Instance) -> str:
    """The end of what the log says of a command that failed."""
    return "".join(
        str(event.get("exception"))[-2_000:] for event in instance.logged("command_failed")
    )
