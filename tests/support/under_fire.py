"""An import with HTTP ingest beside it while shard owners and replicas are killed, from a seed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from random import Random

import asyncpg
import httpx
import pyarrow.parquet as pq

from tests.support.balance import COUNTED, Balance, Sent, Totals, totals_of
from tests.support.instance import CRM, Instance
from tests.support.wait import wait_for_async

MAPPING = Path(__file__).parents[2] / "configs" / "mappings" / "simulated.yaml"
KILLED = ("owner", "replica")
EVENTS_A_REQUEST = 50
CLIENTS = 2
LONG_S = 120
MINUTES_S = 600  # what an import may take between two kills, on a busy machine
MEASURES = [name for pair in COUNTED.values() for name in pair if name]


@dataclass(frozen=True)
class Fire:
    """How large, how long and how hard; the kills are spread over the rows of the import."""

    players: int
    days: int
    kills: int
    seed: int = 1


@dataclass
class Ingest:
    """HTTP clients that send batches, again after any error, and remember what was acknowledged."""

    client: httpx.AsyncClient
    players: Sequence[str]
    rng: Random
    acknowledged: list[Sent] = field(default_factory=list)
    attempted: int = 0
    errors: int = 0
    rounds: int = 0  # requests that began after the latest kill and were acknowledged
    _kills: int = 0
    _next: int = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Send until told to stop; what was begun is sent to its end."""
        while not stop.is_set():
            batch = [self._event() for _ in range(EVENTS_A_REQUEST)]
            at = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
            body = {"events": [_as_json(event, at) for event in batch]}
            await self._send(body, len(batch))
            if self.rng.random() < 0.1:
                await self._send(body, len(batch))  # an impatient client: duplicates, harmless
            self.acknowledged += batch

    def fired(self) -> None:
        """Forget the requests that began before this moment."""
        self._kills += 1
        self.rounds = 0

    async def recovered(self) -> bool:
        """Whether every client has got an answer to a question asked after the latest kill."""
        return self.rounds >= CLIENTS

    def _event(self) -> Sent:
        self._next += 1
        amount = Decimal(self.rng.randint(1, 10_000)).scaleb(-2)
        return Sent(f"http-{self._next}", self.rng.choice(self.players), "bet.placed", amount)

    async def _send(self, body: object, events: int) -> None:
        self.attempted += events

        async def acknowledged() -> bool:
            began = self._kills
            try:
                answer = await self.client.post("/v1/events", json=body)
            except httpx.HTTPError:
                self.errors += 1
                return False
            if answer.status_code >= 500:
                self.errors += 1
                return False
            assert answer.status_code == httpx.codes.OK, answer.text
            told = answer.json()
            assert told["rejected"] == []
            assert told["accepted"] + told["duplicates"] == events
            self.rounds += began == self._kills
            return True

        await wait_for_async(acknowledged, "a batch is taken", deadline_s=LONG_S, every_s=0.2)


def _as_json(event: Sent, at: str) -> dict[str, str]:
    return {
        "event_id": event.event_id, "type": event.type, "player_id": event.player_id,
        "brand": "demo", "occurred_at": at, "amount": str(event.amount), "currency": "EUR",
    }  # fmt: skip


