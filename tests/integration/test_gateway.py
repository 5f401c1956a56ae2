"""Supervisor, owners and gateway on Ray and PostgreSQL: they are killed, stopped, and go on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import psutil
import pytest
import ray
from ray.exceptions import RayActorError, RayTaskError

from actors import supervisor
from actors.gateway import ShardGateway
from actors.owners import NAMESPACE, Slot, SupervisorSpec
from actors.settings import ShardSettings
from actors.supervisor import NAME
from actors.wire import AppendCall, decode_verdicts, encode
from crm.adapters import clock
from crm.adapters.postgres.events import PostgresEventLog
from crm.domain.errors import CrmError, DatabaseAway, ShardsWarming
from crm.domain.events import LoggedEvent
from crm.domain.features import FEATURES
from tests.support.builders import a_brand, a_logged_event
from tests.support.recount import by_player, differences, recount
from tests.support.wait import wait_for, wait_for_async

BRAND = a_brand()
BRANDS = {BRAND.id: BRAND}
OWNERS = ShardSettings(owners=2, snapshot_age_s=2)
LONG_S = 120  # a deadline, not a measure: the machine may be busy


@pytest.fixture
def shards(ray_cluster: None, dsn: str, tmp_path: Path) -> Iterator[str]:
    """Owners of all virtual shards over an empty database: yields its DSN."""
    supervisor.start(SupervisorSpec(BRANDS, dsn, str(tmp_path), OWNERS))
    yield dsn
    _end_all()


def _end_all() -> None:
    """End every actor of ours in the one Ray, and wait until their names are free."""
    for name in [NAME, *_owner_names()]:
        with suppress(ValueError):
            ray.kill(ray.get_actor(name, namespace=NAMESPACE), no_restart=True)
    wait_for(lambda: not _owner_names(), "the owners have ended", deadline_s=LONG_S)


def _owner_names() -> list[str]:
    named = ray.util.list_named_actors(all_namespaces=True)
    return [actor["name"] for actor in named if actor["name"].startswith("shards-")]


@asynccontextmanager
async def a_gateway(dsn: str) -> AsyncIterator[ShardGateway]:
    log = PostgresEventLog(dsn, clock.now)
    yield ShardGateway(BRANDS, log)
    await log.close()


def _event(number: int) -> LoggedEvent:
    return a_logged_event(event_id=f"e{number}", player_id=f"p{number % 40}")


class Sender:
    """Appends one event after the other until it is told to stop; tries again what failed."""

    def __init__(self, gateway: ShardGateway, start: int = 0) -> None:
        self._gateway = gateway
        self._next = self._start = start
        self.acknowledged: set[str] = set()
        self.failures = 0

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await asyncio.gather(*[self._send(self._next + n) for n in range(20)])
            self._next += 20

    async def _send(self, number: int) -> None:
        event = _event(number)

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

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Sender]:
        """Send in the background for the length of a block."""
        stop = asyncio.Event()
        sending = asyncio.create_task(self.run(stop))
        await self.progress()
        yield self
        await self.progress()
        stop.set()
        await asyncio.wait_for(sending, LONG_S)

    async def progress(self) -> None:
        """Wait until every player has got new events acknowledged."""
        goal = len(self.acknowledged) + 100

        async def reached() -> bool:
            return len(self.acknowledged) >= goal

        await wait_for_async(reached, "events are acknowledged again", deadline_s=LONG_S)


async def _faults(gateway: ShardGateway, dsn: str, acknowledged: set[str]) -> list[str]:
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


async def _value(dsn: str, sql: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval(sql))
    finally:
        await connection.close()


async def _owner(gateway: ShardGateway, other_than: str = "") -> Slot:
    """The first slot's owner, once it is ready."""

    async def found() -> Slot | None:
        with suppress(CrmError):
            slot = (await gateway.routes()).slots[0]
            return slot if slot.state.ready and slot.name != other_than else None
        return None

    slot = await wait_for_async(found, "the slot has an owner", deadline_s=LONG_S)
    assert slot is not None
    return slot


async def _successor(gateway: ShardGateway, former: Slot) -> Slot:
    return await _owner(gateway, other_than=former.name)


async def _spare(gateway: ShardGateway) -> str:
    """The process that is ready for the next succession."""

    async def spare() -> str | None:
        return (await gateway.routes()).spare

    return str(await wait_for_async(spare, "a process waits for its turn", deadline_s=LONG_S))


