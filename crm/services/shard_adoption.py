"""Shards on their way to a new owner: claimed, loaded and replayed beside what it serves.

Starting, taking over after a death, and a planned move are all this.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import structlog

from crm.domain.ports import Claim, EventLog, Files, Past, Span
from crm.services.measure_backfill import MeasureBackfill
from crm.services.shard_snapshots import ShardSnapshot
from crm.services.shard_tables import ShardTables
from crm.services.whole_past import whole

log = structlog.get_logger(__name__)


class Adoption:
    """Brings claimed shards into `tables`, with every event up to the seq of their claims."""

    def __init__(
        self, claims: Mapping[int, Claim], tables: ShardTables, backfill: MeasureBackfill
    ) -> None:
        self.claims = claims
        self.tables = tables
        self.snapshot_seqs: dict[int, int] = {}
        self._backfill = backfill
        self._heads = dict.fromkeys(claims, 0)

    async def run(self, history: EventLog, past: Past, files: Files) -> int:
        """Load the newest snapshots, replay what came after; return how many events that were.

        Raises LogGap unless the log holds each number just once.
        """
        await self._load(history, past, files)
        return await self._replay(past)

    async def _load(self, history: EventLog, past: Past, files: Files) -> None:
        """Load the newest snapshots, and count what they lack; without one the replay is longer."""
        lacking: list[ShardSnapshot] = []
        async for snapshot in newest_snapshots(history, files, list(self.claims)):
            self._heads[snapshot.shard] = snapshot.seq
            if self.tables.lacking(snapshot):  # and a better one is written soon
                lacking.append(snapshot)
            else:
                self.tables.load(snapshot)
                self.snapshot_seqs[snapshot.shard] = snapshot.seq
        if lacking:
            await self._backfill.count(past, lacking)
            for snapshot in lacking:
                self._backfill.load(snapshot, self.tables)

    async def _replay(self, past: Past) -> int:
        """Apply the log above the snapshots up to the claims, each number once."""
        spans = {s: Span(self._heads[s], claim.seq) for s, claim in self.claims.items()}
        replayed = 0
        async for events in whole(past, spans):
            self.tables.apply(events)
            replayed += len(events)
        return replayed


async def newest_snapshots(
    history: EventLog, files: Files, shards: Sequence[int]
) -> AsyncIterator[ShardSnapshot]:
    """Yield the newest readable snapshot of each shard that has one."""
    done: set[int] = set()
    for found in await history.snapshots(shards):
        if found.shard in done:
            continue
        try:
            snapshot = await asyncio.to_thread(_read, files, found.name)
        except (OSError, ValueError) as error:
            log.warning("snapshot_unreadable", name=found.name, error=type(error).__name__)
            continue
        done.add(found.shard)
        yield snapshot


def _read(files: Files, name: str) -> ShardSnapshot:
    return ShardSnapshot.decode(files.read(name))
