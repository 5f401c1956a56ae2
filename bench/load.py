"""A small HTTP client for load: keep-alive connections, ready-made requests, times of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field


@dataclass
class Times:
    """Latencies in seconds, and how long the whole took."""

    latencies: list[float] = field(default_factory=list)
    errors: int = 0
    wall_s: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second, without the errors."""
        return (len(self.latencies) - self.errors) / self.wall_s

    def percentile_ms(self, share: float) -> float:
        """The latency that `share` of the requests stay below, in milliseconds."""
        ordered = sorted(self.latencies)
        return 1000 * ordered[min(int(share * len(ordered)), len(ordered) - 1)]


async def post_all(
    port: int, path: str, key: str, bodies: Sequence[bytes], connections: int
) -> Times:
    """Post every body once, over `connections` connections, each as fast as answers come."""
    times, queue = Times(), iter(bodies)
    start = time.perf_counter()
    await asyncio.gather(*[_worker(port, path, key, queue, times) for _ in range(connections)])
    times.wall_s = time.perf_counter() - start
    return times


async def _worker(port: int, path: str, key: str, bodies: Iterator[bytes], times: Times) -> None:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n"
        "Content-Type: application/json\r\n"
    ).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for body in bodies:
        sent = time.perf_counter()
        try:
            writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            times.errors += await _answer(reader) != 200
        except (asyncio.IncompleteReadError, ConnectionError):  # HAProxy has just been reloaded
            times.errors += 1
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        times.latencies.append(time.perf_counter() - sent)
    writer.close()


async def _answer(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b"content-length:" in head:
        await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
    elif b"chunked" in head:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(size + 2)
        await reader.readexactly(2)
    return int(head.split()[1])
