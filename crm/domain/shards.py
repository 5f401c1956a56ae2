"""Virtual shards: the one unit of ownership, order, snapshot and move."""

from __future__ import annotations

from hashlib import blake2b

SHARDS = 256


def shard_of(brand: str, player_id: str) -> int:
    """Return the virtual shard, 0 to 255, of a player; stable for ever."""
    return blake2b(f"{brand}\0{player_id}".encode(), digest_size=1).digest()[0]


def shards_of_slot(slot: int, owners: int) -> list[int]:
    """Return the virtual shards that owner slot `slot` of `owners` holds."""
    return list(range(slot, SHARDS, owners))
