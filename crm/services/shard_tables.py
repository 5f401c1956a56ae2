"""The feature tables of all brands over some virtual shards, which come and go one by one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime

import numpy as np

from crm.domain.brands import Brand
from crm.domain.event_columns import EventColumns
from crm.domain.events import LoggedEvent
from crm.domain.feature_list import features_of
from crm.domain.feature_table import FeatureTable
from crm.domain.live_scores import NO_SCORES, ServingScores
from crm.domain.times import to_us
from crm.services.shard_snapshots import Lacking, ShardSnapshot

MANY_DEAD = 4096  # rows: a table with fewer of them, or fewer than players, stays as it is


class _Copy:
    """A table without the dead rows of another, made beside it one shard at a time."""

    def __init__(self, table: FeatureTable) -> None:
        self.table = table.empty()
        self._copied: set[int] = set()

    def advance(self, of: FeatureTable) -> bool:
        """Copy the next shard of `of`; return whether that was all."""
        left = of.shards() - self._copied
        self.table.catch_up(of)
        if left:
            shard = min(left)
            self.table.load(shard, of.export(shard))
            self.table.renew_scores(len(self.table))
            self._copied.add(shard)
        return not left

    def apply(self, events: EventColumns) -> None:
        """Apply what belongs to the shards that are here already."""
        here = np.isin(events.shards, list(self._copied))
        if here.any():
            self.table.apply(events.take(here))

    def drop(self, shards: Sequence[int]) -> None:
        """Forget shards."""
        self.table.drop(shards)
        self._copied.difference_update(shards)


class ShardTables:
    """A table a brand; whatever is not awaited here is whole when it returns."""

    def __init__(self, brands: Mapping[str, Brand], now: Callable[[], datetime]) -> None:
        self._brands = brands
        self._now = now
        self._tables: dict[str, FeatureTable] = {}
        self._copies: dict[str, _Copy] = {}
        self._serving: Mapping[str, ServingScores] = {}

    def of(self, brand: str) -> FeatureTable:
        """Return the brand's table."""
        table = self._tables.get(brand)
        if table is None:
            of = self._brands[brand]
            serving = self._serving.get(brand, NO_SCORES)
            table = FeatureTable(of.zone, to_us(self._now()), features_of(of), serving)
            self._tables[brand] = table
        return table

    def follow(self, now: Callable[[], datetime]) -> None:
        """Go by another clock from now on."""
        self._now = now

    @property
    def players(self) -> int:
        """How many players of all brands are held."""
        return sum(map(len, self._tables.values()))

    def advance(self) -> None:
        """Let windows move on to now."""
        now_us = to_us(self._now())
        for table in self._tables.values():
            table.advance(now_us)

    def apply(self, events: Sequence[LoggedEvent]) -> None:
        """Add events, once each."""
        now_us = to_us(self._now())
        by_brand: dict[str, list[LoggedEvent]] = {}
        for event in events:
            by_brand.setdefault(event.brand, []).append(event)
        for brand, of_brand in by_brand.items():
            table = self.of(brand)
            columns = EventColumns.of(of_brand, table.features)
            table.advance(now_us)
            table.apply(columns)
            if brand in self._copies:
                self._copies[brand].apply(columns)

    def lacking(self, snapshot: ShardSnapshot) -> Lacking:
        """Return the measures of today that a snapshot knows nothing of."""
        return snapshot.lacking(self._brands)

    def backfill(self, events: Sequence[LoggedEvent], lacking: Mapping[int, Lacking]) -> None:
        """Count events of before by what their shards lack."""
        grouped: dict[tuple[str, tuple[int, ...]], list[LoggedEvent]] = {}
        for event in events:
            if measures := lacking[event.shard].get(event.brand):
                grouped.setdefault((event.brand, measures), []).append(event)
        for (brand, measures), some in grouped.items():
            table = self.of(brand)
            of_types = [table.features.measures[place].event_types for place in measures]
            types = set().union(*of_types)  # most events count for none of them
            counted = some if () in of_types else [e for e in some if e.type in types]
            if counted:
                table.backfill(EventColumns.of(counted, table.features), measures)

    def load(self, snapshot: ShardSnapshot) -> None:
        """Take in a shard as its snapshot has it."""
        self.reach(snapshot)
        for brand, part in snapshot.brands.items():
            self.of(brand).load(snapshot.shard, part)

    def reach(self, snapshot: ShardSnapshot) -> None:
        """Move the clocks on to the snapshot's: its buckets are those of its own clock."""
        for brand in snapshot.brands:
            self.of(brand).advance(snapshot.now_us)

    def take(self, shard: int, other: ShardTables) -> None:
        """Add what `other` knows of a shard."""
        for brand, theirs in other._tables.items():
            table = self.of(brand)
            table.catch_up(theirs)
            table.load(shard, theirs.export(shard))

    def snapshot(self, shard: int, seq: int) -> ShardSnapshot:
        """Return all that `shard` knows; `seq` is its last event."""
        parts = {brand: table.export(shard) for brand, table in self._tables.items()}
        now_us = max((table.now_us for table in self._tables.values()), default=0)
        known = {brand: part for brand, part in parts.items() if part.player_ids or part.ahead}
        return ShardSnapshot(shard, seq, now_us, known)

    def drop(self, shards: Iterable[int]) -> None:
        """Forget shards, at once."""
        dropped = list(shards)
        for table in self._tables.values():
            table.drop(dropped)
        for copy in self._copies.values():
            copy.drop(dropped)

    # --- scores ---------------------------------------------------------------------------------

    def serve(self, serving: Mapping[str, ServingScores]) -> None:
        """Have these models score the players of their brands, in slices: see `renew_scores`."""
        self._serving = serving
        for brand, table in self._tables.items():
            table.serve(serving.get(brand, NO_SCORES))
            if brand in self._copies:
                self._copies[brand].table.serve(serving.get(brand, NO_SCORES))

    def renew_scores(self, most: int) -> bool:
        """Score at most so many players who wait for it; return whether more do.

        First those whom readers wait for, of whatever brand.
        """
        for table in self._tables.values():
            table.age_scores()
        waiting = [table for table in self._tables.values() if table.scores.waiting]
        if waiting:
            late = (table for table in waiting if table.scores.late)
            next(late, waiting[0]).renew_scores(most)
        return any(table.scores.waiting for table in waiting)

    def renew_late(self, brands: Collection[str], most: int) -> bool:
        """If more than `most` players of some brands are late, score so many; return whether."""
        tables = [table for brand, table in self._tables.items() if brand in brands]
        for table in tables:
            table.age_scores()
        late = [table for table in tables if table.scores.late]
        if sum(table.scores.late for table in late) <= most:
            return False
        late[0].renew_scores(most)
        return True

    def scored(self, few: int) -> list[str]:
        """Return the brands whose new models have scored all players but a few."""
        return [brand for brand, table in self._tables.items() if table.scores.ready(few)]

    def reading(self) -> Mapping[str, ServingScores]:
        """Return by brand the models whose scores are read."""
        read = {brand: table.scores.serving for brand, table in self._tables.items()}
        return {**self._serving, **read}

    def reading_others(self, reading: Mapping[str, ServingScores]) -> list[str]:
        """Return the brands of which the scores of other models are read here."""
        return [
            brand
            for brand, table in self._tables.items()
            if table.scores.serving is not reading.get(brand, NO_SCORES)
        ]

    def take_scores(self) -> None:
        """Go over to the scores of new models, where nobody looks yet."""
        for table in self._tables.values():
            table.scores.take_over()

    def drop_copy(self, brand: str) -> None:
        """Begin a copy anew: what is begun has the scores of models that are read no longer."""
        self._copies.pop(brand, None)

    def tidy(self) -> bool:
        """Give back the rows of dropped shards, by a short step; return whether one is left."""
        for brand, table in self._tables.items():
            if brand not in self._copies and table.dead_rows > max(MANY_DEAD, len(table)):
                self._copies[brand] = _Copy(table)
        if not self._copies:
            return False
        brand, copy = next(iter(self._copies.items()))
        if copy.advance(self._tables[brand]):
            copy.table.lists = self._tables[brand].lists  # they may have changed meanwhile
            self._tables[brand] = self._copies.pop(brand).table
        return True
