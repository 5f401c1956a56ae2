"""A killed shard owner: how soon its players are served again, and whether anything is lost.

    .venv/bin/python bench/restart.py [--quick]

Players are loaded over HTTP; then, under an open loop of 5,000 events/s, owners are killed with
SIGKILL. What gets no 200 is sent again until it does, as clients do. At the end every id that was
sent must be in the log once, and the live features of some players must equal what was sent.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import asyncpg
import httpx
import msgspec

from bench.frame import Row, Size, at_most, main
from bench.load import Server, send_all
from bench.players import BRAND, Event, a_service, posts, some_events
from crm.domain.shards import shard_of
from tests.support.instance import Instance
from tests.support.wait import wait_for_async

PLAYERS, LOADED = 250_000, 3  # events a player before the load
PER_S, A_REQUEST = 5_000, 250
KILLS, APART_S = 3, 18.0  # a snapshot of each shard is taken in every 15 s
CHECKED = 200  # players whose live features are read
RETRY_S = 0.1
GIVE_UP_S = 60.0
_OWNER = "SELECT owner FROM virtual_shards WHERE shard = $1"
_AGE = """
SELECT max(coalesce(extract(epoch FROM now() - newest.taken_at), 'Infinity'))::float8
FROM virtual_shards v
LEFT JOIN LATERAL (SELECT seq, taken_at FROM shard_snapshots s WHERE s.shard = v.shard
                   ORDER BY seq DESC LIMIT 1) AS newest ON true
WHERE v.owner = $1 AND v.seq > coalesce(newest.seq, 0)"""
_STORED = """
SELECT count(*), count(DISTINCT event_id)
FROM user_transactions WHERE brand = $1 AND event_id = ANY($2::text[])"""


@dataclass
class Kill:
    """One kill: seconds until a read and a write that began after it were answered, and the age."""

    read_s: float
    write_s: float
    snapshot_age_s: float


@dataclass
class Load:
    """Requests in an open loop, each sent again until it is acknowledged."""

    client: httpx.AsyncClient
    events: Sequence[Event]
    answered: list[tuple[float, float]] = field(default_factory=list)  # due, acknowledged

    async def run(self) -> None:
        """Send all at their times; returns when all are acknowledged."""
        start = time.perf_counter()
        parts = [self.events[n : n + A_REQUEST] for n in range(0, len(self.events), A_REQUEST)]
        await asyncio.gather(
            *[self._send(part, start + n * A_REQUEST / PER_S) for n, part in enumerate(parts)]
        )

    async def _send(self, part: Sequence[Event], due: float) -> None:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        body = msgspec.json.encode({"events": part})
        while time.perf_counter() < due + GIVE_UP_S:
            try:
                answer = await self.client.post("/v1/events", content=body)
                if answer.status_code == httpx.codes.OK:
                    self.answered.append((due, time.perf_counter()))
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(RETRY_S)
        raise TimeoutError(f"a request was not acknowledged within {GIVE_UP_S:.0f} s")


def measure(size: Size) -> Iterator[Row]:
    """Load, kill, and draw the balance."""
    players, kills = (3_000, 1) if size == "quick" else (PLAYERS, KILLS)
    with a_service() as (instance, server):
        yield from asyncio.run(_under_kills(instance, server, players, kills))


async def _under_kills(instance: Instance, server: Server, players: int, kills: int) -> list[Row]:
    before = some_events(players * LOADED, players)
    loaded = await send_all(server, posts(server, before, 1_000), 4)
    if loaded.errors:
        raise SystemExit(f"{loaded.errors} requests failed while the players were loaded")
    connection = await asyncpg.connect(instance.state()["postgres"])
    events = some_events(int(PER_S * APART_S * (kills + 1)), players)
    async with _client(instance, server) as client:
        load = Load(client, events)
        loading = asyncio.create_task(load.run())
        found = []
        for _ in range(kills):
            await asyncio.sleep(APART_S)
            found.append(await _kill(instance, connection, client, load, players))
        await loading
        wrong = await _wrong_players(client, [*before, *events], players)
    ids = [event["event_id"] for event in events]
    [(stored, different)] = await connection.fetch(_STORED, BRAND, ids)
    await connection.close()
    return list(_rows(players, found, len(events) - different, stored - different, wrong))


def _client(instance: Instance, server: Server) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "application/json"}
    limits = httpx.Limits(max_connections=200)  # requests wait for a successor, others go on
    url = instance.state()["url"]
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=30, limits=limits)


async def _kill(
    instance: Instance,
    connection: asyncpg.Connection[asyncpg.Record],
    client: httpx.AsyncClient,
    load: Load,
    players: int,
) -> Kill:
    """Kill the owner of a random player's shard; return when both ways are served again."""
    probe = f"player-{random.randrange(players)}"
    owner = await connection.fetchval(_OWNER, shard_of(BRAND, probe))
    pid = _pid_of(instance, owner)
    age_s = await connection.fetchval(_AGE, owner)
    os.kill(pid, signal.SIGKILL)
    killed = time.perf_counter()

    async def read() -> bool:
        answer = await client.get(f"/v1/players/{probe}/features", params={"brand": BRAND})
        return answer.status_code == httpx.codes.OK

    async def written() -> list[float]:
        return [at for due, at in load.answered if due > killed]

    await wait_for_async(read, "a read is answered", deadline_s=GIVE_UP_S, every_s=0.02)
    read_s = time.perf_counter() - killed
    acknowledged = await wait_for_async(written, "a write is answered", deadline_s=GIVE_UP_S)
    return Kill(read_s, min(acknowledged) - killed, age_s)


def _pid_of(instance: Instance, owner: str) -> int:
    """Return the process of an owner, which says so in the log when it is ready."""
    lines = (instance.var_dir / "log" / "crm.log").read_text().splitlines()
    events = [json.loads(line) for line in lines if '"shards_ready"' in line]
    return next(int(event["pid"]) for event in reversed(events) if event["owner"] == owner)


async def _wrong_players(client: httpx.AsyncClient, sent: Sequence[Event], players: int) -> int:
    """Return how many of some players' live counts are not what was sent."""
    expected, wrong = Counter(event["player_id"] for event in sent), 0
    for player in random.sample(range(players), min(CHECKED, players)):
        answer = await client.get(f"/v1/players/player-{player}/features", params={"brand": BRAND})
        live = answer.json()["features"]["event_count_lifetime"]
        wrong += live != expected[f"player-{player}"]
    return wrong


def _rows(players: int, kills: Sequence[Kill], lost: int, twice: int, wrong: int) -> Iterator[Row]:
    what = f"owner killed, {players:,} players, {PER_S:,} events/s"
    note = f"the worst of {len(kills)}"
    yield Row(f"{what}: a read is answered", max(k.read_s for k in kills), "s",
              targets=(at_most(5),), note=note)  # fmt: skip
    yield Row(f"{what}: a write is acknowledged", max(k.write_s for k in kills), "s",
              targets=(at_most(5),))  # fmt: skip
    yield Row(f"{what}: oldest snapshot that lacks something", max(k.snapshot_age_s for k in kills),
              "s", targets=(at_most(15),))  # fmt: skip
    yield Row("acknowledged events lost", lost, "events", targets=(at_most(0),))
    yield Row("events counted twice in the log", twice, "events", targets=(at_most(0),))
    yield Row(f"wrong live counts, of {CHECKED} players", wrong, "players", targets=(at_most(0),))


if __name__ == "__main__":
    main("restart", "A shard owner killed under load", measure)
