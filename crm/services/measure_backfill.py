"""Measures that a shard's snapshot lacks, counted over the shard's past.

A brand has got a new measure, or an upgrade has changed a built-in one: everything else that the
snapshot knows stays as it is. Counting may begin long before the shard is adopted.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

import structlog

from crm.domain.appending import EventKey
from crm.domain.events import LoggedEvent
from crm.domain.ports import Past, Span
from crm.domain.times import to_us
from crm.services.shard_snapshots import Lacking, ShardSnapshot
from crm.services.shard_tables import ShardTables
from crm.services.whole_past import whole

log = structlog.get_logger(__name__)


class MeasureBackfill:
    """What lacking measures add up to, shard by shard, each up to a seq of its own.

    Its `tables` hold these measures alone, by a clock that stands still. Events that a snapshot may
    keep for later, being ahead of its clock, wait until the shard is adopted: they are counted once
    it is known whether its newest snapshot keeps them.
    """

    def __init__(self, tables: ShardTables) -> None:
        self._tables = tables
        self._lacking: dict[int, Lacking] = {}
        self._seqs: dict[int, int] = {}
        self._clocks: dict[int, int] = {}
        self._waiting: dict[int, list[LoggedEvent]] = {}

    async def count(self, past: Past, snapshots: Sequence[ShardSnapshot]) -> None:
        """Go on counting what these snapshots lack, up to their seqs.

        Raises LogGap unless the past holds each number just once. After any failure what was
        counted of these shards is forgotten.
        """
        for snapshot in snapshots:
            self._begin_or_go_on(snapshot)
        later = _kept_for_later(snapshots)
        try:
            spans = {s.shard: Span(self._seqs[s.shard], s.seq) for s in snapshots}
            async for events in whole(past, spans):
                self._add(events, later)
        except BaseException:
            for snapshot in snapshots:
                self._forget(snapshot.shard)
            raise
        self._seqs |= {snapshot.shard: snapshot.seq for snapshot in snapshots}
        log.info("measures_counted", shards=len(snapshots))

    def load(self, snapshot: ShardSnapshot, tables: ShardTables) -> None:
        """Take a snapshot and what was counted for it into `tables`; its shard is done here.

        What was counted goes first: what the snapshot has kept for later is counted by all
        measures as soon as it is due, and a day must not count twice.
        """
        shard = snapshot.shard
        tables.reach(snapshot)
        tables.take(shard, self._tables)
        later = _kept_for_later([snapshot])
        due = [e for e in self._waiting[shard] if (e.brand, e.event_id) not in later]
        tables.backfill(due, {shard: self._lacking[shard]})
        tables.load(snapshot)
        self._forget(shard)

    def _begin_or_go_on(self, snapshot: ShardSnapshot) -> None:
        shard, lacking = snapshot.shard, self._tables.lacking(snapshot)
        if self._lacking.get(shard) == lacking and self._seqs[shard] <= snapshot.seq:
            return
        self._forget(shard)
        self._lacking[shard], self._seqs[shard], self._waiting[shard] = lacking, 0, []
        self._clocks[shard] = snapshot.now_us

    def _forget(self, shard: int) -> None:
        self._tables.drop([shard])
        for kept in (self._lacking, self._seqs, self._clocks, self._waiting):
            kept.pop(shard, None)

    def _add(self, events: Sequence[LoggedEvent], later: Container[EventKey]) -> None:
        counted: list[LoggedEvent] = []
        for event in events:
            waits = to_us(event.occurred_at) > self._clocks[event.shard]
            if waits or (event.brand, event.event_id) in later:
                self._waiting[event.shard].append(event)
            else:
                counted.append(event)
        self._tables.backfill(counted, self._lacking)


def _kept_for_later(snapshots: Sequence[ShardSnapshot]) -> set[EventKey]:
    """Return the events that were ahead of the snapshots' clocks."""
    parts = [item for snapshot in snapshots for item in snapshot.brands.items()]
    return {(brand, event.event_id) for brand, part in parts for event in part.ahead}
