"""Durable ingest over HTTP, beside COPY into the same tables, one insert a request, and itself.

    .venv/bin/python bench/ingest.py [--quick]

Starts an instance of its own on embedded parts and free ports. A request is answered when its
events are durable. "Without coalescing" is the same service with `shards.coalesce: false`.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, datetime

import asyncpg
import msgspec

from bench.frame import CLONE, Row, Size, at_least, at_most, main, times_at_least
from bench.load import Server, Times, send_all, send_at
from bench.players import a_service, posts, some_events
from configs.brands import load_brands
from crm.adapters.postgres.events import EVENT_COLUMNS, ID_COLUMNS, event_record
from crm.adapters.vault import open_vault, own_key_file
from crm.domain.events import Door, IncomingEvent, LoggedEvent
from tests.support.instance import Instance
from tests.support.ports import free_port

SIZES = ((100, 16), (500, 8), (1000, 8))  # events a request, connections
ACKNOWLEDGED = 500
SINGLE_CONNECTIONS = 64
WARM_UP = 20
SUSTAINED_PER_S = 10_200  # offered: a little above the target, which is what must come through
OLDEST_S = 60.0  # two rounds of the lake's writer: what it keeps up with is never older
_WITHOUT = {"CRM_SHARDS__COALESCE": "false"}
_NOT_IN_LAKE = """
SELECT extract(epoch FROM now() - min(e.received_at))::float8
FROM lake_shards l JOIN user_transactions e ON e.shard = l.shard AND e.seq > l.seq
"""


def measure(size: Size) -> Iterator[Row]:
    """Measure everything; `usual` takes about four minutes."""
    seconds, sustained_s = (1.0, 2.0) if size == "quick" else (10.0, 60.0)
    with a_service() as (instance, server):
        asyncio.run(closed(server, 500, 1, 0.5))  # makes the partitions
        copied = asyncio.run(_copy(instance, ACKNOWLEDGED, seconds))
        plain = asyncio.run(_plain(instance, seconds))
        for events, connections in SIZES:
            times = asyncio.run(closed(server, events, connections, seconds))
            yield from _acknowledged(events, connections, times, copied, plain)
        single = asyncio.run(closed(server, 1, SINGLE_CONNECTIONS, seconds))
        sustained = list(asyncio.run(_sustained(instance, server, sustained_s)))
    with a_service(**_WITHOUT) as (_, server):
        asyncio.run(closed(server, 500, 1, 0.5))
        without = asyncio.run(closed(server, 1, SINGLE_CONNECTIONS, seconds))
    yield from _single(single, without, plain)
    yield from sustained


def _acknowledged(
    events: int, connections: int, times: Times, copied: float, plain: Times
) -> Iterator[Row]:
    what, rate = f"{events} events a request, {connections} connections", times.rate * events
    main_row = events == ACKNOWLEDGED
    targets = (at_least(25_000), times_at_least(0.35)) if main_row else ()
    note = _percentiles(times)
    yield Row(what, rate, "events/s", "COPY, same tables", copied, targets, note)
    if main_row:
        plain_name = "FastAPI, one insert an event"
        yield Row(what, rate, "events/s", plain_name, plain.rate, (times_at_least(10),))
        yield Row(f"{what}: p99", times.percentile_ms(0.99), "ms", targets=(at_most(300),))


def _single(single: Times, without: Times, plain: Times) -> Iterator[Row]:
    what = f"1 event a request, {SINGLE_CONNECTIONS} connections"
    note = f"{_percentiles(single)}; without coalescing {_percentiles(without)}"
    yield Row(
        what, single.rate, "req/s", "without coalescing", without.rate,
        (at_least(1_500), times_at_least(4)), note,
    )  # fmt: skip
    yield Row(what, single.rate, "req/s", "FastAPI, one insert an event", plain.rate)


def _percentiles(times: Times) -> str:
    found = [f"p{share * 100:.0f} {times.percentile_ms(share):.0f} ms" for share in (0.5, 0.99)]
    return ", ".join(found) + (f", {times.errors} errors" if times.errors else "")


async def closed(server: Server, size: int, connections: int, seconds: float) -> Times:
    """Post for about `seconds`, after a warm-up that also says how much that is."""
    warm_up = posts(server, some_events(size * WARM_UP), size)
    warm = await send_all(server, warm_up, 4)
    rate = WARM_UP / warm.wall_s * (4 if size == 1 else 1.2)
    events = some_events(size * max(int(rate * seconds), 2 * connections))
    return await send_all(server, posts(server, events, size), connections)


async def _sustained(instance: Instance, server: Server, seconds: float) -> Iterator[Row]:
    """Offer so much a second, whatever comes back, with all that follows the log running."""
    events = some_events(int(SUSTAINED_PER_S * seconds))
    per_s = SUSTAINED_PER_S / ACKNOWLEDGED
    times = await send_at(server, posts(server, events, ACKNOWLEDGED), per_s, 32)
    connection = await asyncpg.connect(instance.state()["postgres"])
    oldest_s = await connection.fetchval(_NOT_IN_LAKE) or 0.0
    await connection.close()
    what = f"sustained for {seconds:.0f} s, {ACKNOWLEDGED} a request"
    rate = times.rate * ACKNOWLEDGED
    note = f"{SUSTAINED_PER_S:,} offered; {_percentiles(times)}"
    return iter(
        (
            Row(what, rate, "events/s", targets=(at_least(10_000),), note=note),
            Row(
                f"{what}: oldest event not in the lake", oldest_s, "s",
                targets=(at_most(OLDEST_S),), note="its writer comes round every 30 s",
            ),
        )
    )  # fmt: skip


async def _copy(instance: Instance, rows: int, seconds: float) -> float:
    """Rows a second of COPY into the log's own tables, `rows` a transaction, two writers."""
    prepared = _logged(instance, rows * 40)

    async def write() -> int:
        connection = await asyncpg.connect(instance.state()["postgres"])
        logged = deepcopy(prepared)
        done, seq, end = 0, 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            tag = secrets.token_hex(4)
            part = logged[done % len(logged) : done % len(logged) + rows]
            for number, event in enumerate(part):
                event.event_id = f"{tag}-{number}"
            seq += rows
            async with connection.transaction():
                ids = sorted((e.brand, e.event_id, e.shard, -seq, e.fingerprint) for e in part)
                await connection.copy_records_to_table("event_ids", records=ids, columns=ID_COLUMNS)
                records = [event_record(event, -seq) for event in part]
                await connection.copy_records_to_table(
                    "user_transactions", records=records, columns=EVENT_COLUMNS
                )
            done += rows
        await connection.close()
        return done

    start = time.perf_counter()
    total = sum(await asyncio.gather(write(), write()))
    return total / (time.perf_counter() - start)


