"""Transitions of the past: into the lake first, and then, piece by piece, out of the database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from crm.domain.live import Position, Transition
from crm.domain.transition_files import TransitionFile

A_FILE = 25_000  # transitions, 25 MB on their way
AT_ONCE = 5_000  # dropped in a transaction: some 50 ms
PAUSE_S = 0.05  # between two
CLOCKS_KEPT = timedelta(days=1)  # of owners that are gone
STRAYS_KEPT = timedelta(hours=1)  # somebody may be about to list them


class OldTransitions(Protocol):
    """The beginning of the stream of transitions; every call may raise DatabaseAway."""

    async def in_lake(self) -> Position:
        """Return the place up to which the lake holds all."""

    async def lacking(self, after: Position, before: datetime, limit: int) -> Sequence[Transition]:
        """Return the next transitions after a place, in order, up to the first made since."""

    async def add(self, file: TransitionFile) -> bool:
        """List a file of the lake, if it begins where the lake ends."""

    async def files(self) -> list[str]:
        """Return the names of all files that are listed, in the stream's order."""

    async def drop(self, before: datetime, limit: int) -> int:
        """Drop up to so many that were made before a moment and stand in the lake; return how many.

        A cursor that comes before them is too old from then on.
        """

    async def drop_clocks(self, before: datetime) -> None:
        """Drop the clocks of owners that own nothing, and have not told anything since a moment."""


class TransitionFiles(Protocol):
    """The lake's files of transitions; what it names may not be listed yet."""

    def write(self, after: Position, transitions: Sequence[Transition]) -> TransitionFile:
        """Store what follows a place of the stream, durably."""

    def names(self) -> Mapping[str, datetime]:
        """Return every file that is there, and when it was written."""

    def delete(self, name: str) -> None:
        """Forget a file."""


async def drop_old(
    store: OldTransitions,
    files: TransitionFiles,
    now: datetime,
    kept: timedelta,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> int:
    """Drop transitions that were made longer ago than `kept`; return how many.

    Raises DatabaseAway, or OSError from the lake; what stands there already is dropped next time.
    """
    before, dropped = now - kept, 0
    await _into_lake(store, files, before)
    while some := await store.drop(before, AT_ONCE):
        dropped += some
        await sleep(PAUSE_S)
    await store.drop_clocks(now - CLOCKS_KEPT)
    await _sweep(store, files, now - STRAYS_KEPT)
    return dropped


async def _into_lake(store: OldTransitions, files: TransitionFiles, before: datetime) -> None:
    after = await store.in_lake()
    while some := await store.lacking(after, before, A_FILE):
        file = await asyncio.to_thread(files.write, after, some)
        if not await store.add(file):  # another writer was quicker
            await asyncio.to_thread(files.delete, file.name)
        after = await store.in_lake()


async def _sweep(store: OldTransitions, files: TransitionFiles, before: datetime) -> None:
    """Delete what a writer has left that was killed before it could list it."""
    there = await asyncio.to_thread(files.names)  # before what is listed: that only grows
    listed = set(await store.files())
    for name, at in there.items():
        if at < before and name not in listed:
            await asyncio.to_thread(files.delete, name)
