"""The live socket through the real front: HAProxy, Serve, PostgreSQL, a client of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from deployments.live.messages import LONGEST
from tests.support.instance import Instance, a_place
from tests.support.live import a_transition, in_a_row
from tests.support.transitions import insert

REQUEST_TIMEOUT_S = 2
ROWS = "player,at,amount\n" + "".join(f"p{n},2026-01-01T10:00:00Z,1.00\n" for n in range(2_000))
MAPPING = """
source: live_test
brand: {is: demo}
format: csv
columns: {amount: decimal, at: time}
player_id: player
occurred_at: at
known_at: occurred_at
backfill: true
events:
  - {name: bet, type: {is: bet.placed}, amount: amount}
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    with a_place() as instance:
        started = instance.crm("up", CRM_API__REQUEST_TIMEOUT_S=str(REQUEST_TIMEOUT_S))
        assert started.returncode == 0, started.stderr
        yield instance


async def _ticket(instance: Instance) -> str:
    async with instance.client() as client:
        answer = await client.post("/v1/live/tickets")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["ticket"])


@asynccontextmanager
async def _socket(instance: Instance) -> AsyncIterator[ClientConnection]:
    url = instance.state()["url"].replace("http", "ws", 1)
    async with connect(f"{url}/v1/live") as socket:
        yield socket


@asynccontextmanager
async def _subscribed(
    instance: Instance, cursor: str | None = None, **subscribe: Any
) -> AsyncIterator[ClientConnection]:
    async with _socket(instance) as socket:
        wanted = {"brand": "demo"} | subscribe
        first: dict[str, Any] = {"ticket": await _ticket(instance), "subscribe": wanted}
        if cursor is not None:
            first["cursor"] = cursor
        await socket.send(json.dumps(first))
        assert (await _next(socket))["type"] == "subscribed"
        yield socket


async def _next(socket: ClientConnection, kind: str = "") -> dict[str, Any]:
    """The next message, of a type if one is asked for."""
    async with asyncio.timeout(60):
        while True:
            message: dict[str, Any] = json.loads(await socket.recv())
            if kind in ("", message["type"]):
                return message


async def _players(socket: ClientConnection, count: int) -> tuple[list[str], str]:
    found: list[str] = []
    while len(found) < count:
        message = await _next(socket, "transitions")
        found += [item["player_id"] for item in message["items"]]
        cursor = message["cursor"]
    return found, cursor


async def _write(instance: Instance, *players: str) -> None:
    connection = await asyncpg.connect(instance.state()["postgres"])
    try:
        async with connection.transaction():
            await insert(connection, *[a_transition(player) for player in players])
            await connection.execute("NOTIFY segment_transitions")
    finally:
        await connection.close()


async def _closed(socket: ClientConnection) -> int:
    """The code that the socket is closed with."""
    async with asyncio.timeout(60):
        with suppress(ConnectionClosed):
            while True:
                await socket.recv()
    assert socket.close_code is not None
    return socket.close_code


@pytest.mark.slow
async def test_transitions_come_and_a_reconnect_misses_and_repeats_nothing(
    running: Instance,
) -> None:
    async with _subscribed(running, segments="all") as socket:
        await _write(running, *in_a_row("a", 3))
        found, cursor = await _players(socket, 3)
    await _write(running, *in_a_row("b", 700))
    async with _subscribed(running, cursor, segments="all") as socket:
        await _write(running, *in_a_row("c", 3))
        more, _ = await _players(socket, 703)
    assert found + more == [*in_a_row("a", 3), *in_a_row("b", 700), *in_a_row("c", 3)]


@pytest.mark.slow
async def test_a_socket_outlives_the_time_that_a_request_has(running: Instance) -> None:
    async with _subscribed(running, counters=True) as socket:
        ages = 0.0
        first = await _next(socket, "counters")
        while ages < 2 * REQUEST_TIMEOUT_S:
            last = await _next(socket, "counters")
            ages = _seconds(last) - _seconds(first)
        assert last["lost"] == 0


def _seconds(message: dict[str, Any]) -> float:
    return datetime.fromisoformat(message["at"]).timestamp()


@pytest.mark.slow
async def test_counters_know_the_events_and_the_players(running: Instance) -> None:
    async with running.client() as client:
        event = {
            "event_id": "e1", "type": "bet.placed", "player_id": "p1", "brand": "demo",
            "occurred_at": "2026-01-01T10:00:00Z", "amount": "1.00",
        }  # fmt: skip
        answer = await client.post("/v1/events", json={"events": [event]})
        assert answer.json()["accepted"] == 1
    async with _subscribed(running, counters=True) as socket:
        counters = await _next(socket, "counters")
        assert counters["events"] >= 1
        assert counters["players"] >= 1


@pytest.mark.slow
async def test_an_import_shows_its_progress(running: Instance, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    (tmp_path / "map.yaml").write_text(MAPPING)
    files = (str(tmp_path / "rows.csv"), "--mapping", str(tmp_path / "map.yaml"))
    async with _subscribed(running, jobs=True) as socket:
        imported = await asyncio.to_thread(running.crm, "import", *files)
        assert imported.returncode == 0, imported.stderr
        while (job := await _next(socket, "job"))["state"] == "running":
            assert job["kind"] == "import"
        assert (job["state"], job["done"], job["total"]) == ("done", 2_000, 2_000)


@pytest.mark.slow
async def test_who_shows_no_good_ticket_is_told_and_closed(running: Instance) -> None:
    key = running.key()
    async with _socket(running) as socket:  # says nothing
        assert (await _next(socket))["code"] == "unauthorized"
        assert await _closed(socket) == 4401
    ticket = await _ticket(running)
    for bad in ("live_x", key):
        async with _socket(running) as socket:
            await socket.send(json.dumps({"ticket": bad, "subscribe": {}}))
            assert (await _next(socket))["code"] == "unauthorized"
            assert await _closed(socket) == 4401
    for kind in ("subscribed", "error"):  # once good, then not
        async with _socket(running) as socket:
            await socket.send(json.dumps({"ticket": ticket, "subscribe": {}}))
            assert (await _next(socket))["type"] == kind


@pytest.mark.slow
async def test_a_long_message_is_refused_before_it_is_held(running: Instance) -> None:
    async with _socket(running) as socket:
        assert socket.protocol.extensions == []  # nothing is compressed: no small bomb
        await socket.send("x" * (LONGEST + 1))
        assert await _closed(socket) == 1009


@pytest.mark.slow
async def test_no_other_path_is_a_socket_and_tickets_are_made_for_keys_alone(
    running: Instance,
) -> None:
    url = running.state()["url"]
    for path in ("/v1/live/tickets", "/v1/events", f"/v1/players?key={running.key()}"):
        with pytest.raises(InvalidStatus):
            async with connect(url.replace("http", "ws", 1) + path):
                pass
    async with running.client() as client:
        assert (await client.get("/v1/live")).status_code == 426
        client.headers.pop("authorization")
        assert (await client.post("/v1/live/tickets")).status_code == 401
        assert (await client.get("/v1/live")).status_code == 401


@pytest.mark.slow
async def test_sockets_do_not_hold_the_service_up_when_it_stops() -> None:
    with a_place() as instance:
        assert instance.crm("up").returncode == 0
        async with _subscribed(instance, segments="all") as socket:
            stopped = await asyncio.to_thread(instance.crm, "down")
            assert stopped.returncode == 0
            assert await _closed(socket) in (1001, 1006, 1012)
        assert not instance.logged("stop_cut_short")
