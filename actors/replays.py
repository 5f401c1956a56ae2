"""Replays on Ray: each task leads the players of a few shards through the days, from the lake."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from crm.adapters import clock
from crm.adapters.lake import Lake
from crm.adapters.lake_columns import LakeColumns
from crm.adapters.lake_events import LakeEventFiles, scan
from crm.adapters.postgres.lake import PostgresManifest
from crm.adapters.postgres.pool import Pool
from crm.domain.errors import CrmError, TooMuchWork
from crm.domain.lake_files import LakeFile
from crm.domain.replay import Replay, Replayed, joined, replayed
from crm.domain.shards import SHARDS
from crm.services.lake_writing import LakeWriter

SHARDS_A_TASK = 8
Advance = Callable[[int], None]


@dataclass(frozen=True)
class RayReplays:
    """Replays on the cluster that this process is connected to.

    More than `most_events` in the lake are refused; `begun` is told how many parts there are, and
    returns what is told of each that is done.
    """

    dsn: str
    lake_uri: str
    most_events: int | None = None
    begun: Callable[[int], Advance] = lambda _parts: lambda _done: None

    async def run(self, asked: Replay) -> Replayed:
        """Return a replay; raises TooMuchWork, DatabaseAway, OSError."""
        files = await _answer(_files_up_to_now.remote(self.dsn, self.lake_uri))
        events = sum(file.events for file in files)
        if self.most_events is not None and events > self.most_events:
            raise TooMuchWork(
                f"a replay reads every event, here {events:,}; over HTTP at most"
                f" {self.most_events:,} are read: use `crm segments replay`"
            )
        parts = _parts(files)
        advance, at_once = self.begun(len(parts)), asyncio.Semaphore(_cores())

        async def run(part: Sequence[LakeFile]) -> Replayed:
            async with at_once:
                of_part = asked.of_shards({file.shard for file in part})
                found: Replayed = await _answer(_of_part.remote(of_part, self.lake_uri, part))
            advance(1)
            return found

        found = await asyncio.gather(*[run(part) for part in parts])
        return joined(found, len(asked.ends_us) - 1)


def _parts(files: Sequence[LakeFile]) -> list[list[LakeFile]]:
    """Divide the files among tasks, each shard's into one."""
    by_task: dict[int, list[LakeFile]] = {}
    for file in files:
        by_task.setdefault(file.shard // SHARDS_A_TASK, []).append(file)
    return [of_task for _, of_task in sorted(by_task.items())]


def _cores() -> int:
    """Return about how many tasks keep every core busy: Ray's CPUs are logical, see configs."""
    nodes = sum(n["Alive"] for n in ray.nodes())  # type: ignore[no-untyped-call]  # Ray has no types
    return nodes * (os.cpu_count() or 1)


async def _answer(reference: Any) -> Any:
    """Return what a task found; the facts that it raised, as they are."""
    try:
        return await reference
    except RayError as error:
        cause = getattr(error, "cause", None)
        raise (cause if isinstance(cause, CrmError | OSError) else error) from None


@ray.remote(num_cpus=0)
def _files_up_to_now(dsn: str, lake_uri: str) -> list[LakeFile]:
    """Bring the lake up to the log, and return its files."""

    async def bring() -> list[LakeFile]:
        pool = Pool(dsn, most=1)
        try:
            manifest = PostgresManifest(pool)
            writer = LakeWriter(manifest, LakeEventFiles(Lake(lake_uri)), clock.now)
            await writer.catch_up()
            return await manifest.files(range(SHARDS))
        finally:
            await pool.close()

    return asyncio.run(bring())


@ray.remote(num_cpus=1)
def _of_part(asked: Replay, lake_uri: str, files: Sequence[LakeFile]) -> Replayed:
    """Replay the players of some shards, of which `files` holds all events."""
    events = scan(Lake(lake_uri), files)
    columns = LakeColumns(events, asked.brand, asked.ends_us[-1], asked.known_by_us)
    return replayed(asked, columns.between)
