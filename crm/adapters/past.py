"""All that ever stood in the log: from the lake, and from PostgreSQL what the lake lacks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import structlog

from crm.adapters.lake import Lake
from crm.adapters.lake_events import logged_events
from crm.adapters.postgres.lake import PostgresManifest
from crm.domain.events import LoggedEvent
from crm.domain.lake_files import LakeFile
from crm.domain.ports import EventLog

log = structlog.get_logger(__name__)

_FILES_AT_ONCE = 16  # small ones come many to a shard


class Past:
    """Events above a seq of each shard, however old; may raise DatabaseAway."""

    def __init__(self, events: EventLog, manifest: PostgresManifest, lake: Lake) -> None:
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
        for files in _in_portions(await self._files_above(after)):
            try:
                events = await asyncio.to_thread(logged_events, self._lake, files, rest)
            except OSError as error:
                log.warning("lake_unreadable", files=len(files), error=type(error).__name__)
                break
            yield events
            rest |= {file.shard: max(file.last_seq, rest[file.shard]) for file in files}
        async for chunk in self._log.read_after(rest):
            yield chunk

    async def _files_above(self, after: Mapping[int, int]) -> list[LakeFile]:
        files = await self._manifest.files(after)
        return [file for file in files if file.last_seq > after[file.shard]]


def _in_portions(files: Sequence[LakeFile]) -> list[Sequence[LakeFile]]:
    return [files[i : i + _FILES_AT_ONCE] for i in range(0, len(files), _FILES_AT_ONCE)]
