"""Replays in this process, of the events of a log in memory."""

from __future__ import annotations

from dataclasses import dataclass

from crm.adapters.lake_columns import LakeColumns
from crm.adapters.memory import MemoryEventLog
from crm.domain.errors import TooMuchWork
from crm.domain.replay import Replay, Replayed, replayed
from tests.support.lake import lake_rows


@dataclass
class LocalReplays:
    """What actors/replays.py is on Ray, over all shards at once."""

    log: MemoryEventLog
    most_events: int = 100

    async def run(self, asked: Replay) -> Replayed:
        """Return a replay."""
        events = [event for of_shard in self.log.events.values() for event in of_shard]
        if len(events) > self.most_events:
            raise TooMuchWork(f"at most {self.most_events} events are read over HTTP")
        rows = lake_rows(events).lazy()
        columns = LakeColumns(rows, asked.brand, asked.ends_us[-1], asked.known_by_us)
        return replayed(asked, columns.between)