def _logged(instance: Instance, count: int) -> list[LoggedEvent]:
    brands = load_brands(CLONE / "configs" / "brands")
    door = Door(brands, open_vault(own_key_file(instance.var_dir)))
    now = datetime.now(UTC)
    return [
        door.accept(msgspec.convert(event, IncomingEvent, strict=False), now)
        for event in some_events(count)
    ]


async def _plain(instance: Instance, seconds: float) -> Times:
    with _a_plain_service(instance.state()["postgres"]) as port:
        server = Server(port)
        requests = posts(server, some_events(int(400 * seconds)), 1, "/events")
        return await send_all(server, requests, SINGLE_CONNECTIONS)


@contextmanager
def _a_plain_service(dsn: str) -> Iterator[int]:
    """FastAPI with one committed insert an event, as most would write it: yields the port."""
    port = free_port()
    command = [sys.executable, str(CLONE / "bench" / "plain_service.py"), str(port)]
    server = subprocess.Popen(command, env=os.environ | {"DSN": dsn})
    try:
        wait_until_listening(port, server)
        yield port
    finally:
        server.terminate()
        server.wait()


def wait_until_listening(port: int, server: subprocess.Popen[bytes], most_s: float = 60) -> None:
    """Return when something listens; raises SystemExit if the server ends, or takes too long."""
    end = time.perf_counter() + most_s
    while True:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        if server.poll() is not None or time.perf_counter() > end:
            raise SystemExit(f"nothing listens on {port}: {server.args!r}")
        time.sleep(0.1)


if __name__ == "__main__":
    main("ingest", "Durable ingest over HTTP", measure)
