"""From an event's request to the socket that tells who has entered a segment, under load.

    .venv/bin/python bench/entries.py [--quick]

200 segments are saved, of one to four conditions each. Under an open loop of events, single events
of new players make each enter one more segment; a latency counts from the moment when such a
request is sent. Then events are offered as fast as the service has to take them for a long time.
"""

from __future__ import annotations

import asyncio
import json
import random
import string
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

import asyncpg
import httpx
import msgspec

from bench.frame import Row, Size, at_least, at_most, main
from bench.load import Server, Times, send_all, send_at
from bench.players import BRAND, a_service, posts, some_events
from bench.sockets import open_live
from tests.support.instance import Instance

SEGMENTS = 200
PER_S, A_REQUEST = 5_000, 100
PROBES_PER_S, PROBE_CONNECTIONS = 20, 16
OFFERED = 10_200
_COUNTS = (
    "bet_count_7d", "bet_count_24h", "casino_bet_count_30d", "session_count_7d",
    "bet_count_lifetime", "deposit_count_lifetime", "active_days_30d", "days_since_last_bet",
    "days_since_last_deposit",
)  # fmt: skip
_AMOUNTS = ("deposit_amount_30d", "stake_amount_7d", "ggr_amount_30d")
_THRESHOLDS = (5, 7, 10, 14, 20, 30, 50, 100)
_SIGNS = (">", ">=", "<")
_PROBED = "withdrawal_count_lifetime >= 1"


def measure(size: Size) -> Iterator[Row]:
    """Measure how soon an entry is seen, and what so many segments leave of the ingest."""
    quick = size == "quick"
    seconds, segments, settled = (3.0, 20, 5_000) if quick else (30.0, SEGMENTS, 200_000)
    with a_service() as (instance, server):
        yield from asyncio.run(_measured(instance, server, seconds, segments, settled))


async def _measured(
    instance: Instance, server: Server, seconds: float, segments: int, settled: int
) -> list[Row]:
    await send_all(server, posts(server, some_events(60_000), 500), 4)  # players who are known
    probed = await _save(server, segments)
    # who has just begun passes threshold after threshold: 33,000 transitions a second at first
    await send_all(server, posts(server, some_events(settled), 500), 4)
    before = await _transitions(instance)
    load = posts(server, some_events(int(PER_S * seconds)), A_REQUEST)
    loading = asyncio.create_task(send_at(server, load, PER_S / A_REQUEST, 32))
    latencies = await _entries(server, probed, seconds)
    under = await loading
    a_second = (await _transitions(instance) - before) / seconds
    times = Times(latencies)
    what = f"event in to segment entered, on the socket; {PER_S:,} events/s, {segments} segments"
    note = f"{len(latencies)} entries, {a_second:,.0f} transitions/s"
    note += f"; ingest p99 {under.percentile_ms(0.99):.0f} ms"
    rows = [
        Row(f"{what}: p50", times.percentile_ms(0.5), "ms", note=note),
        Row(f"{what}: p99", times.percentile_ms(0.99), "ms", targets=(at_most(150),)),
        Row(f"{what}: came", len(latencies) / (PROBES_PER_S * seconds), "of all",
            targets=(at_least(1), at_most(1))),
    ]  # fmt: skip
    more = posts(server, some_events(int(OFFERED * seconds)), 500)
    sustained = await send_at(server, more, OFFERED / 500, 16)
    each = (await _transitions(instance) - before) / (int(PER_S * seconds) + int(OFFERED * seconds))
    note = f"{OFFERED:,} offered; p99 {sustained.percentile_ms(0.99):.0f} ms"
    note += f"; {each:.2f} transitions an event"
    rows.append(
        Row(f"sustained for {seconds:.0f} s with {segments} segments", sustained.rate * 500,
            "events/s", targets=(at_least(10_000),), note=note)
    )  # fmt: skip
    return rows


async def _transitions(instance: Instance) -> int:
    connection = await asyncpg.connect(instance.state()["postgres"])
    try:
        return int(await connection.fetchval("SELECT count(*) FROM segment_transitions"))
    finally:
        await connection.close()


async def _save(server: Server, segments: int) -> str:
    """Save segments, and the one that is looked at; return its id once owners watch it."""
    rng = random.Random(1)
    rules = {f"segment {n}": _a_rule(rng) for n in range(segments)} | {"probed": _PROBED}
    headers = {"Authorization": f"Bearer {server.key}"}
    url = f"http://127.0.0.1:{server.port}"
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
        for name, rule in rules.items():
            body = {"brand": BRAND, "name": name, "rule": rule}
            answer = await client.post("/v1/segments", json=body)
            answer.raise_for_status()
    await asyncio.sleep(2)  # owners look every quarter of a second
    return str(answer.json()["id"])


def _a_rule(rng: random.Random) -> str:
    return " and ".join(_a_condition(rng) for _ in range(rng.randint(1, 4)))


def _a_condition(rng: random.Random) -> str:
    amount = rng.random() < len(_AMOUNTS) / (len(_AMOUNTS) + len(_COUNTS))
    threshold = rng.choice(_THRESHOLDS) * (1_000 if amount else 1)
    return f"{rng.choice(_AMOUNTS if amount else _COUNTS)} {rng.choice(_SIGNS)} {threshold}"


async def _entries(server: Server, segment: str, seconds: float) -> list[float]:
    """Have a new player enter every now and then; return the latencies of those who were seen."""
    seen: dict[str, float] = {}
    all_seen, count = asyncio.Event(), int(PROBES_PER_S * seconds)

    def told(payload: bytes, at: float) -> None:
        for item in json.loads(payload).get("items", ()):
            seen.setdefault(item["player_id"], at)
        if len(seen) == count:
            all_seen.set()

    (socket,) = await open_live(server, [{"brand": BRAND, "segments": [segment]}], lambda _: told)
    start = time.perf_counter() + 1
    tag = "".join(random.choices(string.ascii_lowercase, k=8))  # digits might look like a card

    players = [f"probe-{tag}-{number}" for number in range(count)]
    sent = {player: start + n / PROBES_PER_S for n, player in enumerate(players)}
    requests = [server.post("/v1/events", _a_probe(player)) for player in players]
    await send_at(server, requests, PROBES_PER_S, PROBE_CONNECTIONS, start)
    with suppress(TimeoutError):
        await asyncio.wait_for(all_seen.wait(), 20)
    socket.leave()
    return [seen[player] - at for player, at in sent.items() if player in seen]


def _a_probe(player: str) -> bytes:
    event = {"event_id": player, "type": "withdrawal.completed", "player_id": player,
             "brand": BRAND, "occurred_at": datetime.now(UTC).isoformat(), "amount": "1.00",
             "currency": "EUR"}  # fmt: skip
    return msgspec.json.encode({"events": [event]})


if __name__ == "__main__":
    main("entries", "Entering a segment, seen on the socket", measure)
