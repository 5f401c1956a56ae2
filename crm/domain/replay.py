"""What-if: who would have been in a segment at the end of each of some past days.

The online engine's table is led through the days once, and the rule's mask is taken at the end of
each: so it is by construction what the live segment would have been at that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from heapq import nsmallest

import msgspec
import numpy as np
from numpy.typing import NDArray

from crm.domain.brands import Brand
from crm.domain.errors import InvalidRange
from crm.domain.event_columns import EventColumns
from crm.domain.feature_list import features_of
from crm.domain.feature_table import FeatureTable
from crm.domain.local_days import end_us
from crm.domain.segments import compile_mask, parse

Mask = NDArray[np.bool_]
Seen = Callable[[int, int], Iterable[EventColumns]]
"""Given two moments, what came to be seen after the first, up to and with the second."""

MAX_DAYS = 366
SAMPLE = 10
LONG_AGO_US = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Replay:
    """A rule (text) over the local days `first` to `last`, all of them past.

    An event counts at a moment if it had occurred and was known by then; with `known_by_us`, if it
    had occurred by then and was known by that one moment. `lists` are those that the rule names,
    their players by virtual shard.
    """

    brand: Brand
    rule: str
    first: date
    last: date
    known_by_us: int | None = None
    lists: Mapping[str, Mapping[int, Sequence[str]]] = field(default_factory=dict)

    def check(self, now_us: int) -> None:
        """Raise InvalidRange for days that cannot be replayed."""
        if self.last < self.first:
            raise InvalidRange("from: the range ends before it begins")
        if self.first < self.brand.starts_on:
            raise InvalidRange(f"from: brand {self.brand.id} began on {self.brand.starts_on}")
        if end_us(self.last.toordinal(), self.brand.zone) > now_us:
            raise InvalidRange("to: a day that is over where the brand is; today is not yet")
        if (self.last - self.first).days >= MAX_DAYS:
            raise InvalidRange(f"from: at most {MAX_DAYS} days at once")

    def of_shards(self, shards: Collection[int]) -> Replay:
        """Return what is asked of some virtual shards: with their players of the lists alone."""
        lists = {
            name: {shard: some for shard, some in by_shard.items() if shard in shards}
            for name, by_shard in self.lists.items()
        }
        return replace(self, lists=lists)

    @property
    def ends_us(self) -> list[int]:
        """The last moment of each day, and before them that of the day before."""
        days = range(self.first.toordinal() - 1, self.last.toordinal() + 1)
        return [end_us(day, self.brand.zone) for day in days]


class ReplayedDay(msgspec.Struct, frozen=True):
    """At a day's end: how many players were known, and how many were members of the segment.

    Who entered is a member and was none at the end of the day before; who left, the reverse. Up to
    ten of each, the first by id.
    """

    players: int
    members: int
    entered: int
    left: int
    entered_sample: Sequence[str]
    left_sample: Sequence[str]


class Replayed(msgspec.Struct, frozen=True):
    """Every day; before them `members_before`; `ever`: who was a member at the end of any day."""

    members_before: int
    ever: int
    days: Sequence[ReplayedDay]


def replayed(asked: Replay, seen: Seen) -> Replayed:
    """Return the members among the players of whom `seen` tells; raises InvalidRule."""
    brand, (before, *ends) = asked.brand, asked.ends_us
    rule = parse(asked.rule, brand)
    table = FeatureTable(brand.zone, before, features_of(brand))
    for name, by_shard in asked.lists.items():
        table.lists[name] = [player for some in by_shard.values() for player in some]

    def members_at(end: int, since: int) -> Mask:
        table.advance(end)
        for events in seen(since, end):
            table.apply(events)
        return compile_mask(rule, brand, table, len(table))

    members = members_at(before, LONG_AGO_US)
    found, days, members_before = np.zeros(0, dtype=np.bool_), [], int(members.sum())
    for end in ends:
        now = members_at(end, before)
        was = _wider(members, len(now))
        found = _wider(found, len(now)) | now
        days.append(_day(table, was, now))
        members, before = now, end
    return Replayed(members_before, int(found.sum()), days)


def joined(parts: Sequence[Replayed], days: int) -> Replayed:
    """Return what happened to the players of all parts together, each of so many days."""
    return Replayed(
        members_before=sum(part.members_before for part in parts),
        ever=sum(part.ever for part in parts),
        days=[_joined_day([part.days[day] for part in parts]) for day in range(days)],
    )


def _joined_day(parts: Sequence[ReplayedDay]) -> ReplayedDay:
    return ReplayedDay(
        players=sum(part.players for part in parts),
        members=sum(part.members for part in parts),
        entered=sum(part.entered for part in parts),
        left=sum(part.left for part in parts),
        entered_sample=nsmallest(SAMPLE, [p for part in parts for p in part.entered_sample]),
        left_sample=nsmallest(SAMPLE, [p for part in parts for p in part.left_sample]),
    )


def _day(table: FeatureTable, was: Mask, now: Mask) -> ReplayedDay:
    ids = table.player_ids

    def sample(which: Mask) -> list[str]:
        return nsmallest(SAMPLE, [ids[place] for place in np.flatnonzero(which).tolist()])

    entered, left = now & ~was, was & ~now
    return ReplayedDay(
        players=len(now),
        members=int(now.sum()),
        entered=int(entered.sum()),
        left=int(left.sum()),
        entered_sample=sample(entered),
        left_sample=sample(left),
    )


def _wider(mask: Mask, players: int) -> Mask:
    """Return a mask with the players who have come since: rows only ever follow."""
    return np.concatenate((mask, np.zeros(players - len(mask), dtype=np.bool_)))
