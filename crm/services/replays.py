"""What-if over past days: asked for, checked, and told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Protocol

import msgspec

from crm.domain.brands import Brand
from crm.domain.errors import InvalidRule, TooMuchWork
from crm.domain.replay import Replay, Replayed
from crm.domain.rule_clock import asks_scores
from crm.domain.rule_terms import OnList
from crm.domain.rules import leaves_of
from crm.domain.segments import parse, to_text
from crm.domain.shards import SHARDS
from crm.domain.times import from_us, to_us
from crm.services import segment_rules
from crm.services.segment_store import SegmentSizes

LISTED_OVER_HTTP = 200_000  # players of lists: about a second's reading


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
    """Return what is asked; its rule may name segments still. Raises InvalidRule, InvalidRange."""
    known_by_us = None if known_by is None else to_us(known_by)
    asked = Replay(brand, to_text(parse(rule, brand)), first, last, known_by_us)
    asked.check(to_us(now))
    return asked


async def written_out(asked: Replay, store: SegmentSizes, most: int | None = None) -> Replay:
    """Return what to replay: segments that the rule names as they are now, and players of lists.

    More than `most` players of lists are refused. Raises InvalidRule, TooMuchWork, DatabaseAway.
    """
    rule = await segment_rules.written_out(asked.rule, asked.brand, store)
    if asks_scores(rule):
        raise InvalidRule("what models say is live: a replay of past days has none of it")
    lists = sorted({leaf.list for leaf in leaves_of(rule) if isinstance(leaf, OnList)})
    listed = sum([await store.count_players(name) for name in lists]) if most is not None else 0
    if most is not None and listed > most:
        raise TooMuchWork(
            f"a replay reads whole lists, here {listed:,} players; over HTTP at most {most:,} are"
            " read: use `crm segments replay`"
        )
    players = {name: await store.players_of(name, range(SHARDS)) for name in lists}
    return replace(asked, rule=to_text(rule), lists=players)


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
