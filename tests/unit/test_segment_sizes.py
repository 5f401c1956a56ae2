"""Sizes over time: who is measured, when, and what stands in nobody's way."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from crm.adapters.memory_segments import MemorySegments
from crm.domain.errors import ShardsWarming
from crm.domain.ports import Count
from crm.domain.rules import Rule
from crm.domain.saved_segments import Once, SavedSegment, SegmentSize
from crm.services.segment_sizes import measure_due
from tests.support.builders import NOON, a_brand
from tests.support.clock import Clock

HOUR = timedelta(hours=1)
BRANDS = {"demo": a_brand()}


class Counted:
    """Shards that count so many; or cannot."""

    def __init__(self, clock: Clock) -> None:
        self.players = 5
        self.warming = False
        self._clock = clock

    async def count(self, brand: str, rule: Rule) -> Count:
        """Return what is set."""
        assert brand == "demo"
        if self.warming:
            raise ShardsWarming("not yet")
        return Count(self.players, 9, self._clock(), [], [])


@pytest.fixture
def clock() -> Clock:
    return Clock(NOON)


async def a_store(*rules: str | None) -> MemorySegments:
    store = MemorySegments()
    for n, rule in enumerate(rules):
        fields: dict[str, Any] = {"rule": rule, "kind": "list" if rule is None else "rule"}
        size = None if rule is None else SegmentSize(NOON, 1, 1)
        made = SavedSegment(
            f"s{n}", "demo", f"n{n}", version=1, created_at=NOON, changed_at=NOON, size=size,
            **fields,
        )  # fmt: skip
        await store.create(made, ["p1", "p2"] if rule is None else [])
    return store


async def test_each_live_segment_is_measured_once_in_so_long(clock: Clock) -> None:
    store, shards = await a_store("bet_count_7d > 1", None, "bet_count_7d > 2"), Counted(clock)
    await store.archive("s2", None, NOON)
    assert await measure_due(store, shards, BRANDS, clock, HOUR) == 0
    clock.move(minutes=60)
    assert await measure_due(store, shards, BRANDS, clock, HOUR) == 2
    assert await measure_due(store, shards, BRANDS, clock, HOUR) == 0
    clock.move(minutes=60)
    shards.players = 7
    assert await measure_due(store, shards, BRANDS, clock, HOUR) == 2
    sizes = [[one.players for one in await store.sizes(f"s{n}", None, 9)] for n in range(3)]
    assert sizes == [[7, 5, 1], [2, 2, 2], [1]]


async def test_a_rule_that_cannot_be_read_any_more_holds_up_no_other(clock: Clock) -> None:
    store = await a_store("gone > 1", "bet_count_7d > 1")
    clock.move(hours=2)
    assert await measure_due(store, Counted(clock), BRANDS, clock, HOUR) == 1
    assert len(await store.sizes("s0", None, 9)) == 1


async def test_a_segment_of_a_brand_that_is_gone_holds_up_no_other(clock: Clock) -> None:
    store = await a_store("bet_count_7d > 1")
    clock.move(hours=2)
    assert (
        await measure_due(store, Counted(clock), {"other": a_brand(id="other")}, clock, HOUR) == 0
    )


async def test_what_was_not_measured_is_still_due(clock: Clock) -> None:
    store, shards = await a_store("bet_count_7d > 1"), Counted(clock)
    clock.move(hours=2)
    shards.warming = True
    with pytest.raises(ShardsWarming):
        await measure_due(store, shards, BRANDS, clock, HOUR)
    shards.warming = False
    assert await measure_due(store, shards, BRANDS, clock, HOUR) == 1


async def test_answers_under_keys_are_forgotten_with_the_days(clock: Clock) -> None:
    store = await a_store("bet_count_7d > 1")
    once = Once(b"c", "k", b"r")
    await store.archive("s0", None, NOON, once)
    await measure_due(store, Counted(clock), BRANDS, clock, HOUR)
    assert await store.answered(once) is not None
    clock.move(hours=25)
    await measure_due(store, Counted(clock), BRANDS, clock, HOUR)
    assert await store.answered(once) is None
