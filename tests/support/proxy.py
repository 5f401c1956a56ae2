"""A proxy before PostgreSQL that lets a COMMIT go wrong, as a network or a stopped process does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qs, urlsplit

_COMMIT = b"COMMIT;\0"  # asyncpg's, as a simple query

# before: the COMMIT never arrives. after: it is done, but its answer is lost.
# stall: it stays on the way until the server ends the session. late: until `release`.
Fault = Literal["none", "before", "after", "stall", "late"]


@dataclass
class Proxy:
    """`faults` are those of the next commits, in order; `dsn` leads through the proxy."""

    server: str
    dsn: str = ""
    faults: list[Fault] = field(default_factory=list)
    stalled: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """Carry one session until either side ends it, or a fault does."""
        from_server, to_server = await self._connect()
        fallen = asyncio.Event()  # from here on the client hears nothing
        returning = asyncio.create_task(_carry_back(from_server, to_client, fallen))
        try:
            while data := await client.read(65_536):
                fault: Fault = self.faults.pop(0) if self.faults and _COMMIT in data else "none"
                if fault == "none":
                    to_server.write(data)
                    continue
                fallen.set()
                if fault == "after":
                    to_server.write(data)
                elif fault == "stall":
                    self.stalled.set()
                elif fault == "late":
                    to_client.transport.abort()
                    await self.release.wait()
                    to_server.write(data)
                if fault != "before":
                    await returning  # for the server's answer, or its end
                return
        except ConnectionError:
            return
        finally:
            returning.cancel()
            for writer in (to_client, to_server):
                writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = urlsplit(self.server)
        folder = parse_qs(parts.query).get("host")
        if folder:
            return await asyncio.open_unix_connection(f"{folder[0]}/.s.PGSQL.5432")
        return await asyncio.open_connection(parts.hostname, parts.port or 5432)


async def _carry_back(
    server: asyncio.StreamReader, to_client: asyncio.StreamWriter, fallen: asyncio.Event
) -> None:
    while data := await server.read(65_536):
        if fallen.is_set():
            return
        to_client.write(data)
    to_client.close()


@asynccontextmanager
async def a_proxy(dsn: str) -> AsyncIterator[Proxy]:
    """A proxy before the server of `dsn`, to the same database."""
    proxy = Proxy(dsn)
    sessions: set[asyncio.Task[None]] = set()

    def accept(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        session = asyncio.create_task(proxy.serve(client, to_client))
        sessions.add(session)
        session.add_done_callback(sessions.discard)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    parts = urlsplit(dsn)
    user = parts.username or "postgres"
    proxy.dsn = f"postgresql://{user}@127.0.0.1:{port}{parts.path}?sslmode=disable"
    try:
        yield proxy
    finally:
        listener.close()
        for session in list(sessions):
            session.cancel()
            with suppress(asyncio.CancelledError):
                await session
