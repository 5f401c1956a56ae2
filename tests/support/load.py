"""A seeded load through the HTTP door, and the history that its clients write of it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import monotonic

import httpx

from tests.support.balance import Sent
from tests.support.mix import Body, Mix, sent
from tests.support.wait import wait_for_async

LONG_S = 120  # a deadline, not a measure: the machine may be busy


@dataclass
class History:
    """What clients did and were told, in order: invoke, then ok, fail (nothing was done), unknown.

    With a `file`, each is a line of JSON there, written as it happens: what, client, ids, why, and
    when in seconds since some moment.
    """

    file: Path | None = None
    attempted: int = 0
    acknowledged: dict[str, Sent] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)  # a status, or the name of an error
    repeats: int = 0  # duplicates in a first answer: somebody behind the client has sent it again

    def invoke(self, client: int, events: Sequence[Body]) -> None:
        """A request leaves."""
        self.attempted += len(events)
        self.unknown.update({event["event_id"] for event in events} - self.acknowledged.keys())
        self._write("invoke", client, events)

    def ok(self, client: int, events: Sequence[Body]) -> None:
        """All its events are acknowledged."""
        self.answers["200"] += 1
        for event in events:
            self.acknowledged[event["event_id"]] = sent(event)
        self.unknown.difference_update(event["event_id"] for event in events)
        self._write("ok", client, events)

    def failed(self, client: int, events: Sequence[Body], why: str) -> None:
        """It has got another answer, or none."""
        self.answers[why] += 1
        self._write("fail" if why == "ConnectError" else "unknown", client, events, why)

    def _write(self, what: str, client: int, events: Iterable[Body], why: str = "") -> None:
        if self.file is not None:
            ids = [event["event_id"] for event in events]
            with self.file.open("a") as out:
                out.write(json.dumps([what, client, ids, why, round(monotonic(), 3)]) + "\n")


@dataclass(frozen=True)
class Pace:
    """How many clients send how many events at a time, `pause_s` after the answer before.

    The share `repeated` is sent once more though it was acknowledged, as impatient clients do.
    """

    clients: int = 4
    size: int = 25
    pause_s: float = 0.1
    repeated: float = 0.1
    patience_s: float = LONG_S  # for one batch, however often it is tried


class Load:
    """Clients that send batches, again after any error, and read what they have written."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        mix: Mix,
        pace: Pace | None = None,
        history: History | None = None,
    ) -> None:
        self.client = client
        self.mix = mix
        self.pace = pace or Pace()
        self.history = history or History()
        self.stale_reads = 0
        self._taken: Counter[str] = Counter()  # acknowledged events by player
        self._faults = 0
        self._last_error = "none"
        self._recovered: set[int] = set()  # clients answered since the latest fault
        self._stop = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        """Send in the background for the length of a block; what was begun is sent to its end."""
        self._stop.clear()
        async with asyncio.TaskGroup() as clients:
            for number in range(self.pace.clients):
                clients.create_task(self._run(number))
            try:
                await self.progress()
                yield self
                await self.progress()
            finally:
                self._stop.set()

    async def send(self, requests: int) -> None:
        """Send so many requests, one after the other."""
        for _ in range(requests):
            await self.deliver(self.mix.batch(self.pace.size))

    async def progress(self, requests: int = 0) -> None:
        """Wait until every client, and so many requests from now on, have got their answer."""
        goal = self.history.answers["200"] + requests

        async def reached() -> bool:
            return self.history.answers["200"] >= goal

        await self.recovery()
        await wait_for_async(reached, "requests are answered", deadline_s=self.pace.patience_s)

    async def recovery(self) -> float:
        """Wait as progress does; returns how long it took, in seconds."""
        self._faults += 1
        self._recovered.clear()
        began = asyncio.get_running_loop().time()

        async def all_answered() -> bool:
            return len(self._recovered) == self.pace.clients

        await wait_for_async(
            all_answered, "every client is answered", deadline_s=self.pace.patience_s
        )
        return asyncio.get_running_loop().time() - began

    async def _run(self, number: int) -> None:
        while not self._stop.is_set():
            batch = self.mix.batch(self.pace.size)
            await self.deliver(batch, number)
            if self.mix.rng.random() < self.pace.repeated:
                await self.deliver(batch, number, new=False)
            await self.read(batch[0]["player_id"])
            with suppress(TimeoutError):
                async with asyncio.timeout(self.pace.pause_s):
                    await self._stop.wait()

    async def deliver(self, events: Sequence[Body], number: int = 0, *, new: bool = True) -> None:
        """Send a batch until it is acknowledged."""
        tries = 0

        async def acknowledged() -> bool:
            nonlocal tries
            tries += 1
            return await self.post(events, number, first=new and tries == 1)

        try:
            await wait_for_async(
                acknowledged, "a batch is taken", deadline_s=self.pace.patience_s, every_s=0.1
            )
        except AssertionError as missed:
            raise AssertionError(f"{missed}; the last answer: {self._last_error}") from missed
        if new:
            self._taken.update(event["player_id"] for event in events)

    async def post(self, events: Sequence[Body], number: int = 0, *, first: bool = False) -> bool:
        """Send a batch once; returns whether it is acknowledged."""
        fault = self._faults
        self.history.invoke(number, events)
        try:
            answer = await self.client.post("/v1/events", json={"events": events})
        except httpx.HTTPError as error:
            self.history.failed(number, events, type(error).__name__)
            return False
        if answer.status_code != httpx.codes.OK:
            self.history.failed(number, events, _status(answer))
            self._last_error = answer.text
            assert answer.status_code >= 500, answer.text
            return False
        told = answer.json()
        assert told["rejected"] == [], told
        assert told["accepted"] + told["duplicates"] == len(events), told
        self.history.ok(number, events)
        self.history.repeats += told["duplicates"] if first else 0
        if fault == self._faults:
            self._recovered.add(number)
        return True

    async def read(self, player: str) -> None:
        """Read a player: every event that was acknowledged before must count."""
        known = self._taken[player]
        try:
            answer = await self.client.get(f"/v1/players/{player}/features?brand=demo")
        except httpx.HTTPError:
            return
        if answer.status_code == httpx.codes.OK:
            self.stale_reads += answer.json()["features"]["event_count_lifetime"] < known


def _status(answer: httpx.Response) -> str:
    unasked = answer.status_code == 503 and "retry-after" not in answer.headers
    return f"{answer.status_code}{' without Retry-After' if unasked else ''}"


class LossyTransport(httpx.AsyncBaseTransport):
    """Carries every request to its end, and loses some of the answers."""

    def __init__(self, whole: httpx.AsyncBaseTransport, rng: Random, share: float) -> None:
        self._whole = whole
        self._rng = rng
        self._share = share

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the answer, or raise ReadError though there is one."""
        answer = await self._whole.handle_async_request(request)
        if self._rng.random() < self._share:
            await answer.aclose()
            raise httpx.ReadError("the answer was lost on its way")
        return answer


@asynccontextmanager
async def losing_answers(
    client: httpx.AsyncClient, rng: Random, share: float
) -> AsyncIterator[None]:
    """Lose that share of the answers to `client` for the length of a block."""
    whole = client._transport
    client._transport = LossyTransport(whole, rng, share)
    try:
        yield
    finally:
        client._transport = whole


async def tried_again(do: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """The first answer that is no server's error."""

    async def answered() -> httpx.Response | None:
        try:
            answer = await do()
        except httpx.HTTPError:
            return None
        return answer if answer.status_code < 500 else None

    answer = await wait_for_async(answered, "a request is answered", deadline_s=LONG_S)
    assert answer is not None
    return answer
