"""What callers want stored: it waits here, and is taken many callers at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from crm.domain.appending import Group, Verdict
from crm.domain.errors import CrmError


@dataclass(frozen=True)
class Waiting:
    """One caller's groups, and its answer."""

    groups: Sequence[Group]
    size: int
    done: asyncio.Future[list[list[Verdict]]]


class Batch:
    """Some callers' groups, in the order in which they came."""

    def __init__(self, items: Sequence[Waiting]) -> None:
        self._items = items
        self.groups = [group for item in items for group in item.groups]

    def answer(self, verdicts: list[list[Verdict]]) -> None:
        """Give every caller that still waits the verdicts of its groups."""
        start = 0
        for item in self._items:
            if not item.done.done():
                item.done.set_result(verdicts[start : start + len(item.groups)])
            start += len(item.groups)

    def fail(self, error: CrmError) -> None:
        """Give every caller that still waits the error."""
        for item in self._items:
            if not item.done.done():
                item.done.set_exception(error)


class WriteQueue:
    """A queue of callers; `events` is how many events wait."""

    def __init__(self) -> None:
        self._items: list[Waiting] = []
        self.events = 0
        self._wanted = asyncio.Event()

    async def put(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        """Wait for the verdicts of `groups`."""
        done = asyncio.get_running_loop().create_future()
        item = Waiting(groups, sum(map(len, groups)), done)
        self._items.append(item)
        self.events += item.size
        self._wanted.set()
        return await item.done

    def wake(self) -> None:
        """Have the next batch taken, though nobody may wait."""
        self._wanted.set()

    async def take(self, most: int) -> Batch:
        """Return who waits once somebody does: up to `most` events, but one caller at least."""
        await self._wanted.wait()
        size = taken = 0
        while taken < len(self._items) and (not taken or size + self._items[taken].size <= most):
            size += self._items[taken].size
            taken += 1
        batch, self._items = self._items[:taken], self._items[taken:]
        self.events -= size
        if not self._items:
            self._wanted.clear()
        return Batch(batch)
