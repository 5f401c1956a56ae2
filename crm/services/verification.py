"""Holding the live features against recounts by other means, shard by shard, on a running system.

An owner hands out one shard's features in one copy, with the seq and the moment that they are of;
a recount reads the raw events up to that seq, as of that moment. So all are of one position,
however fast events come in meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from crm.domain.brands import Brand
from crm.domain.errors import FeatureNotFound
from crm.domain.feature_list import features_of
from crm.domain.ports import FeatureShards, ShardFeatures

SHOWN = 20
Recounted = Mapping[str, Mapping[str, int]]  # player -> feature -> value; missing ones are left out


class Recount(Protocol):
    """The raw events, counted again by other means; `name` says by which."""

    name: str

    async def of_shard(self, brand: Brand, of: ShardFeatures) -> Recounted:
        """Return the features of a shard's players at the position of `of`; or DatabaseAway."""


@dataclass
class Verification:
    """What was compared, and what is not the same; `differences` holds the first SHOWN."""

    players: int = 0
    compared: int = 0
    wrong: int = 0
    max_difference: int = 0
    differences: list[str] = field(default_factory=list)
    nonzero: Counter[str] = field(default_factory=Counter)

    def nonzero_share(self, feature: str) -> float:
        """Return for what share of the players a feature is there and not 0."""
        return self.nonzero[feature] / self.players if self.players else 0.0

    def look_at(self, live: ShardFeatures) -> None:
        """Count the players of a shard, and what of theirs is not 0."""
        self.players += len(live.player_ids)
        for name in live.values:
            there = live.values[name] != 0
            if name in live.missing:
                there &= ~live.missing[name]
            self.nonzero[name] += int(there.sum())

    def compare(self, live: ShardFeatures, recounted: Recounted, how: str) -> None:
        """Compare every feature of every player of a shard with what was counted `how`."""
        for player in sorted(recounted.keys() - set(live.player_ids)):
            self._differ(f"{player}: has events {how}, and no features", 1)
        for row, player in enumerate(live.player_ids):
            again = recounted.get(player)
            if again is None:
                self._differ(f"{player}: has features, and no events {how}", 1)
                continue
            for name in live.values:
                mask = live.missing.get(name)
                value = None if mask is not None and mask[row] else int(live.values[name][row])
                self.compared += 1
                if value != again.get(name):
                    self._compare(f"{player}.{name}", value, again.get(name), how)

    def _compare(self, what: str, live: int | None, again: int | None, how: str) -> None:
        difference = 1 if live is None or again is None else abs(live - again)
        self._differ(f"{what}: {live} live, {again} {how}", difference)

    def _differ(self, line: str, difference: int) -> None:
        self.wrong += 1
        self.max_difference = max(self.max_difference, difference)
        if len(self.differences) < SHOWN:
            self.differences.append(line)


async def verify_features(
    shards: FeatureShards,
    recounts: Sequence[Recount],
    brand: Brand,
    of: Iterable[int],
    advance: Callable[[int], None],
) -> Verification:
    """Compare the shards `of` a brand one after the other; `advance` is told of each.

    Raises FeatureNotFound where the owners have another list of features than `brand`.
    """
    found = Verification()
    for shard in of:
        live = await shards.of_shard(brand.id, shard)
        if other := live.values.keys() ^ features_of(brand).features.keys():
            raise FeatureNotFound(
                f"the measures of brand {brand.id} were changed ({min(other)}): run `crm apply`"
            )
        found.look_at(live)
        for recount in recounts:
            found.compare(live, await recount.of_shard(brand, live), recount.name)
        advance(1)
    return found
