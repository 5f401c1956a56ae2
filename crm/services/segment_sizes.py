"""How large saved segments are: measured when they change, and every so often."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from crm.domain.brands import Brand
from crm.domain.errors import InvalidRule
from crm.domain.ports import Count
from crm.domain.rule_text import parse
from crm.domain.rules import Rule
from crm.domain.saved_segments import LiveSegment, SegmentSize
from crm.services.segment_rules import names_in, whole
from crm.services.segment_store import SegmentSizes

log = structlog.get_logger(__name__)

ANSWERS_KEPT = timedelta(days=1)  # under an Idempotency-Key


class Counting(Protocol):
    """The one thing that measuring needs of the feature shards."""

    async def count(self, brand: str, rule: Rule) -> Count:
        """Count the players that match a rule; raises InvalidRule, ShardsWarming."""


async def measure_due(
    store: SegmentSizes,
    shards: Counting,
    brands: Mapping[str, Brand],
    now: Callable[[], datetime],
    every: timedelta,
) -> int:
    """Measure live segments of `brands` whose last size is older than `every`; return how many.

    One whose rule names what is there no more is passed over. Raises ShardsWarming, DatabaseAway.
    """
    measured = 0
    for segment in await store.unmeasured(now() - every):
        if (brand := brands.get(segment.brand)) is None:
            continue
        try:
            await store.add_size(segment.id, await _measured(store, shards, brand, segment, now()))
        except InvalidRule as error:
            log.warning("segment_not_measured", segment=segment.id, reason=error.message)
        else:
            measured += 1
    await store.forget_answers(now() - ANSWERS_KEPT)
    return measured


async def _measured(
    store: SegmentSizes, shards: Counting, brand: Brand, segment: LiveSegment, at: datetime
) -> SegmentSize:
    if segment.rule is None:
        return SegmentSize(at, segment.version, await store.count_players(segment.id))
    rule = segment.rule
    if names_in(rule, brand):
        rule = whole(rule, brand, await store.active(brand.id))
    found = await shards.count(brand.id, parse(rule, brand))
    return SegmentSize(found.as_of, segment.version, found.count)
