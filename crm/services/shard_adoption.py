"""Shards on their way to a new owner: claimed, loaded and replayed beside what it serves.

Starting, taking over after a death, and a planned move are all this.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import structlog

from crm.domain.errors import LogGap
from crm.domain.ports import Claim, EventLog, Files, Past
from crm.services.measure_backfill import MeasureBackfill
from crm.services.shard_snapshots import ShardSnapshot
from crm.services.shard_tables import ShardTables

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
        lacking: dict[int, ShardSnapshot] = {}
        async for snapshot in newest_snapshots(history, files, list(self.claims)):
            self.tables.load(snapshot)
            self._heads[snapshot.shard] = self.snapshot_seqs[snapshot.shard] = snapshot.seq
            if self.tables.lacking(snapshot):
                lacking[snapshot.shard] = snapshot
        if lacking:
            wanted = {shard: self.tables.lacking(s) for shard, s in lacking.items()}
            upto = {shard: snapshot.seq for shard, snapshot in lacking.items()}
            await self._backfill.count(past, wanted, upto)
            for snapshot in lacking.values():
                self._backfill.finish(snapshot, self.tables)

    async def _replay(self, past: Past) -> int:
        """Apply the log above the snapshots, which must hold each number up to the claim once."""
        heads, seqs = self._heads, {shard: claim.seq for shard, claim in self.claims.items()}
        seen = {shard: bytearray(max(0, seq - heads[shard])) for shard, seq in seqs.items()}
        replayed = 0
        async for chunk in past.read_after(heads):
            for seq, event in chunk:
                numbers, place = seen[event.shard], seq - heads[event.shard] - 1
                if place >= len(numbers) or numbers[place]:
                    raise LogGap(f"shard {event.shard} has {seq} twice, or beyond the log's end")
                numbers[place] = 1
            self.tables.apply([event for _, event in chunk])
            replayed += len(chunk)
            await asyncio.sleep(0)  # whatever else this process serves may come in between
        broken = [s for s, seq in seqs.items() if seq < heads[s] or 0 in seen[s]]
        if broken:
            raise LogGap(f"the log of shards {broken} lacks events that were acknowledged")
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
