"""Through crashes, moves and lost commits each transition is written once, and they add up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from crm.adapters.memory import MemoryEventLog, MemoryFiles, MemoryWatched
from crm.domain.events import LoggedEvent
from crm.domain.membership import Watched, WatchedSegment
from crm.domain.rule_text import parse
from crm.domain.shards import SHARDS
from crm.domain.times import to_us
from crm.services.shard_owner import ShardOwner, Stores
from tests.support.brute_force import features_of as features_by_definition
from tests.support.builders import NOON, a_brand
from tests.support.clock import Clock
from tests.support.histories import histories
from tests.support.rule_force import Check, rule_texts

BRAND = a_brand(time_zone="America/Sao_Paulo")
ALL = range(SHARDS)
Rules = list[tuple[str, Check]]


class _System:
    """Owners over one log, which is all that outlives them."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
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
        """Begin with two new owners, one of which has all shards; the former ones say no word."""
        await self.stop()
        for number, shards in enumerate((ALL, ())):
            stores = Stores(self.log, self.log, self.log, self.log, self.files, self.watched)
            name = f"owner-{len(self.log.transitions)}-{number}-{id(stores)}"
            owner = ShardOwner(name, {BRAND.id: BRAND}, stores, self.clock, _no_pause)
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

    def members_told(self) -> dict[str, set[str]]:
        """Follow the transitions in the order in which they were written."""
        found: dict[str, set[str]] = {f"s{n}": set() for n in range(len(self.rules))}
        for one in self.log.transitions.values():
            assert (one.player_id in found[one.segment]) != one.entered, one
            (found[one.segment].add if one.entered else found[one.segment].discard)(one.player_id)
        return found

    def members(self) -> dict[str, set[str]]:
        """Who the rules hold for now, by definition."""
        now = self.clock()
        events = [e for some in self.log.events.values() for e in some if e.occurred_at <= now]
        values = {
            player: features_by_definition([e for e in events if e.player_id == player], BRAND, now)
            for player in {event.player_id for event in events}
        }
        return {
            f"s{n}": {player for player, found in values.items() if holds(found)}
            for n, (_, holds) in enumerate(self.rules)
        }


async def _no_pause(_s: float) -> None:
    """Nobody is there who could be misled."""


_ACTS = st.sampled_from(
    ["append", "append", "append", "crash", "snapshot", "move", "later", "later", "lose"]
)


@given(
    st.lists(rule_texts(), min_size=1, max_size=3),
    histories(BRAND, NOON, max_size=16),
    st.lists(st.tuples(_ACTS, st.integers(0, 10**6)), min_size=6, max_size=20),
)
async def test_transitions_add_up_to_the_members_whatever_happens_to_owners(
    rules: Rules, events: list[LoggedEvent], acts: list[tuple[str, int]]
) -> None:
    system = _System(rules)
    left = [replace(event, received_at=event.occurred_at, backfill=False) for event in events]
    await system.start()
    try:
        for act, number in [*acts, ("append", 99), ("later", 0)]:
            left = await _act(system, act, number, left)
        await system.tell()
        assert system.members_told() == system.members()
    finally:
        await system.stop()


async def _act(  # noqa: C901 - one branch a kind of act
    system: _System, act: str, number: int, left: list[LoggedEvent]
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
            moved = await giving.release(list(giving.epochs)[:: number % 2 + 1])
            await taking.adopt(moved, released=True)
        case "later":
            hours = (0, 1, 5, 24, 24 * 7, 24 * 30)[number % 6]
            system.clock.move(hours=hours, seconds=number % 7)
            if number % 2:
                await system.tell()
        case _:
            pass
    return left
