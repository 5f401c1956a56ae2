"""One live socket: who it is, what it wants, and telling it, at its own pace."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TypeVar

import msgspec
import structlog
from starlette.types import Receive, Send

from crm.domain.brands import choose
from crm.domain.errors import CrmError, DatabaseAway
from crm.domain.live import (
    Audience,
    CursorTooOld,
    CursorUnusable,
    Position,
    Wanted,
    from_cursor,
    to_cursor,
    too_old,
)
from crm.services.live import Mailbox
from crm.services.live_reading import PAGE
from crm.services.live_tickets import redeem
from deployments.live import messages
from deployments.live.services import LiveServices

log = structlog.get_logger(__name__)

FRAME = 64 * 1024  # characters of transitions that go into one message, if they wait
MESSAGES_A_MINUTE = 60  # of a client, after its first
_CLOSE_S = 1.0
_first = msgspec.json.Decoder(messages.First)
_ping = msgspec.json.Decoder(messages.Ping)
_Message = TypeVar("_Message")

# close codes; docs/live.md lists them
BAD_MESSAGE, UNAUTHORIZED, REVOKED, TOO_SLOW, TOO_MANY = 4400, 4401, 4403, 4408, 4429
TOO_LARGE, INTERNAL, LATER = 1009, 1011, 1013


class Refused(Exception):
    """Why a socket is closed: a stable code, a sentence, and WebSocket's own number."""

    def __init__(self, code: str, message: str, close: int) -> None:
        super().__init__(code, message, close)
        self.code = code
        self.message = message
        self.close = close


class Gone(Exception):
    """The client has closed the socket, or is not there any more."""


