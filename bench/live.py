"""The live socket: a thousand held, how soon a transition is seen, and a broadcast to all.

    .venv/bin/python bench/live.py [--quick]

An instance of its own; transitions are written as the shard owners write them, by a process of its
own, through PostgreSQL, in a transaction every 10 ms that notifies. Latencies are from `made_at`
(the insert, before its commit) to the client, which reads all sockets in one process on the same
machine. The reference broadcasts the same text to as many sockets from a FastAPI route: without a
database, a front, tickets, or a cursor.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import psutil

from bench.frame import CLONE, Row, Size, at_least, at_most, main
from bench.ingest import wait_until_listening
from bench.load import Server, Times, send_all, send_at
from bench.players import BRAND, a_service, posts, some_events
from bench.sockets import Socket, Told, open_live, open_socket
from tests.support.instance import Instance
from tests.support.ports import free_port

SOCKETS = 1_000
FOLLOWERS = 10  # of all transitions; the others hold their sockets, and get counters
RATES = (1_000, 3_000, 5_000)  # transitions a second
BROADCASTS_PER_S = 5
BATCH = 20  # transitions of one broadcast
API_PER_S = 200


@dataclass
class Seen:
    """Latencies in seconds of what came, by socket."""

    latencies: list[float] = field(default_factory=list)
    lost: int = 0
    offset: float = field(default_factory=lambda: time.time() - time.perf_counter())

    def items(self, payload: bytes, at: float) -> None:
        """Take in a message of the live socket."""
        message = json.loads(payload)
        for item in message.get("items", ()):
            made = datetime.fromisoformat(item["made_at"]).timestamp()
            self.latencies.append(at + self.offset - made)
        self.lost += message.get("lost", 0)

    def last_item(self, payload: bytes, at: float) -> None:
        """Take in a message of which the oldest transition alone is looked at: reading is cheap."""
        found = payload.find(b'"made_at":"')
        if found >= 0:
            made = payload[found + 11 : payload.find(b'"', found + 11)].decode()
            made_s = datetime.fromisoformat(made).timestamp()
            self.latencies.append(at + self.offset - made_s)

    def percentile_ms(self, share: float) -> float:
        """The latency that `share` of all stay below, in milliseconds."""
        return Times(self.latencies).percentile_ms(share)


def measure(size: Size) -> Iterator[Row]:
    """Measure everything; `usual` takes about three minutes."""
    sockets, seconds = (50, 2.0) if size == "quick" else (SOCKETS, 15.0)
    with a_service() as (instance, server):
        yield from asyncio.run(_held(instance, server, sockets, seconds))
        ours = asyncio.run(_broadcast(instance, server, sockets, seconds))
    plain, plain_kb = asyncio.run(_plain(sockets, seconds))
    what = f"one message to {sockets:,} sockets, {BROADCASTS_PER_S} a second"
    for share in (0.5, 0.99):
        yield Row(
            f"{what}: p{share * 100:.0f}", ours.percentile_ms(share), "ms",
            "FastAPI's bare broadcast", plain.percentile_ms(share),
            note="ours from the insert, through PostgreSQL and HAProxy",
        )  # fmt: skip
    expected = int(BROADCASTS_PER_S * seconds) * sockets
    yield Row(f"{what}: came", len(ours.latencies) / expected, "of all", targets=(at_least(1),))
    yield Row("memory a bare socket takes", plain_kb, "kB")


async def _held(instance: Instance, server: Server, count: int, seconds: float) -> list[Row]:
    """Hold sockets, few of which follow everything; what the API does meanwhile."""
    await send_all(server, posts(server, some_events(2_000, 500), 500), 4)
    alone = await _api(server, seconds)
    before_kb = _memory_kb(instance)
    seen, idle = Seen(), Seen()

    def told(number: int) -> Told:
        return seen.items if number < FOLLOWERS else idle.items

    wanted: list[object] = [{"brand": BRAND, "segments": "all"}] * FOLLOWERS
    wanted += [{"brand": BRAND, "segments": [], "counters": True, "jobs": True}] * (
        count - FOLLOWERS
    )
    start = time.perf_counter()
    sockets = await open_live(server, wanted, told)
    opened_s = time.perf_counter() - start
    after_kb = _memory_kb(instance)
    beside = await _api(server, seconds)
    held = sum(socket.closed is None for socket in sockets)
    rows = [
        Row(
            "sockets held", held, "", targets=(at_least(count),), note=f"opened in {opened_s:.1f} s"
        ),
        Row("memory a socket takes in the replica", (after_kb[0] - before_kb[0]) / count, "kB"),
        Row("memory a socket takes in HAProxy", (after_kb[1] - before_kb[1]) / count, "kB"),
        Row(
            f"one player's features beside them, {API_PER_S} req/s: p99",
            beside.percentile_ms(0.99), "ms", "without sockets", alone.percentile_ms(0.99),
            note=f"{beside.errors} errors",
        ),
    ]  # fmt: skip
    for rate in RATES:
        rows += await _followed(instance, rate, seconds, seen)
    rows.append(Row("counters lost by quick readers", idle.lost, "", targets=(at_most(0),)))
    for socket in sockets:
        socket.leave()
    return rows


async def _followed(instance: Instance, rate: int, seconds: float, seen: Seen) -> list[Row]:
    seen.latencies.clear()
    live = psutil.Process(instance.pids("ray::ServeReplica:live")[0])
    cpu = sum(live.cpu_times()[:2])
    written, commit_ms = await _written(instance, rate, rate // 100, 100, seconds)
    await _until(lambda: len(seen.latencies) >= written * FOLLOWERS)
    used = (sum(live.cpu_times()[:2]) - cpu) / seconds
    what = f"{rate:,} transitions/s to {FOLLOWERS} of them"
    note = (
        f"p50 {seen.percentile_ms(0.5):.0f} ms; the writer's own transactions, p99"
        f" {commit_ms:.0f} ms; {used:.2f} cores of the replica"
    )
    came = len(seen.latencies) / (written * FOLLOWERS)
    return [
        Row(f"{what}: insert to client, p99", seen.percentile_ms(0.99), "ms",
            targets=(at_most(50),), note=note),
        Row(f"{what}: came", came, "of all", targets=(at_least(1), at_most(1))),
    ]  # fmt: skip


async def _broadcast(instance: Instance, server: Server, count: int, seconds: float) -> Seen:
    """A few transitions at a time, to all."""
    seen = Seen()
    sockets = await open_live(
        server, [{"brand": BRAND, "segments": "all"}] * count, lambda _: seen.last_item
    )
    await asyncio.sleep(1)
    seen.latencies.clear()
    await _written(instance, BROADCASTS_PER_S * BATCH, BATCH, BROADCASTS_PER_S, seconds)
    await _until(lambda: len(seen.latencies) >= BROADCASTS_PER_S * seconds * count)
    for socket in sockets:
        socket.leave()
    return seen


async def _plain(count: int, seconds: float) -> tuple[Seen, float]:
    seen = Seen()
    with _a_plain_service() as (port, pid):
        before = psutil.Process(pid).memory_info().rss
        sockets: list[Socket] = [
            await open_socket(port, "/live", seen.last_item) for _ in range(count)
        ]
        memory_kb = (psutil.Process(pid).memory_info().rss - before) / 1024 / count
        server = Server(port)
        for number in range(int(BROADCASTS_PER_S * seconds)):
            due = time.perf_counter() + 1 / BROADCASTS_PER_S
            await send_all(server, [server.post("/broadcast", _a_message(number))], 1)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
        await _until(lambda: len(seen.latencies) >= int(BROADCASTS_PER_S * seconds) * count)
        for socket in sockets:
            socket.leave()
    return seen, memory_kb


def _a_message(number: int) -> bytes:
    """The same text as ours."""
    now = datetime.now(UTC).isoformat()
    item = {
        "segment": "s1", "version": 1, "player_id": f"player-{number}", "change": "entered",
        "shard": 3, "seq": number, "at": now, "made_at": now,
    }  # fmt: skip
    message = {"type": "transitions", "cursor": "2f1-0", "items": [item] * BATCH}
    return json.dumps(message, separators=(",", ":")).encode()


@contextmanager
def _a_plain_service() -> Iterator[tuple[int, int]]:
    port = free_port()
    command = [sys.executable, str(CLONE / "bench" / "plain_sockets.py"), str(port)]
    server = subprocess.Popen(command)
    try:
        wait_until_listening(port, server)
        yield port, server.pid
    finally:
        server.terminate()
        server.wait()


async def _written(
    instance: Instance, rate: int, batch: int, per_s: int, seconds: float
) -> tuple[int, float]:
    """Write from another process; returns how many, and a transaction's p99 in ms."""
    command = [sys.executable, str(CLONE / "bench" / "transitions.py")]
    writer = await asyncio.create_subprocess_exec(
        *command, instance.state()["postgres"], str(batch), str(per_s), str(seconds),
        stdout=asyncio.subprocess.PIPE, cwd=CLONE,
    )  # fmt: skip
    said, _ = await writer.communicate()
    written, commit_ms = int(said.split()[0]), float(said.split()[1])
    if written < 0.95 * rate * seconds:
        sys.stderr.write(f"only {written / seconds:,.0f} transitions/s were written\n")
    return written, commit_ms


async def _until(condition: Callable[[], bool], most_s: float = 20) -> None:
    end = time.perf_counter() + most_s
    while not condition() and time.perf_counter() < end:  # noqa: ASYNC110 - sockets make it true
        await asyncio.sleep(0.05)


async def _api(server: Server, seconds: float) -> Times:
    request = server.get("/v1/players/player-1/features?brand=demo")
    await send_all(server, [request] * 100, 4)
    return await send_at(server, [request] * int(API_PER_S * seconds / 3), API_PER_S, 16)


def _memory_kb(instance: Instance) -> tuple[float, float]:
    """What the live replica takes, and all of HAProxy."""
    replica = instance.pids("ray::ServeReplica:live")
    pids = (replica, instance.front_pids())
    found = [sum(psutil.Process(pid).memory_info().rss for pid in some) / 1024 for some in pids]
    return found[0], found[1]


if __name__ == "__main__":
    main("live", "The live socket", measure)
