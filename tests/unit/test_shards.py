"""How virtual shards are divided among slots."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm.domain.shards import SHARDS, rebalanced, shards_of_slot

divisions = st.integers(1, 12).flatmap(
    lambda slots: st.lists(st.integers(0, slots - 1), min_size=SHARDS, max_size=SHARDS).map(
        lambda of: {slot: {s for s in range(SHARDS) if of[s] == slot} for slot in range(slots)}
    )
)


@given(divisions, st.integers(1, 12))
def test_a_division_is_even_and_moves_no_shard_that_need_not_move(
    owned: dict[int, set[int]], wanted: int
) -> None:
    slots = {slot: owned.get(slot, set()) for slot in range(max(wanted, len(owned)))}
    moves, left = rebalanced(slots, wanted)
    after = {shard: slot for slot, shards in slots.items() for shard in shards} | moves
    sizes = Counter(after.values())
    assert sorted(sizes.values()) == sorted(len(shards_of_slot(s, wanted)) for s in range(wanted))
    assert left == slots.keys() - sizes.keys()
    assert all(shard not in slots[target] for shard, target in moves.items())
    # fewest: the largest sizes stay with the largest slots, so nothing else could have stayed
    kept = sorted((len(shards) for shards in slots.values()), reverse=True)[:wanted]
    quota = sorted(sizes.values(), reverse=True)
    assert SHARDS - len(moves) == sum(map(min, kept, quota))


@pytest.mark.parametrize(("now", "wanted", "moved"), [(1, 3, 170), (3, 2, 85), (2, 2, 0)])
def test_the_shards_that_move(now: int, wanted: int, moved: int) -> None:
    slots = {slot: set(shards_of_slot(slot, now)) for slot in range(now)}
    slots |= {slot: set() for slot in range(now, wanted)}
    assert len(rebalanced(slots, wanted)[0]) == moved
