"""The one reader of a process: follows the stream of transitions and hands it to the hub."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from crm.domain.live import Audience, Page, Position
from crm.services.live import Hub

PAGE = 500  # transitions a batch, so that a message stays small


class Stream(Protocol):
    """Transitions in an order in which nothing comes late."""

    async def head(self) -> Position:
        """Return the position at which a stream that begins now begins; raises DatabaseAway."""

    async def after(self, position: Position, limit: int) -> Page:
        """Return at most `limit` transitions after `position`, in order; raises DatabaseAway."""

    async def changed(self, timeout_s: float) -> None:
        """Return when something is told, or `timeout_s` has passed."""


class Missed(Protocol):
    """Transitions of the past, as one subscriber wants them."""

    async def newest(self) -> Position:
        """Return a position that no cursor can be ahead of; raises DatabaseAway."""

    async def dropped(self) -> Position:
        """Return the place of the last transition that is not kept any more; or DatabaseAway."""

    async def between(
        self, after: Position, upto: Position, audience: Audience, limit: int
    ) -> Page:
        """Return what `audience` wants of the next `limit` transitions.

        Raises CursorTooOld, DatabaseAway.
        """

    async def unknown(self, audience: Audience) -> list[str]:
        """Return the segments that the brand does not have; raises DatabaseAway."""


@dataclass(frozen=True)
class Pace:
    """How soon the reader looks again, in seconds.

    What is held behind an open transaction is looked for soon, and less and less soon. While
    transitions come, and until `recently_s` after, it looks without being told: batches are worth
    it then, and writers tell only once in half of that time.
    """

    busy_s: float = 0.01
    held_s: float = 0.003
    longest_held_s: float = 0.025
    poll_s: float = 1.0
    recently_s: float = 1.0
    lookout_s: float = 0.02


class Reader:
    """Reads only while somebody wants it."""

    def __init__(
        self,
        stream: Stream,
        hub: Hub,
        pace: Pace | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._stream = stream
        self._hub = hub
        self._pace = pace or Pace()
        self._sleep = sleep
        self._held_s = 0.0
        self._busy_until = 0.0

    async def follow(self) -> None:
        """Follow the stream for as long as somebody wants it; raises DatabaseAway.

        Called again after an error it goes on where it was: the hub knows the position.
        """
        await self._hub.needed.wait()
        # writers that told somebody else a moment ago wake nobody now
        self._busy_until = asyncio.get_running_loop().time() + self._pace.recently_s
        if self._hub.position is None:
            self._hub.start(await self._stream.head())
        while self._hub.needed.is_set() and (position := self._hub.position) is not None:
            await self._read(position)
        self._hub.stop()

    async def _read(self, position: Position) -> None:
        page = await self._stream.after(position, PAGE)
        self._hub.publish(page.transitions, page.position)
        now = asyncio.get_running_loop().time()
        if page.transitions:
            self._busy_until = now + self._pace.recently_s
            self._held_s = 0.0
        if page.held:
            self._held_s = min(self._held_s * 2 or self._pace.held_s, self._pace.longest_held_s)
            await self._sleep(self._held_s)
            return
        self._held_s = 0.0
        if page.full:
            await self._sleep(0)  # the senders' turn
        elif page.transitions:
            await self._sleep(self._pace.busy_s)
        else:
            busy = now < self._busy_until
            await self._stream.changed(self._pace.lookout_s if busy else self._pace.poll_s)
