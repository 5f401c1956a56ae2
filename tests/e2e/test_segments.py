"""Saved segments on a real system: who enters and leaves is seen at once, and through a kill."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from websockets.asyncio.client import ClientConnection, connect

from crm.domain.shards import shard_of
from tests.support.instance import Instance, a_place
from tests.support.wait import wait_for_async


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    with a_place() as instance:
        started = instance.crm("up")
        assert started.returncode == 0, started.stderr
        yield instance


async def _saved(instance: Instance, name: str, rule: str) -> str:
    async with instance.client() as client:
        answer = await client.post(
            "/v1/segments", json={"brand": "demo", "name": name, "rule": rule}
        )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def _send(instance: Instance, *events: dict[str, Any]) -> None:
    async def accepted() -> bool:
        async with instance.client() as client:
            answer = await client.post("/v1/events", json={"events": list(events)})
        return answer.status_code == 200 and not answer.json()["rejected"]

    await wait_for_async(accepted, "the events are accepted", deadline_s=30)


def _event(player: str, number: int, kind: str, at: datetime) -> dict[str, Any]:
    amount = {"amount": "10.00", "currency": "EUR"}
    return {"event_id": f"{player}-{number}", "type": kind, "player_id": player, "brand": "demo",
            "occurred_at": at.isoformat(), **amount}  # fmt: skip


@asynccontextmanager
async def _watching(instance: Instance) -> AsyncIterator[ClientConnection]:
    async with instance.client() as client:
        ticket = (await client.post("/v1/live/tickets")).json()["ticket"]
    url = instance.state()["url"].replace("http", "ws", 1)
    async with connect(f"{url}/v1/live") as socket:
        await socket.send(
            json.dumps({"ticket": ticket, "subscribe": {"brand": "demo", "segments": "all"}})
        )
        assert json.loads(await socket.recv())["type"] == "subscribed"
        yield socket


async def _told(socket: ClientConnection, player: str) -> dict[str, Any]:
    """The next transition of a player."""
    async with asyncio.timeout(60):
        while True:
            for item in json.loads(await socket.recv()).get("items", ()):
                if item["player_id"] == player:
                    found: dict[str, Any] = item
                    return found


@pytest.mark.slow
async def test_who_bets_enters_and_leaves_again_by_the_clock(running: Instance) -> None:
    active = await _saved(running, "bet today", "bet_count_24h >= 1 and bet_count_lifetime < 3")
    idle = await _saved(running, "idle for a day", "days_since_last_bet >= 1")
    async with _watching(running) as socket:
        await _watches(running, active, "bet.placed")
        now = datetime.now(UTC)
        await _send(running, _event("quick", 1, "bet.placed", now))
        told = await _told(socket, "quick")
        assert (told["segment"], told["change"], told["seq"]) == (active, "entered", 1)
        await _send(running, *[_event("quick", n, "bet.placed", now) for n in (2, 3)])
        told = await _told(socket, "quick")
        assert (told["segment"], told["change"], told["seq"]) == (active, "left", 3)

        nearly = datetime.now(UTC) - timedelta(days=1) + timedelta(seconds=3)
        await _send(running, _event("slow", 1, "bet.placed", nearly))
        while (told := await _told(socket, "slow"))["segment"] != idle:
            assert told["segment"] == active
        assert (told["change"], told["seq"]) == ("entered", None)
        assert datetime.fromisoformat(told["at"]) == nearly + timedelta(days=1)


@pytest.mark.slow
async def test_a_killed_owner_neither_repeats_nor_forgets(running: Instance) -> None:
    segment = await _saved(running, "has withdrawn", "withdrawal_count_lifetime >= 1")
    await _watches(running, segment, "withdrawal.completed")
    players = [f"w{n}" for n in range(40)]
    now = datetime.now(UTC)
    await _send(running, *[_event(p, 1, "withdrawal.completed", now) for p in players[:20]])
    owner = await _owner(running, players[0])
    logged = running.logged("shards_ready")
    os.kill(next(one["pid"] for one in reversed(logged) if one["owner"] == owner), signal.SIGKILL)
    await _send(running, *[_event(p, 2, "withdrawal.completed", now) for p in players])

    async def members() -> bool:
        async with running.client() as client:
            answer = await client.get(f"/v1/segments/{segment}/members", params={"limit": 1000})
        found = [item["player_id"] for item in answer.json().get("items", ())]
        return [player for player in found if player in players] == sorted(players)

    await wait_for_async(members, "all are members", deadline_s=30)
    connection = await asyncpg.connect(running.state()["postgres"])
    rows = await connection.fetch(
        "SELECT player_id, entered FROM segment_transitions"
        " WHERE segment = $1 AND player_id = ANY($2)", segment, players
    )  # fmt: skip
    await connection.close()
    assert sorted((row["player_id"], row["entered"]) for row in rows) == [
        (player, True) for player in sorted(players)
    ]


async def _owner(instance: Instance, player: str) -> str:
    connection = await asyncpg.connect(instance.state()["postgres"])
    try:
        return str(
            await connection.fetchval(
                "SELECT owner FROM virtual_shards WHERE shard = $1", shard_of("demo", player)
            )
        )
    finally:
        await connection.close()


async def _watches(instance: Instance, segment: str, kind: str) -> None:
    """Wait until every owner watches a new segment: somebody of each owner's enters it."""
    connection = await asyncpg.connect(instance.state()["postgres"])
    sent = itertools.count()

    async def seen() -> bool:
        for _ in range(8):
            await _send(instance, _event(f"{segment}-{next(sent)}", 1, kind, datetime.now(UTC)))
        owners = await connection.fetchval("SELECT count(DISTINCT owner) FROM virtual_shards")
        return bool(owners == await connection.fetchval(
            "SELECT count(DISTINCT owner) FROM segment_transitions t"
            " JOIN virtual_shards v USING (shard) WHERE t.segment = $1", segment
        ))  # fmt: skip

    await wait_for_async(seen, "the owners watch", deadline_s=30)
    await connection.close()
