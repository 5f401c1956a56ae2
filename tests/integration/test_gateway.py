"""Supervisor, owners and gateway on Ray and PostgreSQL: they are killed, stopped, and go on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import psutil
import pytest
import ray
from ray.exceptions import RayActorError, RayTaskError

from actors import supervisor
from actors.gateway import ShardGateway
from actors.owners import Slot
from actors.processes import NAMESPACE
from actors.supervisor import NAME
from actors.wire import AppendCall, FeaturesOf, decode_verdicts, encode
from crm.domain.errors import CrmError, ShardsWarming
from crm.domain.rule_text import parse
from tests.support.ray_shards import (
    BRAND,
    LONG_S,
    Sender,
    a_gateway,
    a_spec,
    an_event,
    faults,
    owner_names,
    running_shards,
)
from tests.support.wait import wait_for_async

pytestmark = pytest.mark.one_server


@pytest.fixture
def shards(ray_cluster: None, dsn: str, tmp_path: Path) -> Iterator[str]:
    """Two owners of all virtual shards over an empty database: yields its DSN."""
    with running_shards(a_spec(dsn, tmp_path, owners=2)):
        yield dsn


@pytest.fixture
def patiently_watched(ray_cluster: None, dsn: str, tmp_path: Path) -> Iterator[str]:
    """As `shards`; owners that a busy machine makes late stay what they are."""
    with running_shards(a_spec(dsn, tmp_path, owners=2, misses=60)):
        yield dsn


async def _value(dsn: str, sql: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval(sql))
    finally:
        await connection.close()


async def _owner(gateway: ShardGateway, other_than: str = "") -> Slot:
    """The owner of shard 0, once it is ready; which slot that is changes with a take-over."""

    async def found() -> Slot | None:
        with suppress(CrmError):
            routes = await gateway.routes()
            slot = routes.slots[routes.slot_of[0]]
            return slot if slot.state.ready and slot.name != other_than else None
        return None

    slot = await wait_for_async(found, "the shard has an owner", deadline_s=LONG_S)
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
        verdicts = await gateway.append([[an_event(n)] for n in range(400)])
        assert verdicts == [["accepted"]] * 400
        again = await gateway.append([[an_event(n)] for n in (1, 2, 3)])
        assert again == [["duplicate"]] * 3
        features = await gateway.features(BRAND.id, "p7")
        assert features.values["bet_count_lifetime"] == 10
        assert features.values["stake_amount_lifetime"] == 12_500
        count = await gateway.count(BRAND.id, parse("bet_count_lifetime >= 10"))
        assert (count.count, count.total, count.terms) == (40, 40, [(40, 0)])
        assert await faults(gateway, shards, {f"e{n}" for n in range(400)}) == []


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
        assert await faults(gateway, shards, sender.acknowledged) == []
        # the check itself: it must see a loss, and what is counted twice
        assert await faults(gateway, shards, {*sender.acknowledged, "never sent"}) != []


async def test_a_stopped_owner_that_wakes_up_writes_nothing_and_is_not_believed(
    shards: str,
) -> None:
    late = an_event(10**6)
    while late.shard % 2:  # of the first owner
        late = an_event(int(late.event_id[1:]) + 1)
    async with a_gateway(shards) as gateway:
        former = await _owner(gateway)
        process = psutil.Process(former.state.pid)
        async with Sender(gateway).running() as sender:
            process.suspend()
            try:
                await _successor(gateway, former)
                await sender.progress()  # what hung at the stopped owner is sent to the successor
                write = former.handle.append.remote(encode(AppendCall([[late]])))
                asked = [FeaturesOf(BRAND.id, late.player_id, late.shard)]
                read = former.handle.features.remote(asked)
            finally:
                process.resume()
            with suppress(RayActorError, RayTaskError):  # it may have left before it got the call
                assert decode_verdicts(await write) == [["moved"]]
            with suppress(RayActorError, RayTaskError):
                (answer,) = await read
                assert isinstance(answer, ShardsWarming)
        await wait_for_async(
            lambda: _value(shards, "SELECT sum(stale_refusals) FROM virtual_shards"),
            "the refusal is counted", deadline_s=LONG_S,
        )  # fmt: skip
        by_late = f"SELECT count(*) FROM event_ids WHERE event_id = '{late.event_id}'"
        assert await _value(shards, by_late) == 0
        assert await faults(gateway, shards, sender.acknowledged) == []
        await asyncio.to_thread(process.wait, LONG_S)  # it leaves by itself


async def test_after_a_stop_a_new_start_serves_what_was_stored(shards: str, tmp_path: Path) -> None:
    async with a_gateway(shards) as gateway:
        await gateway.append([[an_event(n)] for n in range(80)])
    await asyncio.to_thread(supervisor.stop)
    assert owner_names() == []
    await asyncio.to_thread(supervisor.start, a_spec(shards, tmp_path, owners=2))
    async with a_gateway(shards) as gateway:
        assert await gateway.append([[an_event(n)] for n in (7, 80)]) == [
            ["duplicate"],
            ["accepted"],
        ]
        assert await faults(gateway, shards, {f"e{n}" for n in range(81)}) == []


async def test_owners_go_on_without_the_supervisor_and_a_new_one_adopts_them(
    patiently_watched: str,
) -> None:
    shards = patiently_watched
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
        assert await faults(gateway, shards, sender.acknowledged) == []
