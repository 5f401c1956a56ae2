"""Live sockets without a network: a client that speaks ASGI, and a stream that a test writes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from starlette.types import ASGIApp, Message

from crm.adapters.memory_facts import MemoryFacts
from crm.adapters.memory_live import MemoryJobs, MemoryTickets, MemoryTransitions
from crm.domain.live import Job, Position, Transition
from crm.services.live import Hub
from crm.services.live_figures import FactBoard, Figures, JobBoard
from crm.services.live_reading import Reader
from crm.services.live_tickets import issue
from deployments.api.guard import KnownKeys
from deployments.live import messages
from deployments.live.app import Sockets, create_app
from deployments.live.services import Limits, LiveServices
from tests.support.api import KEY, MemoryKeys
from tests.support.builders import NOON, a_brand
from tests.support.clock import Clock


def a_transition(player: str = "p1", **changes: Any) -> Transition:
    """A player who enters segment s1 of brand demo by an event."""
    fields: dict[str, Any] = {
        "position": Position(0, 0), "brand": "demo", "segment": "s1", "version": 1,
        "player_id": player, "entered": True, "shard": 3, "seq": 7, "at": NOON, "made_at": NOON,
    }  # fmt: skip
    return Transition(**(fields | changes))


def a_job(job_id: str = "j1", **changes: Any) -> Job:
    """An import of 100 rows that has just begun."""
    fields: dict[str, Any] = {
        "id": job_id, "kind": "import", "what": "importing bets.csv", "state": "running",
        "done": 0, "total": 100, "unit": "rows", "started_at": NOON, "changed_at": NOON,
    }  # fmt: skip
    return Job(**(fields | changes))


class Client:
    """The client's end of a socket; it may stop reading."""

    def __init__(self) -> None:
        self.reading = asyncio.Event()
        self.reading.set()
        self.received: asyncio.Queue[Message] = asyncio.Queue()
        self._sent: asyncio.Queue[Message] = asyncio.Queue()
        self._sent.put_nowait({"type": "websocket.connect"})
        self.task: asyncio.Task[None] | None = None

    async def receive(self) -> Message:
        """What the application asks for."""
        return await self._sent.get()

    async def send(self, message: Message) -> None:
        """What the application calls: it waits while the client does not read."""
        await self.reading.wait()
        self.received.put_nowait(message)

    def say(self, message: object) -> None:
        """Send JSON, or text as it is."""
        text = message if isinstance(message, str) else json.dumps(message)
        self._sent.put_nowait({"type": "websocket.receive", "text": text})

    def say_bytes(self, data: bytes) -> None:
        """Send a binary message."""
        self._sent.put_nowait({"type": "websocket.receive", "bytes": data})

    def leave(self) -> None:
        """Close the socket."""
        self._sent.put_nowait({"type": "websocket.disconnect", "code": 1000})

    async def next(self) -> dict[str, Any]:
        """The next message; a close is {"type": "close", "code": ...}."""
        async with asyncio.timeout(10):
            message = await self.received.get()
        if message["type"] == "websocket.accept":
            return await self.next()
        if message["type"] == "websocket.close":
            return {"type": "close", "code": message["code"]}
        found: dict[str, Any] = json.loads(message["text"])
        return found

    async def next_of(self, kind: str) -> dict[str, Any]:
        """The next message of a type; others are dropped."""
        while (message := await self.next())["type"] != kind:
            pass
        return message

    async def players(self, count: int) -> list[str]:
        """The players of the next `count` transitions."""
        found: list[str] = []
        while len(found) < count:
            message = await self.next_of("transitions")
            found += [item["player_id"] for item in message["items"]]
        return found


@dataclass
class Live:
    """A live deployment over stores in memory."""

    stream: MemoryTransitions
    jobs: MemoryJobs
    hub: Hub
    services: LiveServices
    sockets: Sockets
    app: ASGIApp
    keys: MemoryKeys
    clock: Clock
    figures: Figures
    board: JobBoard
    facts: MemoryFacts
    fact_board: FactBoard
    clients: list[Client] = field(default_factory=list)

    async def connect(self, **first: Any) -> Client:
        """A client that has sent its first message: with a good ticket, unless one is given."""
        client = self.stranger()
        ticket = (await issue(self.services.tickets, KEY)).ticket
        client.say({"ticket": ticket, "subscribe": {"segments": "all"}} | first)
        return client

    async def subscribed(self, **first: Any) -> Client:
        """A client whose first message was answered."""
        client = await self.connect(**first)
        assert (await client.next())["type"] == "subscribed"
        return client

    async def joined(self, **first: Any) -> Client:
        """A client that gets what is live."""
        client = await self.subscribed(**first)
        assert (await client.next())["type"] == "caught_up"
        return client

    def stranger(self) -> Client:
        """A client that has said nothing yet."""
        client = Client()
        client.task = asyncio.create_task(self.sockets.serve(client.receive, client.send))
        self.clients.append(client)
        return client

    def write(self, *players: str, **changes: Any) -> None:
        """Commit transitions in one transaction."""
        writing = self.stream.begin()
        for player in players:
            self.stream.write(writing, a_transition(player, **changes))
        self.stream.commit(writing)


def in_a_row(client_name: str, count: int, start: int = 0) -> list[str]:
    """Names of players, in order."""
    return [f"{client_name}{number}" for number in range(start, start + count)]


@asynccontextmanager
async def a_live(limits: Limits | None = None) -> AsyncIterator[Live]:
    """A live deployment whose reader follows the stream; nothing else is done by itself."""
    clock = Clock(NOON)
    keys = MemoryKeys(KEY)
    digests = {sha256(KEY.encode()).digest()}
    stream, jobs = MemoryTransitions(), MemoryJobs(clock)
    hub = Hub(messages.transition_text, clock)

    async def players(_brand: str) -> int:
        return 42

    figures = Figures(hub, _Log(), players, messages.counters_body, clock, lambda: clock.seconds)
    board = JobBoard(hub, jobs, lambda: clock.seconds)
    facts = MemoryFacts(clock)
    fact_board = FactBoard(hub, facts)
    services = LiveServices(
        brands={"demo": a_brand(), "other": a_brand(id="other")},
        keys=KnownKeys(keys, lambda: clock.seconds),
        digests=keys,
        tickets=MemoryTickets(clock, lambda key: key in digests),
        hub=hub,
        missed=stream,
        jobs=board,
        facts=fact_board,
        clock=clock,
        limits=limits or Limits(),
    )
    live = Live(
        stream, jobs, hub, services, Sockets(services), create_app(services), keys, clock, figures,
        board, facts, fact_board,
    )  # fmt: skip
    reading = asyncio.create_task(_follow(Reader(stream, hub)))
    try:
        yield live
    finally:
        tasks = [reading, *[client.task for client in live.clients if client.task]]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


class _Log:
    """A log that grows by 100 events a reading."""

    def __init__(self) -> None:
        self._length = 0

    async def length(self) -> int:
        """The number of events."""
        self._length += 100
        return self._length


async def _follow(reader: Reader) -> None:
    while True:
        await reader.follow()
