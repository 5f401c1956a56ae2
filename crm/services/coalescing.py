"""Coalescing: many concurrent callers, few calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Coalescer(Generic[Item, Result]):
    """Sends what concurrent callers submit in as few calls as possible.

    One call is under way at a time; up to `in_flight` are when as much as `worth` items wait: few
    items gather into one call, many do not wait for it. `send` returns one result an item, in
    order; where it raises, every caller in that call gets it.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        most: int,
        in_flight: int,
        worth: int,
    ) -> None:
        self._send = send
        self._most = most
        self._in_flight = in_flight
        self._worth = worth
        self._waiting: list[tuple[Sequence[Item], asyncio.Future[Sequence[Result]]]] = []
        self._items = 0
        self._calls: set[asyncio.Task[None]] = set()

    async def submit(self, items: Sequence[Item]) -> Sequence[Result]:
        """Return the result of each item."""
        done: asyncio.Future[Sequence[Result]] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, done))
        self._items += len(items)
        self._start_calls()
        return await done

    def _start_calls(self) -> None:
        while self._waiting and self._may_call():
            batch = self._next_batch()
            call = asyncio.create_task(self._call(batch))
            self._calls.add(call)
            call.add_done_callback(self._finished)

    def _may_call(self) -> bool:
        under_way = len(self._calls)
        return not under_way or (under_way < self._in_flight and self._items >= self._worth)

    def _finished(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._start_calls()

    def _next_batch(self) -> list[tuple[Sequence[Item], asyncio.Future[Sequence[Result]]]]:
        size = taken = 0
        while taken < len(self._waiting) and (
            not taken or size + len(self._waiting[taken][0]) <= self._most
        ):
            size += len(self._waiting[taken][0])
            taken += 1
        batch, self._waiting = self._waiting[:taken], self._waiting[taken:]
        self._items -= size
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
