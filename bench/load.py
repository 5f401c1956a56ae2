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


@dataclass(frozen=True)
class Server:
    """Where requests go, and the key that they carry."""

    port: int
    key: str = ""

    def get(self, path: str) -> bytes:
        """Return a ready request."""
        return f"GET {path} HTTP/1.1\r\n{self._headers()}\r\n".encode()

    def post(self, path: str, body: bytes) -> bytes:
        """Return a ready request with a JSON body."""
        headers = f"{self._headers()}Content-Type: application/json\r\n"
        head = f"POST {path} HTTP/1.1\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def _headers(self) -> str:
        return f"Host: bench\r\nAuthorization: Bearer {self.key}\r\n"


async def send_all(server: Server, requests: Sequence[bytes], connections: int) -> Times:
    """Send every request once (a closed loop), each connection as fast as answers come."""
    now = time.perf_counter
    return await _send(server, ((request, None) for request in requests), connections, now())


async def send_at(
    server: Server,
    requests: Sequence[bytes],
    per_s: float,
    connections: int,
    start: float | None = None,
) -> Times:
    """Send requests at their times, `per_s` a second from `start` on (an open loop).

    A latency counts from the time when the request was due, so what waits for a free connection is
    slow, and not left out.
    """
    start = start or time.perf_counter() + 0.1
    due = ((request, start + n / per_s) for n, request in enumerate(requests))
    return await _send(server, due, connections, start)


async def _send(
    server: Server, due: Iterator[tuple[bytes, float | None]], connections: int, start: float
) -> Times:
    times = Times()
    await asyncio.gather(*[_worker(server, due, times) for _ in range(connections)])
    times.wall_s = time.perf_counter() - start
    return times


async def _worker(server: Server, due: Iterator[tuple[bytes, float | None]], times: Times) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    for request, at in due:
        if at is not None and (wait_s := at - time.perf_counter()) > 0:
            await asyncio.sleep(wait_s)
        since = at or time.perf_counter()
        try:
            writer.write(request)
            times.errors += await _answer(reader) != 200
        except (asyncio.IncompleteReadError, ConnectionError):  # HAProxy has just been reloaded
            times.errors += 1
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        times.latencies.append(time.perf_counter() - since)
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
