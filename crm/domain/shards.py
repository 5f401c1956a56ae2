"""Virtual shards: the one unit of ownership, order, snapshot and move."""

from __future__ import annotations

from collections.abc import Mapping, Set
from hashlib import blake2b

SHARDS = 256


def shard_of(brand: str, player_id: str) -> int:
    """Return the virtual shard, 0 to 255, of a player; stable for ever."""
    return blake2b(f"{brand}\0{player_id}".encode(), digest_size=1).digest()[0]


def shards_of_slot(slot: int, owners: int) -> list[int]:
    """Return the virtual shards that owner slot `slot` of `owners` holds."""
    return list(range(slot, SHARDS, owners))


def rebalanced(owned: Mapping[int, Set[int]], slots: int) -> tuple[dict[int, int], set[int]]:
    """Divide all virtual shards evenly over as many slots, and move as few of them as possible.

    `owned` holds the shards of each slot, of a new one none; there are enough of them. Of too many,
    those with the fewest shards are left empty. Returns the new slot of each shard that moves, in
    shard order, and the slots that are left.
    """
    by_size = sorted(owned, key=lambda slot: (-len(owned[slot]), slot))
    kept, left = by_size[:slots], set(by_size[slots:])
    least, extra = divmod(SHARDS, slots)
    free: list[int] = []  # a slot for each shard that it has room for
    leaving = [shard for slot in left for shard in owned[slot]]
    for place, slot in enumerate(kept):
        room = least + (place < extra) - len(owned[slot])
        free += [slot] * room
        leaving += sorted(owned[slot])[:-room] if room < 0 else []
    return dict(zip(sorted(leaving), free, strict=True)), left
