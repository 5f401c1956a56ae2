"""Owners on PostgreSQL: commits cut by the network, writers that stand in the way, partitions."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import pytest

from crm.adapters.postgres.events import PostgresEventLog
from crm.domain.errors import DatabaseAway
from crm.domain.events import LoggedEvent
from crm.domain.shards import SHARDS, shards_of_slot
from crm.domain.times import from_us
from crm.services.shard_owner import ShardOwner
from tests.support.builders import NOON, a_brand, a_logged_event
from tests.support.clock import Clock
from tests.support.owners import an_owner, features_of_all
from tests.support.proxy import Fault, a_proxy
from tests.support.recount import differences, recount
from tests.support.wait import wait_for_async

BRAND = a_brand()
LONG_S = 60


@asynccontextmanager
async def _an_owner(dsn: str, side_dsn: str = "", name: str = "owner") -> AsyncIterator[ShardOwner]:
    clock = Clock(NOON)
    log, side = PostgresEventLog(dsn, clock), PostgresEventLog(side_dsn or dsn, clock)
    try:
        async with an_owner(log, clock, side=side, name=name) as owner:
            yield owner
    finally:
        await log.close()
        await side.close()


def _events(count: int, start: int = 0) -> list[LoggedEvent]:
    return [
        a_logged_event(event_id=f"e{n}", player_id=f"p{n % 5}") for n in range(start, start + count)
    ]


async def _append(owner: ShardOwner, events: Sequence[LoggedEvent]) -> list[str]:
    verdicts = await asyncio.wait_for(owner.append([[event] for event in events]), LONG_S)
    return [verdict for (verdict,) in verdicts]


async def _differences(owner: ShardOwner, dsn: str) -> list[str]:
    found = await features_of_all(owner)
    as_of = from_us((await owner.table(BRAND.id)).now_us)
    return differences(found, await recount(dsn, BRAND, as_of))


@pytest.mark.parametrize("fault", ["before", "after"])
async def test_a_commit_that_is_cut_off_is_settled_without_a_restart(
    dsn: str, fault: Fault
) -> None:
    async with a_proxy(dsn) as proxy, _an_owner(proxy.dsn, dsn) as owner:
        assert await _append(owner, _events(10)) == ["accepted"] * 10
        proxy.faults = [fault]
        assert await _append(owner, _events(10, start=10)) == ["accepted"] * 10
        assert proxy.faults == []
        assert await _append(owner, _events(20)) == ["duplicate"] * 20
        assert await _differences(owner, dsn) == []
        found = await features_of_all(owner)
        assert sum(values["bet_count_lifetime"] for values in found.values()) == 20


async def test_a_commit_that_arrives_after_its_connection_was_lost_is_waited_for(dsn: str) -> None:
    watching = await asyncpg.connect(dsn)

    async def somebody_waits() -> bool:
        return bool(await watching.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ))  # fmt: skip

    async with a_proxy(dsn) as proxy, _an_owner(proxy.dsn, dsn) as owner:
        await _append(owner, _events(5))
        proxy.faults = ["late"]
        appending = asyncio.create_task(_append(owner, _events(10, start=5)))
        await wait_for_async(somebody_waits, "the owner waits for its own commit")
        proxy.release.set()
        assert await appending == ["accepted"] * 10
        assert await _append(owner, _events(5, start=15)) == ["accepted"] * 5
        assert await _differences(owner, dsn) == []
    await watching.close()


@pytest.mark.parametrize("seed", range(3))
async def test_any_row_of_cut_commits_leaves_the_features_of_a_recount(dsn: str, seed: int) -> None:
    rng = random.Random(seed)
    async with a_proxy(dsn) as proxy, _an_owner(proxy.dsn, dsn) as owner:
        await _append(owner, _events(10))
        for start in range(0, 200, 10):
            kinds: list[Fault] = ["none", "before", "after"]
            proxy.faults = rng.choices(kinds, k=3)
            try:
                await _append(owner, _events(20, start))
            except DatabaseAway:
                continue  # its events come again, half of them with the next
        proxy.faults = []
        assert set(await _append(owner, _events(220))) <= {"accepted", "duplicate"}
        assert await _differences(owner, dsn) == []
        found = await features_of_all(owner)
        assert sum(values["bet_count_lifetime"] for values in found.values()) == 220


async def test_a_writer_that_stopped_inside_its_transaction_does_not_block_its_successor(
    dsn: str,
) -> None:
    stopped = await asyncpg.connect(dsn)
    await stopped.execute("BEGIN")
    await stopped.execute("SELECT 1 FROM virtual_shards FOR UPDATE")
    async with asyncio.timeout(LONG_S), _an_owner(dsn, name="successor") as successor:
        assert await _append(successor, _events(5)) == ["accepted"] * 5
    assert stopped.is_closed()
    await stopped.close()


async def test_a_commit_that_comes_after_the_successors_claim_is_refused_and_moves(
    dsn: str,
) -> None:
    events = _events(5)
    async with a_proxy(dsn) as proxy, _an_owner(proxy.dsn, dsn, name="former") as former:
        await _append(former, _events(5, start=5))
        proxy.faults = ["stall"]
        late = asyncio.create_task(_append(former, events))
        await asyncio.wait_for(proxy.stalled.wait(), LONG_S)
        async with asyncio.timeout(LONG_S), _an_owner(dsn, name="successor") as successor:
            assert await late == ["moved"] * 5
            assert former.players == 0
            assert await _append(successor, events) == ["accepted"] * 5
            assert await _differences(successor, dsn) == []
    connection = await asyncpg.connect(dsn)
    refused = await connection.fetchval("SELECT sum(stale_refusals)::int FROM virtual_shards")
    await connection.close()
    assert refused > 0


async def test_two_owners_make_the_same_partitions_at_once(dsn: str) -> None:
    logs = [PostgresEventLog(dsn, lambda: NOON) for _ in range(2)]

    async def write(slot: int) -> list[str]:
        shards = shards_of_slot(slot, 2)
        claims = await logs[slot].claim(shards, f"owner-{slot}")
        epochs = {shard: claim.epoch for shard, claim in claims.items()}
        verdicts: list[str] = []
        for month in range(24):
            at = NOON - timedelta(days=30 * month)
            events = [
                a_logged_event(
                    event_id=f"{slot}-{month}-{kind}", player_id=_player_of(slot), type=kind,
                    occurred_at=at, amount=None, currency=None,
                )
                for kind in ("session.started", "custom.spin")
            ]  # fmt: skip
            appended = await logs[slot].append(epochs, [[event] for event in events])
            verdicts += [verdict for (verdict,) in appended.verdicts]
        return verdicts

    try:
        first, second = await asyncio.wait_for(asyncio.gather(write(0), write(1)), LONG_S)
    finally:
        for log in logs:
            await log.close()
    assert first == second == ["accepted"] * 48


def _player_of(slot: int) -> str:
    return next(
        event.player_id
        for event in (a_logged_event(player_id=f"p{n}") for n in range(SHARDS))
        if event.shard % 2 == slot
    )