async def import_under_fire(instance: Instance, folder: Path, fire: Fire) -> Balance:
    """Simulate, import under fire, and draw the balance; raises AssertionError if it gets stuck."""
    file = folder / "events.parquet"
    made = await asyncio.to_thread(
        instance.crm, "simulate", "--players", str(fire.players), "--days", str(fire.days),
        "--seed", str(fire.seed), "--brand", "demo", "--end", "2026-03-01", "--out", str(file),
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    from_file = _read(file)
    rng = Random(fire.seed)
    players = rng.sample(sorted({event.player_id for event in from_file}), 100)
    async with _client(instance) as client:
        ingest = Ingest(client, [*players, *[f"http-{n}" for n in range(50)]], Random(fire.seed))
        stop = asyncio.Event()
        clients = [asyncio.create_task(ingest.run(stop)) for _ in range(CLIENTS)]
        importing = asyncio.create_task(_import(instance, file))
        recoveries = await _fire(instance, ingest, _moments(fire, rng, len(from_file)), rng)
        report = await importing
        stop.set()
        await asyncio.wait_for(asyncio.gather(*clients), LONG_S)
        assert report["rejected"] == 0, report
        assert report["read"] == report["accepted"] + report["duplicates"] == len(from_file)
        sent = [*from_file, *ingest.acknowledged]
        totals = totals_of(sent)
        connection = await asyncpg.connect(instance.state()["postgres"])
        try:
            return Balance(
                acknowledged=frozenset(event.event_id for event in sent),
                stored=await _stored(connection),
                sent=totals,
                live={player: await _live(client, player) for player in totals},
                recounted=await _recounted(connection),
                attempted=len(from_file) + ingest.attempted,
                errors=ingest.errors,
                stale_refusals=await connection.fetchval(
                    "SELECT sum(stale_refusals)::int FROM virtual_shards"
                ),
                recoveries_s=recoveries,
            )
        finally:
            await connection.close()


def _moments(fire: Fire, rng: Random, rows: int) -> list[int]:
    """How many events are stored when each kill comes: all while the import runs."""
    share = rows // (fire.kills + 1)
    return [number * share + rng.randrange(share) for number in range(fire.kills)]


async def _fire(
    instance: Instance, ingest: Ingest, moments: Sequence[int], rng: Random
) -> list[tuple[str, float]]:
    """Kill owners and replicas in turn; returns how long each was missed."""
    recoveries: list[tuple[str, float]] = []
    connection = await asyncpg.connect(instance.state()["postgres"])
    try:
        for number, moment in enumerate(moments):
            reached = partial(_has_stored, connection, moment)
            await wait_for_async(reached, f"{moment} events are stored", deadline_s=MINUTES_S)
            what = KILLED[number % 2]
            found = partial(asyncio.to_thread, _pids, instance, what)
            pids = await wait_for_async(found, f"there is an {what}", deadline_s=LONG_S)
            os.kill(rng.choice(pids), signal.SIGKILL)
            ingest.fired()
            began = asyncio.get_running_loop().time()
            await wait_for_async(ingest.recovered, "the system answers again", deadline_s=LONG_S)
            recoveries.append((what, asyncio.get_running_loop().time() - began))
    finally:
        await connection.close()
    return recoveries


def _pids(instance: Instance, what: str) -> list[int]:
    return instance.owner_pids() if what == "owner" else instance.pids("ray::ServeReplica")


async def _has_stored(connection: asyncpg.Connection[asyncpg.Record], events: int) -> bool:
    return bool(await connection.fetchval("SELECT sum(seq) > $1 FROM virtual_shards", events))


async def _import(instance: Instance, file: Path) -> dict[str, int]:
    process = await asyncio.create_subprocess_exec(
        *CRM, "import", str(file), "--mapping", str(MAPPING), "--json",
        env=instance.environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()[-2000:]
    report: dict[str, int] = json.loads(out.decode().splitlines()[-1])
    return report


@asynccontextmanager
async def _client(instance: Instance) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {instance.key()}"}
    url = instance.state()["url"]
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
        yield client


def _read(file: Path) -> list[Sent]:
    rows = pq.read_table(file, columns=["event_id", "player_id", "type", "amount"])
    return [
        Sent(event_id, player, kind, None if amount is None else Decimal(amount))
        for event_id, player, kind, amount in zip(
            *[rows.column(name).to_pylist() for name in rows.column_names], strict=True
        )
    ]


async def _stored(connection: asyncpg.Connection[asyncpg.Record]) -> Counter[str]:
    rows = await connection.fetch(
        "SELECT event_id FROM user_transactions UNION ALL SELECT event_id FROM user_sessions"
    )
    return Counter(row["event_id"] for row in rows)


async def _live(client: httpx.AsyncClient, player: str) -> Totals:
    answer = await client.get(f"/v1/players/{player}/features", params={"brand": "demo"})
    assert answer.status_code == httpx.codes.OK, answer.text
    values = answer.json()["features"]
    return Counter({
        name: int(Decimal(values[f"{name}_lifetime"]) * (100 if name.endswith("amount") else 1))
        for name in MEASURES
    })  # fmt: skip


async def _recounted(connection: asyncpg.Connection[asyncpg.Record]) -> dict[str, Totals]:
    rows = await connection.fetch(
        "SELECT player_id, type, count(*) AS n, coalesce(sum(amount_minor), 0)::bigint AS amount"
        " FROM (SELECT player_id, type, amount_minor FROM user_transactions UNION ALL"
        "       SELECT player_id, type, NULL FROM user_sessions) AS e GROUP BY 1, 2"
    )
    totals: dict[str, Totals] = {}
    for row in rows:
        of_player = totals.setdefault(row["player_id"], Counter())
        count, amount = COUNTED.get(row["type"], (None, None))
        if count:
            of_player[count] += row["n"]
        if amount:
            of_player[amount] += row["amount"]
    return totals


def show(balance: Balance) -> None:
    """Print the balance where a run's log shows it."""
    sys.stdout.write(f"\n{balance}\n")
