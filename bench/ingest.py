"""Durable ingest over HTTP, beside COPY into the same tables and beside one insert a request.

    .venv/bin/python bench/ingest.py [--seconds 10]

Starts an instance of its own on embedded parts and free ports. Every figure is of this run, on this
machine; the client runs on it too. A request is answered when its events are durable.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import msgspec
from load import Times, post_all
from rich.console import Console
from rich.table import Table

from crm.adapters.postgres.events import EVENT_COLUMNS, ID_COLUMNS, event_record
from crm.adapters.vault import open_vault, own_key_file
from crm.domain.events import Door, IncomingEvent, LoggedEvent

CLONE = Path(__file__).resolve().parents[1]
SIZES = ((1, 64), (100, 16), (500, 8), (1000, 8))  # events a request, connections
PLAYERS = 20_000
WARM_UP = 20


def some_events(count: int) -> list[dict[str, object]]:
    """Bets and deposits of many players in the last minutes, with ids never used before."""
    tag, now = secrets.token_hex(4), datetime.now(UTC)
    return [
        {
            "event_id": f"{tag}-{n}",
            "type": "deposit.completed" if n % 20 == 0 else "bet.placed",
            "player_id": f"player-{n * 7919 % PLAYERS}",
            "brand": "demo",
            "occurred_at": (now - timedelta(milliseconds=n % 60_000)).isoformat(),
            "amount": f"{n % 500}.{n % 100:02d}",
            "currency": "EUR",
            "properties": {"bet_id": f"b{n}", "product": "casino", "game": "starburst"},
        }
        for n in range(count)
    ]


def bodies_of(events: list[dict[str, object]], size: int) -> list[bytes]:
    """Request bodies of `size` events each."""
    parts = [events[start : start + size] for start in range(0, len(events), size)]
    return [msgspec.json.encode({"events": part}) for part in parts]


@contextmanager
def a_service() -> Iterator[tuple[int, str, str, Path]]:
    """An instance of its own: yields port, key, DSN and folder."""
    folder = Path(tempfile.mkdtemp(prefix="crm-bench-"))
    environment = os.environ | {
        "CRM_VAR_DIR": str(folder),
        "CRM_API__PORT": "0",
        "CRM_RAY__DASHBOARD_PORT": "0",
        "CRM_DEMO__ENABLED": "false",
    }
    crm = [sys.executable, "-m", "cluster.cli"]
    try:
        subprocess.run([*crm, "up"], env=environment, cwd=CLONE, check=True)
        state = json.loads((folder / "run" / "state.json").read_text())
        key = (folder / "bootstrap-key").read_text().strip()
        yield int(state["url"].rpartition(":")[2]), key, state["postgres"], folder
    finally:
        subprocess.run([*crm, "down"], env=environment, cwd=CLONE, check=False)
        shutil.rmtree(folder, ignore_errors=True)


async def http(port: int, key: str, size: int, connections: int, seconds: float) -> Times:
    """Post for about `seconds`, after a warm-up that also says how much that is."""
    warm = await post_all(port, "/v1/events", key, bodies_of(some_events(size * WARM_UP), size), 4)
    rate = WARM_UP / warm.wall_s * (4 if size == 1 else 1.2)
    bodies = bodies_of(some_events(size * max(int(rate * seconds), 2 * connections)), size)
    return await post_all(port, "/v1/events", key, bodies, connections)


async def copy(dsn: str, folder: Path, rows: int, seconds: float) -> float:
    """Rows a second of COPY into the log's own tables, `rows` a transaction, two writers."""
    prepared = _logged(folder, rows * 40)

    async def write() -> int:
        connection, logged = await asyncpg.connect(dsn), deepcopy(prepared)
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


def _logged(folder: Path, count: int) -> list[LoggedEvent]:
    from configs.brands import load_brands

    door = Door(load_brands(CLONE / "configs" / "brands"), open_vault(own_key_file(folder)))
    now = datetime.now(UTC)
    return [
        door.accept(msgspec.convert(event, IncomingEvent, strict=False), now)
        for event in some_events(count)
    ]


@contextmanager
def a_plain_service(dsn: str) -> Iterator[int]:
    """FastAPI with one committed insert an event, as most would write it: yields the port."""
    from tests.support.ports import free_port

    port = free_port()
    server = subprocess.Popen(
        [sys.executable, str(CLONE / "bench" / "plain_service.py"), str(port)],
        env=os.environ | {"DSN": dsn},
    )
    try:
        while not _listens(port):
            time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


async def measure(port: int, key: str, dsn: str, folder: Path, seconds: float) -> None:
    """Run everything, and print the table."""
    await post_all(port, "/v1/events", key, bodies_of(some_events(500), 500), 1)  # partitions
    copied = await copy(dsn, folder, 500, seconds)
    with a_plain_service(dsn) as plain_port:
        plain = await post_all(
            plain_port, "/events", "", bodies_of(some_events(int(400 * seconds)), 1), 64
        )
    plain_rate = plain.rate
    table = Table("events a request", "connections", "events/s", "requests/s", "p50 ms", "p95 ms",
                  "p99 ms", "of COPY", "x one insert", "errors")  # fmt: skip
    for size, connections in SIZES:
        times = await http(port, key, size, connections, seconds)
        requests = times.rate
        row = [size, connections, f"{requests * size:,.0f}", f"{requests:,.0f}"]
        row += [f"{times.percentile_ms(share):.0f}" for share in (0.5, 0.95, 0.99)]
        row += [f"{requests * size / copied:.2f}", f"{requests * size / plain_rate:.1f}"]
        table.add_row(*map(str, [*row, times.errors]))
    console = Console(width=120)
    console.print(f"COPY, 500 rows a transaction, 2 writers: {copied:,.0f} rows/s")
    console.print(f"FastAPI, one committed insert a request: {plain_rate:,.0f} events/s")
    console.print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    seconds = parser.parse_args().seconds
    with a_service() as (port, key, dsn, folder):
        asyncio.run(measure(port, key, dsn, folder, seconds))


if __name__ == "__main__":
    main()
