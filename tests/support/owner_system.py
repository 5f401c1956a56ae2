"""Owners over one log that crash, move and lose commits, and what transitions must add up to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from crm.adapters.memory import MemoryEventLog, MemoryFiles, MemoryServing, MemoryWatched
from crm.domain.events import LoggedEvent
from crm.domain.feature_table import FeatureTable
from crm.domain.live_scores import NO_SCORES, ServingScores
from crm.domain.membership import Transition, Watched, WatchedSegment
from crm.domain.rule_text import parse
from crm.domain.shards import SHARDS
from crm.domain.times import from_us, to_us
from crm.services.shard_adoption import Adoption
from crm.services.shard_members import ShardMembers
from crm.services.shard_owner import ShardOwner, Stores
from tests.support.brute_force import features_of as features_by_definition
from tests.support.builders import NOON, a_brand
from tests.support.clock import Clock
from tests.support.live_scores import scores_of
from tests.support.rule_force import Check

BRAND = a_brand(time_zone="America/Sao_Paulo")
ALL = range(SHARDS)
Rules = list[tuple[str, Check]]


@dataclass
class Promotion:
    """Who is in, of some players, once so many transitions are written, and those then pending."""

    after: int
    pending: set[Transition]
    players: set[str]
    members: dict[str, set[str]]


class OwnerSystem:
    """Owners over one log, which is all that outlives them."""

    def __init__(self, rules: Rules, serving: ServingScores = NO_SCORES) -> None:
        self.rules = rules
        self.serving = MemoryServing({BRAND.id: serving})
        self._promoted: list[Promotion] = []
        self._read: ServingScores | None = None  # by whoever gives shards away
        self.log = MemoryEventLog()
        self.files = MemoryFiles()
        self.clock = Clock(NOON)
        segments = [
            WatchedSegment(f"s{n}", 1, parse(text, BRAND)) for n, (text, _) in enumerate(rules)
        ]
        self.watched = MemoryWatched(Watched({BRAND.id: segments}))
        self.owners: list[ShardOwner] = []
        self._writers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin with two new owners, who share the shards; the former ones say no word."""
        await self.stop()
        for number, shards in enumerate((ALL[::2], ALL[1::2])):
            stores = Stores(
                self.log, self.log, self.log, self.log, self.files, self.watched, self.serving
            )
            name = f"owner-{len(self.log.transitions)}-{number}-{id(stores)}"
            owner = ShardOwner(name, {BRAND.id: BRAND}, stores, self.clock, _no_pause)
            owner.scored_at_once = 1
            self._note_arrivals(owner)
            await owner.adopt(shards)
            self.owners.append(owner)
            self._writers.append(asyncio.create_task(owner.write_forever()))

    async def stop(self) -> None:
        for writer in self._writers:
            writer.cancel()
            with suppress(asyncio.CancelledError):
                await writer
        self._writers, self.owners = [], []

    async def append(self, events: Sequence[LoggedEvent]) -> None:
        for event in events:
            owner = next(one for one in self.owners if one.owns(event.shard))
            assert await owner.append([[event]]) == [["accepted"]]

    async def tell(self) -> None:
        """Have all written that the clock has caused until now."""
        for owner in self.owners:
            await owner._tell_until(to_us(self.clock()))

    async def promote(self, serving: ServingScores, *, at_once: bool) -> None:
        """Have other models serve: they score all players, or just begin to."""
        await self.take_scores()
        self.serving.set({BRAND.id: serving})
        for owner in self.owners:
            await owner._learn_models()
            owner._tables.renew_scores(2)
        if at_once:
            await self.take_scores()

    async def take_scores(self) -> None:
        """Have owners go over to the models that have been promoted."""
        for owner in self.owners:
            while owner._tables.renew_scores(1):
                pass
            async with owner._writing:
                await owner._commit([])

    async def move(self, shards: Sequence[int], giving: ShardOwner, taking: ShardOwner) -> None:
        """Have one owner let go of shards, and another serve them."""
        moved = await giving.release(shards)
        self._read = giving._tables.of(BRAND.id).scores.serving
        try:
            await taking.adopt(moved, released=True)
        finally:
            self._read = None

    def _note_arrivals(self, owner: ShardOwner) -> None:
        """Who is in, of shards that come, is as their new owner's models say, without a word."""
        members_of = type(owner)._members_of

        def noted(adoption: Adoption) -> ShardMembers:
            table = adoption.tables.of(BRAND.id)
            here = owner._tables.of(BRAND.id) if owner.epochs else table
            if self._read not in {None, here.scores.serving}:
                self._note(table, here.scores.serving, set())
            members = members_of(owner, adoption)
            self._note_promotions(members)
            return members

        owner._members_of = noted  # type: ignore[method-assign]  # watched, not replaced

    def _note_promotions(self, members: ShardMembers) -> None:
        """From then on who is in is as the new models say, without a word."""
        take = type(members).take_scores

        def noted(brand: str) -> None:
            take(members, brand)
            pending = set(members._pending) - set(self.log.transitions.values())
            table = members.tables.of(brand)
            self._note(table, table.scores.serving, pending)

        members.take_scores = noted  # type: ignore[method-assign]  # watched, not replaced

    def _note(self, table: FeatureTable, serving: ServingScores, pending: set[Transition]) -> None:
        """Know who of a table's players is in by some models, once what is pending is written."""
        members = self.members(from_us(table.now_us), serving)
        written, players = len(self.log.transitions), set(table.player_ids)
        self._promoted.append(Promotion(written, pending, players, members))

    def members_told(self) -> dict[str, set[str]]:
        """Follow the transitions in the order in which they were written."""
        found: dict[str, set[str]] = {f"s{n}": set() for n in range(len(self.rules))}
        promoted = list(self._promoted)
        for place, one in enumerate([*self.log.transitions.values(), None]):
            while promoted and promoted[0].after <= place and not promoted[0].pending:
                promotion = promoted.pop(0)
                for segment, members in promotion.members.items():
                    found[segment] -= promotion.players
                    found[segment] |= members & promotion.players
            if one is None:
                break
            for promotion in promoted:
                promotion.pending.discard(one)
            assert (one.player_id in found[one.segment]) != one.entered, one
            (found[one.segment].add if one.entered else found[one.segment].discard)(one.player_id)
        assert not promoted
        return found

    def members(
        self, now: datetime | None = None, serving: ServingScores | None = None
    ) -> dict[str, set[str]]:
        """Who the rules hold for now, by definition."""
        now = now or self.clock()
        serving = serving or self.serving.now(BRAND.id)
        events = [e for some in self.log.events.values() for e in some if e.occurred_at <= now]
        values = {
            player: features_by_definition([e for e in events if e.player_id == player], BRAND, now)
            for player in {event.player_id for event in events}
        }
        known = {player: {**some, **scores_of(serving, some)} for player, some in values.items()}
        return {
            f"s{n}": {player for player, found in known.items() if holds(found)}
            for n, (_, holds) in enumerate(self.rules)
        }


