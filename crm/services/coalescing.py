"""Coalescing: many concurrent callers, few calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Coalescer(Generic[Item, Result]):
    """Sends what concurrent callers submit in as few calls as `in_flight` at once allows.

    `send` returns one result an item, in order; where it raises, every caller in that call gets it.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        most: int,
        in_flight: int,
    ) -> None:
        self._send = send
        self._most = most
        self._free = in_flight
        self._waiting: list[tuple[Sequence[Item], asyncio.Future[Sequence[Result]]]] = []
        self._calls: set[asyncio.Task[None]] = set()

    async def submit(self, items: Sequence[Item]) -> Sequence[Result]:
        """Return the result of each item."""
        done: asyncio.Future[Sequence[Result]] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, done))
        self._start_calls()
        return await done

    def _start_calls(self) -> None:
        while self._free and self._waiting:
            batch = self._next_batch()
            self._free -= 1
            call = asyncio.create_task(self._call(batch))
            self._calls.add(call)
            call.add_done_callback(self._finished)

    def _finished(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._free += 1
        self._start_calls()

    def _next_batch(self) -> list[tuple[Sequence[Item], asyncio.Future[Sequence[Result]]]]:
        size = taken = 0
        while taken < len(self._waiting) and (
            not taken or size + len(self._waiting[taken][0]) <= self._most
        ):
            size += len(self._waiting[taken][0])
            taken += 1
        batch, self._waiting = self._waiting[:taken], self._waiting[taken:]
        return batch

    async def _call(
        self, batch: list[tuple[Sequence[Item], asyncio.Future[Sequence[Result]]]]
    ) -> None:
        try:
            results = await self._send([item for items, _ in batch for item in items])
        except Exception as error:  # noqa: BLE001 - handed on to every caller
            for _, done in batch:
                if not done.done():
                    done.set_exception(error)
            return
        start = 0
        for items, done in batch:
            if not done.done():
                done.set_result(results[start : start + len(items)])
            start += len(items)
