"""Who is in the live segments, of an owner's players, and what of that is yet to be told."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from typing import Protocol

from crm.domain.brands import Brand
from crm.domain.events import LoggedEvent
from crm.domain.live_scores import ServingScores
from crm.domain.membership import Caused, Membership, Transition, Watched
from crm.domain.telling import Told
from crm.services.shard_tables import ShardTables


class SegmentSource(Protocol):
    """Where the live segments stand; may raise DatabaseAway."""

    async def revision(self) -> int:
        """Return a number that rises with every change to any segment."""

    async def live(self, shards: Collection[int]) -> Watched:
        """Return all that are live, with the players of lists that are of these shards."""


class ModelSource(Protocol):
    """Which models serve; may raise DatabaseAway."""

    async def live(self) -> Mapping[str, ServingScores]:
        """Return what serves by brand: the same object as long as the same models do."""


class ShardMembers:
    """Memberships over `tables`, by brand. The writer alone calls what changes them."""

    def __init__(self, owner: str, brands: Mapping[str, Brand], tables: ShardTables) -> None:
        self.tables = tables
        self.live = Watched()
        self.told_us = 0  # up to here all is written
        self._owner = owner
        self._brands = brands
        self._of: dict[str, Membership] = {}
        self._pending: list[Transition] = []
        self._arrived: set[int] = set()
        self._must_tell = False

    def use(self, live: Watched) -> None:
        """Have these segments live: whoever is in then, has not entered."""
        self.tick()  # what is due by the clock is due whatever comes to be live
        self.live = live
        for brand in {*live.lists} & self._brands.keys():
            self.tables.of(brand).lists = dict(live.lists[brand])
        for brand in {*self._of, *live.segments}:
            self._membership(brand).use(live.segments.get(brand, ()))
        self._must_tell = True

    def take_scores(self, brand: str) -> None:
        """Go over to the scores of new models: whoever is in then, has not entered."""
        self.tick()
        self.tables.drop_copy(brand)
        if brand in self._of:
            self._of[brand].take_scores()
        else:
            self.tables.of(brand).scores.take_over()

    def list_more(self, live: Watched) -> None:
        """Know of further players on our lists, in shards that are about to arrive.

        Not of another version of a list, as `live` may have it: everybody else here would move.
        """
        ours, theirs = _list_versions(self.live), _list_versions(live)
        for brand in {*self.live.lists, *live.lists} & self._brands.keys():
            table = self.tables.of(brand)
            table.lists |= {
                name: players
                for name, players in live.lists.get(brand, {}).items()
                if live is self.live or (name in ours and ours[name] == theirs.get(name))
            }

    def tick(self) -> None:
        """Take in what the clock has caused."""
        self._follow_tables()
        for membership in self._of.values():
            self._pending += membership.moved()

    def must_tell(self) -> None:
        """Have it written where the clock stands, though nothing may have happened."""
        self._must_tell = bool(self.live)

    def telling(self) -> OwnersTelling:
        """Return what is to be written next."""
        if self.live:
            self.tick()
        return OwnersTelling(self, self._owner, list(self._pending), set(self._arrived),
                             due=self._must_tell)  # fmt: skip

    def caused_by(
        self, new: Sequence[LoggedEvent], seqs: Sequence[int]
    ) -> tuple[dict[str, Caused], int]:
        """Return what events will cause, by brand, and by which clock."""
        by_brand: dict[str, list[int]] = {}
        for place, event in enumerate(new):
            by_brand.setdefault(event.brand, []).append(place)
        caused = {
            brand: self._membership(brand).caused_by(
                [new[n] for n in places], [seqs[n] for n in places]
            )
            for brand, places in by_brand.items()
            if brand in self._of
        }
        return caused, self.clock_us

    @property
    def clock_us(self) -> int:
        """Where the tables' clocks stand: the one that is furthest behind."""
        return min((self.tables.of(brand).now_us for brand in self._of), default=0)

    def settle(self, telling: OwnersTelling, applied: Sequence[LoggedEvent]) -> None:
        """Take in that `telling` is written, and its events are applied."""
        self._follow_tables()  # one may have been exchanged while the events were written
        written = set(telling.pending)
        self._pending = [one for one in self._pending if one not in written]
        self._arrived -= telling.arrived
        self._must_tell = False
        self.told_us = max(self.told_us, telling.clock_us or 0)
        for brand, caused in telling.caused.items():
            if brand in self._of:  # else all shards went and came back meanwhile
                self._of[brand].settle(caused, [one for one in applied if one.brand == brand])

    # --- shards come and go ---------------------------------------------------------------------

    def arrive(self, shards: Iterable[int], pending: Iterable[Transition] = ()) -> None:
        """Shards are served from now on; what the clock has caused of them is to be told."""
        self._arrived |= set(shards)
        self._pending += pending

    def take(self, shard: int, other: ShardMembers) -> None:
        """Take in who of a shard is in, as another owner's tables had it, now that it is here."""
        self._follow_tables()
        for brand, theirs in other._of.items():  # its own kind
            self._membership(brand).take(self.tables.of(brand).rows_of(shard), theirs)

    def drop(self, shards: Collection[int]) -> None:
        """Say nothing more of shards that have gone."""
        self._pending = [one for one in self._pending if one.shard not in shards]
        self._arrived -= set(shards)

    def leave(self) -> list[Transition]:
        """Return what is pending: somebody else tells it."""
        pending, self._pending = self._pending, []
        return pending

    def _membership(self, brand: str) -> Membership:
        if brand not in self._of:
            self._of[brand] = Membership(self._brands[brand], self.tables.of(brand))
        return self._of[brand]

    def _follow_tables(self) -> None:
        """Go over to a table that stands in the place of another."""
        for brand, membership in self._of.items():
            if membership.table is not self.tables.of(brand):
                self._of[brand] = membership.over(self.tables.of(brand))


def _list_versions(live: Watched) -> dict[str, int]:
    """Return the versions of the lists that live rules ask for."""
    segments = [segment for of_brand in live.segments.values() for segment in of_brand]
    return {name: version for segment in segments for name, version in segment.lists}


class OwnersTelling:
    """See crm/domain/telling.py."""

    def __init__(
        self,
        members: ShardMembers,
        owner: str,
        pending: Sequence[Transition],
        arrived: Set[int],
        *,
        due: bool,
    ) -> None:
        self.pending = pending
        self.arrived = arrived
        self.caused: dict[str, Caused] = {}
        self.clock_us: int | None = None
        self._members = members
        self._owner = owner
        self._due = due

    @property
    def shards(self) -> Set[int]:
        """The shards of which something is pending."""
        return {one.shard for one in self.pending} | self.arrived

    @property
    def due(self) -> bool:
        """Whether there is something to write without any event."""
        return self._due or bool(self.shards)

    def of(self, new: Sequence[LoggedEvent], seqs: Sequence[int], lost: Set[int]) -> Told | None:
        """Return what is pending and what the events cause."""
        if not self._members.live:
            return Told(self._owner, None, [], sorted(self.arrived - lost))
        self._members.tables.advance()
        again = self._members.telling()
        held = self.shards | lost
        self.pending, self.arrived = again.pending, again.arrived
        if not self.shards <= held:
            return None
        self.caused, self.clock_us = self._members.caused_by(new, seqs)
        transitions = [one for one in self.pending if one.shard not in lost]
        for caused in self.caused.values():
            transitions += caused.transitions
        return Told(self._owner, self.clock_us, transitions, sorted(self.arrived - lost))
