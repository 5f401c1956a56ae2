"""All that ever stood in the log: from the lake, and from PostgreSQL what the lake lacks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping

import structlog

from crm.adapters.lake import Lake
from crm.adapters.lake_events import logged_events
from crm.domain.events import LoggedEvent
from crm.domain.lake_files import LakeFile
from crm.domain.ports import Manifest, Past, Span

log = structlog.get_logger(__name__)

EVENTS_A_READ = 100_000  # of a large file each read begins anew
EVENTS_A_CHUNK = 5_000  # what is applied at once holds up whatever else a process serves


class LakeAndLog:
    """Events above a seq of each shard, however old; may raise DatabaseAway."""

    def __init__(self, events: Past, manifest: Manifest, lake: Lake) -> None:
        self._log = events
        self._manifest = manifest
        self._lake = lake

    async def read_after(
        self, after: Mapping[int, int]
    ) -> AsyncIterator[list[tuple[int, LoggedEvent]]]:
        """Yield (seq, event) of each shard's events above its seq, in chunks and in no order.

        What the lake cannot give is asked of PostgreSQL: unless old sessions have left that, it is
        all there.
        """
        rest = dict(after)
        for portion in _portions(await self._manifest.files(after), after):
            try:
                events = await asyncio.to_thread(logged_events, self._lake, portion)
            except OSError as error:
                log.warning("lake_unreadable", files=len(portion), error=type(error).__name__)
                break
            for start in range(0, len(events), EVENTS_A_CHUNK):
                yield events[start : start + EVENTS_A_CHUNK]
            rest |= {file.shard: span.upto for file, span in portion.items()}
        async for chunk in self._log.read_after(rest):
            yield chunk


def _portions(
    files: Iterable[LakeFile], after: Mapping[int, int]
) -> Iterator[dict[LakeFile, Span]]:
    """Yield what to read at once: up to EVENTS_A_READ events, each shard's in order."""
    portion: dict[LakeFile, Span] = {}
    room = EVENTS_A_READ
    for file in files:
        start = max(after[file.shard], file.first_seq - 1)
        while start < file.last_seq:
            end = min(file.last_seq, start + room)
            portion[file] = Span(start, end)
            room -= end - start
            start = end
            if not room:
                yield portion
                portion, room = {}, EVENTS_A_READ
    if portion:
        yield portion