async def test_events_go_in_and_features_counts_and_columns_come_out(shards: str) -> None:
    async with a_gateway(shards) as gateway:
        verdicts = await gateway.append([[_event(n)] for n in range(400)])
        assert verdicts == [["accepted"]] * 400
        again = await gateway.append([[_event(n)] for n in (1, 2, 3)])
        assert again == [["duplicate"]] * 3
        features = await gateway.features(BRAND.id, "p7")
        assert features.values["bet_count_lifetime"] == 10
        assert features.values["stake_amount_lifetime"] == 12_500
        count = await gateway.count(BRAND.id, "bet_count_lifetime >= 10")
        assert (count.count, count.total) == (40, 40)
        assert await _faults(gateway, shards, {f"e{n}" for n in range(400)}) == []


async def test_a_killed_owner_has_a_successor_and_nothing_is_lost_or_counted_twice(
    shards: str,
) -> None:
    async with a_gateway(shards) as gateway:
        async with Sender(gateway).running() as sender:
            for killed in range(2):
                owner, spare = await _owner(gateway), await _spare(gateway)
                os.kill(owner.state.pid, signal.SIGKILL)
                assert (await _successor(gateway, owner)).name == spare
                await sender.progress()
                assert (await gateway.routes()).slots[0].successions > killed
        assert await _faults(gateway, shards, sender.acknowledged) == []
        # the check itself: it must see a loss, and what is counted twice
        assert await _faults(gateway, shards, {*sender.acknowledged, "never sent"}) != []


async def test_a_stopped_owner_that_wakes_up_writes_nothing_and_is_not_believed(
    shards: str,
) -> None:
    late = _event(10**6)
    while late.shard % 2:  # of the first owner
        late = _event(int(late.event_id[1:]) + 1)
    async with a_gateway(shards) as gateway:
        former = await _owner(gateway)
        process = psutil.Process(former.state.pid)
        async with Sender(gateway).running() as sender:
            process.suspend()
            try:
                await _successor(gateway, former)
                await sender.progress()  # what hung at the stopped owner is sent to the successor
                write = former.handle.append.remote(encode(AppendCall([[late]])))
                read = former.handle.features.remote(BRAND.id, late.player_id, late.shard)
            finally:
                process.resume()
            with suppress(RayActorError, RayTaskError):  # it may have left before it got the call
                assert decode_verdicts(await write) == [["moved"]]
            with pytest.raises((RayActorError, RayTaskError)):
                await read
        await wait_for_async(
            lambda: _value(shards, "SELECT sum(stale_refusals) FROM virtual_shards"),
            "the refusal is counted", deadline_s=LONG_S,
        )  # fmt: skip
        by_late = f"SELECT count(*) FROM event_ids WHERE event_id = '{late.event_id}'"
        assert await _value(shards, by_late) == 0
        assert await _faults(gateway, shards, sender.acknowledged) == []
        await asyncio.to_thread(process.wait, LONG_S)  # it leaves by itself


async def test_after_a_stop_a_new_start_serves_what_was_stored(shards: str, tmp_path: Path) -> None:
    async with a_gateway(shards) as gateway:
        await gateway.append([[_event(n)] for n in range(80)])
    await asyncio.to_thread(supervisor.stop)
    assert _owner_names() == []
    spec = SupervisorSpec(BRANDS, shards, str(tmp_path), OWNERS)
    await asyncio.to_thread(supervisor.start, spec)
    async with a_gateway(shards) as gateway:
        assert await gateway.append([[_event(n)] for n in (7, 80)]) == [["duplicate"], ["accepted"]]
        assert await _faults(gateway, shards, {f"e{n}" for n in range(81)}) == []


async def test_owners_go_on_without_the_supervisor_and_a_new_one_adopts_them(shards: str) -> None:
    async with a_gateway(shards) as gateway, Sender(gateway).running() as sender:
        before = await _owner(gateway)
        ray.kill(ray.get_actor(NAME, namespace=NAMESPACE), no_restart=False)
        await sender.progress()
        async with a_gateway(shards) as stranger:  # one that has no routes of former times
            adopted = await _owner(stranger)
            assert adopted.name == before.name
        # it is watched again
        os.kill(before.state.pid, signal.SIGKILL)
        await _successor(gateway, before)
    async with a_gateway(shards) as gateway:
        assert await _faults(gateway, shards, sender.acknowledged) == []
