"""What-if over past days: asked for, checked, and told."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Protocol

import msgspec

from crm.domain.brands import Brand
from crm.domain.errors import InvalidRule
from crm.domain.replay import Replay, Replayed
from crm.domain.rule_references import references
from crm.domain.segments import parse, to_text
from crm.domain.times import from_us, to_us


class Replays(Protocol):
    """Where replays are worked out."""

    async def run(self, asked: Replay) -> Replayed:
        """Return a replay; raises TooMuchWork, InvalidRule, DatabaseAway."""


class DayOfReplay(msgspec.Struct):
    """A local day of the brand: the members at its end, and who came and went since the day before.

    Samples are of up to ten players, the first by id.
    """

    date: date
    players: int
    members: int
    entered: int
    left: int
    entered_sample: Sequence[str]
    left_sample: Sequence[str]


class ReplayTotal(msgspec.Struct):
    """`ever`: the players who were members at the end of any of the days."""

    entered: int
    left: int
    ever: int


class SegmentReplay(msgspec.Struct):
    """Who would have been in a segment, by day; `known_by` null: each day as it was known then."""

    brand: str
    rule: str
    first: date = msgspec.field(name="from")
    last: date = msgspec.field(name="to")
    known_by: datetime | None
    members_before: int
    days: list[DayOfReplay]
    total: ReplayTotal


def request(
    brand: Brand, rule: str, first: date, last: date, known_by: datetime | None, now: datetime
) -> Replay:
    """Return what to replay; raises InvalidRule, InvalidRange."""
    tree = parse(rule, brand)
    if named := sorted(references(tree)):
        raise InvalidRule(f'segment "{named[0]}": a replay takes its rule, written out')
    known_by_us = None if known_by is None else to_us(known_by)
    asked = Replay(brand, to_text(tree), first, last, known_by_us)
    asked.check(to_us(now))
    return asked


def told(asked: Replay, found: Replayed) -> SegmentReplay:
    """Return a replay as it is told."""
    days = [
        DayOfReplay(
            asked.first + timedelta(days=number),
            day.players, day.members, day.entered, day.left, day.entered_sample, day.left_sample,
        )
        for number, day in enumerate(found.days)
    ]  # fmt: skip
    return SegmentReplay(
        brand=asked.brand.id,
        rule=asked.rule,
        first=asked.first,
        last=asked.last,
        known_by=None if asked.known_by_us is None else from_us(asked.known_by_us),
        members_before=found.members_before,
        days=days,
        total=ReplayTotal(
            sum(day.entered for day in days), sum(day.left for day in days), found.ever
        ),
    )
