"""Holding a read of the past to its promise: each seq of some shards comes just once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

from crm.domain.errors import LogGap
from crm.domain.events import LoggedEvent
from crm.domain.ports import Past, Span


async def whole(past: Past, spans: Mapping[int, Span]) -> AsyncIterator[list[LoggedEvent]]:
    """Yield the events of each shard's span, in chunks; what lies beyond is left out.

    Raises LogGap where a seq comes twice, and at the end where one has not come.
    """
    seen = {shard: bytearray(max(0, span.upto - span.after)) for shard, span in spans.items()}
    async for chunk in past.read_after({shard: span.after for shard, span in spans.items()}):
        inside = [(seq, event) for seq, event in chunk if seq <= spans[event.shard].upto]
        for seq, event in inside:
            numbers, place = seen[event.shard], seq - spans[event.shard].after - 1
            if numbers[place]:
                raise LogGap(f"the log of shard {event.shard} has {seq} twice")
            numbers[place] = 1
        yield [event for _, event in inside]
        await asyncio.sleep(0)  # whatever else this process serves may come in between
    broken = [s for s, span in spans.items() if span.upto < span.after or 0 in seen[s]]
    if broken:
        raise LogGap(f"the log of shards {broken} lacks events that were acknowledged")
