"""What the use cases need from the feature shards; actors/gateway.py and crm/adapters/memory.py have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from crm.domain.events import LoggedEvent

Verdict = Literal["accepted", "duplicate", "conflict", "withheld"]


class PlayerFeatures(msgspec.Struct):
    """Raw features of one player: integers (money in minor units, times in microseconds), None missing."""

    brand: str
    player_id: str
    shard: int
    epoch: int
    as_of: datetime
    values: dict[str, int | None]


class Columns(msgspec.Struct):
    """Features of all players of a brand at one `as_of`: int64 arrays of one length, in one order.

    `missing[name]` is a mask of where the value is missing; a name without a mask has none.
    """

    as_of: datetime
    player_ids: list[str]
    values: Mapping[str, NDArray[np.int64]]
    missing: Mapping[str, NDArray[np.bool_]]


class Count(msgspec.Struct):
    """An exact count of players over all virtual shards at one `as_of`, with up to ten of them."""

    count: int
    total: int
    as_of: datetime
    sample: list[str]


class FeatureShards(Protocol):
    """The owners of all virtual shards, as one."""

    async def append(self, groups: Sequence[Sequence[LoggedEvent]]) -> list[list[Verdict]]:
        """Store events durably; return a verdict per event, in order.

        A group (events of one player) is stored whole or not at all: where one of its events is a
        conflict, its new ones are `withheld`. Raises ShardsWarming or DatabaseAway; what was
        committed before is a duplicate next time.
        """

    async def features(self, brand: str, player_id: str) -> PlayerFeatures:
        """Return all features of a player, live; raises PlayerNotFound, ShardsWarming."""

    async def count(self, brand: str, rule: str) -> Count:
        """Count the players that match a rule in text form, live; raises InvalidRule, ShardsWarming."""

    async def columns(self, brand: str, names: Sequence[str]) -> Columns:
        """Return features of all players of a brand, live; raises ShardsWarming."""
