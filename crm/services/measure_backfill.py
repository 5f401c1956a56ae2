"""Measures that a shard's snapshot lacks, counted over the shard's past.

A brand has got a new measure, or an upgrade has changed a built-in one: everything else that the
snapshot knows stays as it is. Counting may begin long before the shard is adopted.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from crm.domain.events import LoggedEvent
from crm.domain.ports import Past, Span
from crm.services.shard_snapshots import Lacking, ShardSnapshot
from crm.services.shard_tables import ShardTables
from crm.services.whole_past import whole

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
        self, past: Past, lacking: Mapping[int, Lacking], upto: Mapping[int, int]
    ) -> None:
        """Go on counting what these shards lack, up to the seqs `upto`.

        Raises LogGap unless the past holds each number just once. After any failure what was
        counted of these shards is forgotten.
        """
        for shard in lacking:
            if self._lacking.get(shard) != lacking[shard] or self._seqs[shard] > upto[shard]:
                self._begin(shard, lacking[shard])
        try:
            spans = {shard: Span(self._seqs[shard], upto[shard]) for shard in lacking}
            async for events in whole(past, spans):
                for event in self._tables.backfill(events, self._lacking):
                    self._waiting[event.shard].append(event)
        except BaseException:
            for shard in lacking:
                self._begin(shard, lacking[shard])
            raise
        self._seqs |= {shard: upto[shard] for shard in lacking}
        log.info("measures_counted", shards=len(lacking))

    def finish(self, snapshot: ShardSnapshot, tables: ShardTables) -> None:
        """Add what was counted to `tables`, which hold the snapshot; its shard is done here.

        What the snapshot keeps for later is counted then, by all measures.
        """
        shard = snapshot.shard
        tables.take(shard, self._tables)
        later = {(b, e.event_id) for b, part in snapshot.brands.items() for e in part.ahead}
        due = [e for e in self._waiting.pop(shard) if (e.brand, e.event_id) not in later]
        tables.backfill(due, {shard: self._lacking.pop(shard)})
        self._tables.drop([shard])

    def _begin(self, shard: int, lacking: Lacking) -> None:
        self._tables.drop([shard])
        self._lacking[shard], self._seqs[shard], self._waiting[shard] = lacking, 0, []
