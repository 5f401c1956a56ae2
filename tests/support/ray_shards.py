"""Shard owners on the one Ray of a test run, events that flow in, and what became of these."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import asyncpg
import ray

from actors import supervisor
from actors.gateway import ShardGateway
from actors.owners import SupervisorSpec
from actors.processes import NAMESPACE, PREFIX
from actors.settings import ShardSettings
from actors.supervisor import NAME
from crm.adapters import clock
from crm.adapters.postgres.events import PostgresEventLog
from crm.domain.errors import DatabaseAway, ShardsWarming
from crm.domain.events import LoggedEvent
from crm.domain.features import FEATURES
from tests.support.builders import a_brand, a_logged_event
from tests.support.recount import by_player, differences, recount
from tests.support.wait import wait_for, wait_for_async

BRAND = a_brand()
BRANDS = {BRAND.id: BRAND}
LONG_S = 120  # a deadline, not a measure: the machine may be busy


def a_spec(dsn: str, lake: Path, *, owners: int, misses: int = 3) -> SupervisorSpec:
    """What a supervisor of so many owners is told."""
    settings = ShardSettings(owners=owners, snapshot_age_s=2, misses=misses)
    return SupervisorSpec(BRANDS, dsn, str(lake), settings)


@contextmanager
def running_shards(spec: SupervisorSpec) -> Iterator[None]:
    """Owners of all virtual shards; every actor of ours has ended when the block has."""
    supervisor.start(spec)
    try:
        yield
    finally:
        for name in [NAME, *owner_names()]:
            with suppress(ValueError):
                ray.kill(ray.get_actor(name, namespace=NAMESPACE), no_restart=True)
        wait_for(lambda: not owner_names(), "the owners have ended", deadline_s=LONG_S)


def owner_names() -> list[str]:
    """The names of all processes that own shards, or may."""
    named = ray.util.list_named_actors(all_namespaces=True)
    return [actor["name"] for actor in named if actor["name"].startswith(PREFIX)]


@asynccontextmanager
async def a_gateway(dsn: str) -> AsyncIterator[ShardGateway]:
    """A gateway that asks the one supervisor."""
    log = PostgresEventLog(dsn, clock.now)
    try:
        yield ShardGateway(BRANDS, log)
    finally:
        await log.close()


def an_event(number: int, players: int = 40) -> LoggedEvent:
    """A bet of one of so many players."""
    return a_logged_event(event_id=f"e{number}", player_id=f"p{number % players}")


class Sender:
    """Sends one bet of each player after the other; tries again what failed."""

    def __init__(self, gateway: ShardGateway, players: int = 40) -> None:
        self._gateway = gateway
        self._sent = [0] * players
        self.acknowledged: set[str] = set()
        self.failures = 0
        self.gaps_s: dict[int, float] = {}  # by shard: the longest wait for an acknowledgement
        self._last: dict[int, float] = {}

    @property
    def attempted(self) -> int:
        """How many events were sent, each once or more often."""
        return sum(self._sent)

    @property
    def longest_gap_s(self) -> float:
        """The longest time in which some shard acknowledged nothing."""
        return max(self.gaps_s.values())

    async def _run(self, player: int, stop: asyncio.Event) -> None:
        players = len(self._sent)
        while not stop.is_set():
            number = player + players * self._sent[player]
            self._sent[player] += 1
            await self._send(an_event(number, players))

    async def _send(self, event: LoggedEvent) -> None:
        async def acknowledged() -> bool:
            try:
                ((verdict,),) = await self._gateway.append([[event]])
            except (ShardsWarming, DatabaseAway):
                self.failures += 1
                return False
            assert verdict in ("accepted", "duplicate")
            return True

        await wait_for_async(acknowledged, "an event is taken", deadline_s=LONG_S, every_s=0.1)
        self.acknowledged.add(event.event_id)
        now = asyncio.get_running_loop().time()
        gap = now - self._last.get(event.shard, now)
        self.gaps_s[event.shard] = max(gap, self.gaps_s.get(event.shard, 0))
        self._last[event.shard] = now

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Sender]:
        """Send in the background for the length of a block."""
        stop = asyncio.Event()
        players = range(len(self._sent))
        sending = [asyncio.create_task(self._run(player, stop)) for player in players]
        try:
            await self.progress()
            yield self
            await self.progress()
        finally:
            stop.set()
            await asyncio.wait_for(asyncio.gather(*sending), LONG_S)

    async def progress(self) -> None:
        """Wait until every player has got a new event acknowledged."""
        goals = [sent + 2 for sent in self._sent]  # one more begun: the one before is acknowledged

        async def reached() -> bool:
            return all(sent >= goal for sent, goal in zip(self._sent, goals, strict=True))

        await wait_for_async(reached, "events are acknowledged again", deadline_s=LONG_S)


async def faults(gateway: ShardGateway, dsn: str, acknowledged: set[str]) -> list[str]:
    """What is lost, or not as the recount says; every event is a bet of its own."""
    columns = await gateway.columns(BRAND.id, list(FEATURES))
    found = by_player(columns)
    expected = await recount(dsn, BRAND, columns.as_of)
    connection = await asyncpg.connect(dsn)
    stored = {row["event_id"] for row in await connection.fetch("SELECT event_id FROM event_ids")}
    counted = await connection.fetchval("SELECT count(*) FROM user_transactions")
    await connection.close()
    bets = sum(values["bet_count_lifetime"] for values in found.values())
    return [
        *differences(found, expected),
        *[f"{event_id} is lost" for event_id in acknowledged - stored],
        *([f"{bets} bets counted, {counted} rows, {len(stored)} ids"]
          if not bets == counted == len(stored) else []),
    ]  # fmt: skip