class Socket:
    """One client. `tell` and `listen` run beside each other; the first that ends ends both."""

    def __init__(
        self, services: LiveServices, reads: asyncio.Semaphore, receive: Receive, send: Send
    ) -> None:
        self.key: bytes | None = None
        self.box: Mailbox | None = None
        self.last_sent = self._now()
        self.sending_since: float | None = None
        self._services = services
        self._reads = reads
        self._receive = receive
        self._send_message = send
        self._cursor: Position | None = None
        self._was_live = False
        self._pong: int | None = None
        self._telling: asyncio.Task[None] | None = None
        self._why: Refused | None = None

    # --- the way in -----------------------------------------------------------------------------

    async def open(self) -> None:
        """Accept, and take the first message; raises Refused, Gone, CrmError."""
        if (await self._receive())["type"] != "websocket.connect":
            raise Gone
        await self._send_message({"type": "websocket.accept"})
        try:
            async with asyncio.timeout(self._services.limits.ticket_s):
                first = _decoded(_first, await self._message())
                self.key = await redeem(self._services.tickets, first.ticket)
        except TimeoutError:
            raise Refused("unauthorized", "no ticket came in time", UNAUTHORIZED) from None
        if self.key is None:
            raise Refused(
                "unauthorized", "this ticket is not good (any more): ask for another", UNAUTHORIZED
            )
        self._asked = first

    async def refuse(self) -> None:
        """Turn a client away before it is let in: HTTP 403; raises Gone."""
        await self._receive()
        await self._send_message({"type": "websocket.close", "code": LATER})
        raise Gone

    async def run(self) -> None:
        """Subscribe and tell, until the client goes; raises Refused, Gone, CrmError."""
        box = self.box = await self._subscribed(self._asked)
        hub = self._services.hub
        hub.attach(box)
        try:
            await self._begin(box)
            self._telling = asyncio.create_task(self._tell(box))
            listening = asyncio.create_task(self._listen(box))
            await _first_of(self._telling, listening)
        finally:
            hub.detach(box)
        if self._why is not None:
            raise self._why

    def stop(self, why: Refused) -> None:
        """End the socket from outside, whatever it is doing."""
        self._why = why
        if self._telling is not None:
            self._telling.cancel()

    async def close(self, why: Refused) -> None:
        """Say why, and close; a client that does not read is not waited for."""
        with suppress(TimeoutError, OSError, RuntimeError):
            async with asyncio.timeout(_CLOSE_S):
                await self._send(messages.text(messages.ErrorMessage(why.code, why.message)))
                closing = {"type": "websocket.close", "code": why.close, "reason": why.code}
                await self._send_message(closing)

    async def _subscribed(self, first: messages.First) -> Mailbox:
        """Return the mailbox for what is wanted, if it can be had."""
        asked = first.subscribe
        brand = choose(self._services.brands, asked.brand)
        segments = None if asked.segments == "all" else frozenset(asked.segments)
        audience = Audience(brand.id, segments)
        if segments and (unknown := await self._services.missed.unknown(audience)):
            raise Refused(
                "unknown_segment", f"the brand has no segment {unknown[0]!r}", BAD_MESSAGE
            )
        if first.cursor is not None:
            self._cursor = from_cursor(first.cursor)
            if self._cursor > await self._services.missed.newest():
                raise CursorUnusable("this cursor is of another database, or of its future")
            if self._cursor < await self._services.missed.dropped():
                raise CursorTooOld(too_old())
        return Mailbox(Wanted(audience, asked.counters, asked.jobs, asked.facts))

    async def _begin(self, box: Mailbox) -> None:
        if box.wanted.transitions and self._cursor is None:
            try:
                async with asyncio.timeout(self._services.limits.start_s):
                    self._cursor = await self._services.hub.reached(None)
            except TimeoutError:
                raise DatabaseAway("transitions cannot be read now; try again") from None
        subscribed = messages.Subscribed(
            box.wanted.audience.brand, self._services.limits.heartbeat_s, self._told_up_to(box)
        )
        await self._send(messages.text(subscribed))
        if box.wanted.jobs:
            await self._services.jobs.welcome(box)
        if box.wanted.facts:
            await self._services.facts.begin()

    # --- telling --------------------------------------------------------------------------------

    async def _tell(self, box: Mailbox) -> None:
        while True:
            if box.wanted.transitions and not box.live:
                await self._catch_up(box)
            else:
                await box.ready.wait()
            box.ready.clear()
            await self._send_what_waits(box)

    async def _catch_up(self, box: Mailbox) -> None:
        """Join the stream, or send one page of what is missing until then."""
        hub, cursor = self._services.hub, self._cursor
        if cursor is None:  # never: transitions are wanted, so they began somewhere
            raise CursorUnusable("there is no cursor to begin at")
        if self._was_live:
            self._was_live = False
            await self._send(messages.text(messages.Behind(to_cursor(cursor))))
        stand = await hub.reached(cursor)
        if hub.join(box, cursor):
            self._was_live = True
            await self._send(messages.text(messages.CaughtUp(to_cursor(cursor))))
            return
        async with self._reads:
            page = await self._services.missed.between(cursor, stand, box.wanted.audience, PAGE)
        if page.transitions:
            items = [messages.transition_text(one) for one in page.transitions]
            await self._send(messages.transitions_text(items, page.position))
        self._cursor = page.position

    async def _send_what_waits(self, box: Mailbox) -> None:
        if chunks := box.take(FRAME):
            await self._send(messages.chunks_text(chunks))
            self._cursor = chunks[-1].position
        if not box.empty:
            box.ready.set()
        for job in box.take_jobs():
            await self._send(messages.job_text(job))
        for fact in box.take_facts():
            await self._send(messages.fact_text(fact))
        if counters := box.take_counters():
            await self._send(messages.counters_text(*counters))
        if self._pong is not None:
            pong, self._pong = self._pong, None
            await self._send(messages.text(messages.Pong(pong)))
        if box.take_reminder():
            heartbeat = messages.Heartbeat(self._services.clock(), self._told_up_to(box))
            await self._send(messages.text(heartbeat))

    def _told_up_to(self, box: Mailbox) -> str | None:
        """Return the newest cursor: where nothing waits, it moves with the stream."""
        if box.live and box.empty and self._services.hub.position is not None:
            self._cursor = self._services.hub.position
        return None if self._cursor is None else to_cursor(self._cursor)

    async def _send(self, text: str) -> None:
        self.sending_since = self._now()
        try:
            await self._send_message({"type": "websocket.send", "text": text})
        except OSError:
            raise Gone from None
        self.sending_since = None
        self.last_sent = self._now()

    # --- listening ------------------------------------------------------------------------------

    async def _listen(self, box: Mailbox) -> None:
        began, count = self._now(), 0
        while True:
            self._pong = _decoded(_ping, await self._message()).ping
            box.ready.set()
            count += 1
            if self._now() - began > 60:  # noqa: PLR2004 - a minute
                began, count = self._now(), 0
            if count > MESSAGES_A_MINUTE:
                raise Refused(
                    "rate_limited", f"at most {MESSAGES_A_MINUTE} messages a minute", TOO_MANY
                )

    async def _message(self) -> str:
        """Return the next message of the client; raises Gone, Refused."""
        message = await self._receive()
        if message["type"] != "websocket.receive":
            raise Gone
        text: str | None = message.get("text")
        if text is None:
            raise Refused("invalid_message", "send text messages with JSON", BAD_MESSAGE)
        if len(text) > messages.LONGEST:
            raise Refused(
                "too_large", f"a message has at most {messages.LONGEST:,} characters", TOO_LARGE
            )
        return text

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def refusal(error: Exception) -> Refused:
    """Return what a client is told of an error; an unexpected one is logged, and not told."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, DatabaseAway):
        return Refused(error.code, error.message, LATER)
    if isinstance(error, CrmError):
        return Refused(error.code, error.message, BAD_MESSAGE)
    log.error("live_socket_failed", error=type(error).__name__, exc_info=error)
    return Refused("internal", "something went wrong on our side; it is in our log", INTERNAL)


def _decoded(decoder: msgspec.json.Decoder[_Message], text: str) -> _Message:
    try:
        return decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        reason = str(error) if isinstance(error, msgspec.ValidationError) else "this is no JSON"
        raise Refused("invalid_message", reason, BAD_MESSAGE) from None


async def _first_of(*tasks: asyncio.Task[None]) -> None:
    """Wait for the first task that ends, end the others; raises what the first one raised."""
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        if not task.cancelled():
            task.result()
