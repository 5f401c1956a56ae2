"""Bringing the log into the lake, shard by shard, and keeping the lake tidy.

A file is written first and listed afterwards, and only where the lake ends: so any number of
writers may run at once, and what a killed one leaves behind is never read, and is tidied away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Mapping
from datetime import datetime, timedelta

import structlog

from crm.domain.errors import LogGap
from crm.domain.events import SESSION_RETENTION
from crm.domain.lake_files import LakeFile, to_merge
from crm.domain.ports import EventFiles, Manifest, Span
from crm.domain.shards import SHARDS

log = structlog.get_logger(__name__)

EVENTS_A_ROUND = 100_000  # about 40 MB on their way at once
READERS_MAY_TAKE = timedelta(hours=1)
CLOCKS_DIFFER = timedelta(days=1)


class LakeWriter:
    """Writes what the lake lacks; `now` is the clock that old files are held against."""

    def __init__(self, manifest: Manifest, files: EventFiles, now: Callable[[], datetime]) -> None:
        self._manifest = manifest
        self._files = files
        self._now = now

    async def catch_up(
        self, shards: Container[int] = range(SHARDS), most: int = EVENTS_A_ROUND
    ) -> int:
        """Write until the lake holds all that the log of `shards` held when this began.

        Returns how many events it wrote. Raises DatabaseAway, OSError from the lake, LogGap.
        """
        lags = await self._manifest.lags()
        goal = {shard: span.upto for shard, span in lags.items() if shard in shards}
        written = 0
        while spans := _first_of(_up_to(goal, await self._manifest.lags()), most):
            written += await self._write(spans)
        return written

    async def _write(self, spans: Mapping[int, Span]) -> int:
        events = await self._manifest.events(spans)
        files: list[LakeFile] = []
        try:
            await asyncio.to_thread(self._files.write, events, files.append)
        finally:  # a shard that cannot be written does not hold up the others
            listed = await self._manifest.add(files)
            for file in set(files) - set(listed):  # another writer was quicker
                await asyncio.to_thread(self._files.delete, file.name)
        came = {file.shard: Span(file.first_seq - 1, file.last_seq) for file in files}
        if short := sorted(shard for shard, span in spans.items() if came.get(shard) != span):
            raise LogGap(f"the log of shards {short} lacks events")
        return sum(file.events for file in listed)

    async def compact(self) -> int:
        """Merge small files of each shard; return how many files have become fewer."""
        merged = 0
        for shard in range(SHARDS):
            old = to_merge(await self._manifest.files([shard]))
            if not old:
                continue
            began = self._now()
            try:
                new = await asyncio.to_thread(self._files.merge, old)
            except OSError as error:  # the other shards' are merged all the same
                log.warning("lake_not_merged", shard=shard, error=str(error))
                continue
            in_time = self._now() - began < READERS_MAY_TAKE / 2  # else it may be swept by now
            if in_time and await self._manifest.replace(old, new):
                merged += len(old)
            else:
                await asyncio.to_thread(self._files.delete, new.name)
        return merged

    async def sweep(self) -> int:
        """Delete files that nobody can be reading or about to list; return how many."""
        before = self._now() - READERS_MAY_TAKE
        replaced = await self._manifest.replaced_before(before)
        there = await asyncio.to_thread(self._files.names)  # before what is listed: that only grows
        listed = {file.name for file in await self._manifest.files(range(SHARDS))}
        strays = {name for name, at in there.items() if at < before and name not in listed}
        gone = {*replaced, *strays} - listed
        for name in sorted(gone):
            await asyncio.to_thread(self._files.delete, name)
        await self._manifest.forget_replaced(replaced)
        return len(gone)

    async def drop_sessions(self) -> list[str]:
        """Drop old sessions from PostgreSQL that stand in the lake; return the partitions."""
        before = self._now() - SESSION_RETENTION - CLOCKS_DIFFER
        dropped = await self._manifest.drop_sessions(before.date())
        if dropped:
            log.info("sessions_dropped", partitions=len(dropped))
        return dropped


def _up_to(goal: Mapping[int, int], lags: Mapping[int, Span]) -> dict[int, Span]:
    return {s: Span(lags[s].after, upto) for s, upto in goal.items() if lags[s].after < upto}


def _first_of(spans: Mapping[int, Span], most: int) -> dict[int, Span]:
    """Return as many of the spans as hold about `most` events, those that lag most first."""
    chosen: dict[int, Span] = {}
    left = most
    for shard, span in sorted(spans.items(), key=lambda item: item[1].after - item[1].upto):
        if left <= 0:
            break
        taken = min(span.upto - span.after, left)
        chosen[shard] = Span(span.after, span.after + taken)
        left -= taken
    return chosen