async def _no_pause(_s: float) -> None:
    """Nobody is there who could be misled."""


async def do(  # noqa: C901 - one branch a kind of act
    system: OwnerSystem, act: str, number: int, left: list[LoggedEvent]
) -> list[LoggedEvent]:
    """Do one thing to the system; return the events that are left."""
    size = number % 5 + 1 if number < 10**6 else len(left)
    match act:
        case "append":
            await system.append(left[:size])
            return left[size:]
        case "lose":
            system.log.lose_commit = ("before", "after")[number % 2]
            await system.append(left[:1])
            system.log.lose_commit = None
            return left[1:]
        case "crash":
            await system.start()
        case "snapshot":
            for owner in system.owners:
                if owner.epochs:
                    await owner.table(
                        BRAND.id
                    )  # somebody reads: its clock is ahead of the told one
                for shard in sorted(s for s, some in system.log.events.items() if some):
                    await owner.snapshot(shard)
        case "move":
            giving, taking = system.owners[number % 2], system.owners[1 - number % 2]
            await system.move(list(giving.epochs)[:: number % 2 + 1], giving, taking)
        case "later":
            hours = (0, 1, 5, 24, 24 * 7, 24 * 30)[number % 6]
            system.clock.move(hours=hours, seconds=number % 7)
            if number % 2:
                await system.tell()
        case _:
            pass
    return left
