"""How large saved segments are: measured when they change, and every so often."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from crm.domain.errors import InvalidRule
from crm.domain.ports import Count
from crm.domain.saved_segments import LiveSegment, SegmentSize
from crm.services.segment_store import SegmentSizes

log = structlog.get_logger(__name__)

ANSWERS_KEPT = timedelta(days=1)  # under an Idempotency-Key


class Counting(Protocol):
    """The one thing that measuring needs of the feature shards."""

    async def count(self, brand: str, rule: str) -> Count:
        """Count the players that match a rule; raises InvalidRule, ShardsWarming."""


async def measure(
    store: SegmentSizes, shards: Counting, segment: LiveSegment, at: datetime
) -> SegmentSize:
    """Count a live segment and note its size; raises InvalidRule, ShardsWarming, DatabaseAway."""
    if segment.rule is None:
        size = SegmentSize(at, segment.version, await store.count_players(segment.id))
    else:
        found = await shards.count(segment.brand, segment.rule)
        size = SegmentSize(found.as_of, segment.version, found.count)
    await store.add_size(segment.id, size)
    return size


async def measure_due(
    store: SegmentSizes,
    shards: Counting,
    brands: Collection[str],
    now: Callable[[], datetime],
    every: timedelta,
) -> int:
    """Measure live segments of `brands` whose last size is older than `every`; return how many.

    One whose rule names what is there no more is passed over. Raises ShardsWarming, DatabaseAway.
    """
    measured = 0
    for segment in await store.unmeasured(now() - every):
        if segment.brand not in brands:
            continue
        try:
            await measure(store, shards, segment, now())
        except InvalidRule as error:
            log.warning("segment_not_measured", segment=segment.id, reason=error.message)
        else:
            measured += 1
    await store.forget_answers(now() - ANSWERS_KEPT)
    return measured
