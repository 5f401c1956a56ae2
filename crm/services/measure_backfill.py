"""Measures that a shard's snapshot lacks, counted over the shard's past.

A brand has got a new measure, or an upgrade has changed a built-in one: everything else that the
snapshot knows stays as it is. Counting may begin long before the shard is adopted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from crm.domain.events import LoggedEvent
from crm.domain.ports import Past
from crm.services.shard_snapshots import Lacking, ShardSnapshot
from crm.services.shard_tables import ShardTables

log = structlog.get_logger(__name__)


class MeasureBackfill:
    """What lacking measures add up to, shard by shard, each up to a seq of its own.

    Its `tables` hold these measures alone, by a clock that stands still; events ahead of that clock
    wait until it is known whether the snapshot has counted them.
    """

    def __init__(self, tables: ShardTables) -> None:
        self._tables = tables
        self._lacking: dict[int, Lacking] = {}
        self._seqs: dict[int, int] = {}
        self._waiting: dict[int, list[LoggedEvent]] = {}

    async def count(
        self, past: Past, lacking: Mapping[int, Lacking], upto: Mapping[int, int] | None = None
    ) -> None:
        """Go on counting what these shards lack, up to the seqs `upto` (None: all there is)."""
        for shard in lacking:
            begun = self._lacking.get(shard) == lacking[shard]
            if not begun or (upto is not None and self._seqs[shard] > upto[shard]):
                self._begin(shard, lacking[shard])
        reached = {shard: self._seqs[shard] for shard in lacking}
        async for chunk in past.read_after(reached):
            wanted = [e for seq, e in chunk if upto is None or seq <= upto[e.shard]]
            self._add(wanted)
            for seq, event in chunk:
                reached[event.shard] = max(reached[event.shard], seq)
            await asyncio.sleep(0)  # whatever else this process serves may come in between
        self._seqs |= reached if upto is None else {shard: upto[shard] for shard in lacking}
        log.info("measures_counted", shards=len(lacking))

    def finish(self, snapshot: ShardSnapshot, tables: ShardTables) -> None:
        """Add what was counted to `tables`, which hold the snapshot; its shard is done here.

        What the snapshot keeps for later is counted then, by all measures.
        """
        shard = snapshot.shard
        tables.take(shard, self._tables)
        later = {event.event_id for part in snapshot.brands.values() for event in part.ahead}
        due = [event for event in self._waiting.pop(shard) if event.event_id not in later]
        tables.backfill(due, {shard: self._lacking.pop(shard)})
        self._tables.drop([shard])

    def _begin(self, shard: int, lacking: Lacking) -> None:
        self._tables.drop([shard])
        self._lacking[shard], self._seqs[shard], self._waiting[shard] = lacking, 0, []

    def _add(self, events: Sequence[LoggedEvent]) -> None:
        for event in self._tables.backfill(events, self._lacking):
            self._waiting[event.shard].append(event)
