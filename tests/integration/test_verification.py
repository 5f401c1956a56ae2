"""Holding live features against the recount: nothing differs under load, and a wrong one shows."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from crm.adapters.postgres.events import PostgresEventLog
from crm.adapters.postgres.pool import Pool
from crm.adapters.postgres.recount import PostgresRecount
from crm.domain.events import LoggedEvent
from crm.domain.features import FEATURES
from crm.domain.shards import SHARDS
from crm.services.shard_owner import ShardOwner
from crm.services.verification import Verification, verify_features
from tests.support.builders import NOON, a_brand, a_logged_event
from tests.support.clock import Clock
from tests.support.local_shards import LocalShards
from tests.support.owners import an_owner

BRAND = a_brand()
KINDS: tuple[tuple[str, dict[str, object]], ...] = (
    ("bet.placed", {"product": "live"}), ("bet.settled", {"product": "crash", "result": "won"}),
    ("deposit.completed", {"method": "pix"}), ("session.started", {}),
    ("session.ended", {"duration_s": 90}), ("withdrawal.cancelled", {}), ("message.opened", {}),
)  # fmt: skip


def _events(count: int, seed: int) -> list[LoggedEvent]:
    rng = random.Random(seed)
    found = []
    for number in range(count):
        kind, properties = rng.choice(KINDS)
        found.append(
            a_logged_event(
                event_id=f"{seed}-{number}",
                type=kind,
                player_id=f"p{rng.randrange(40)}",
                occurred_at=NOON - timedelta(minutes=rng.randrange(60 * 24 * 100)),
                properties=properties,
            )
        )
    return found


@asynccontextmanager
async def _a_system(dsn: str) -> AsyncIterator[tuple[ShardOwner, Pool]]:
    log, side = (PostgresEventLog(dsn, lambda: NOON) for _ in range(2))
    pool = Pool(dsn, most=1)
    async with an_owner(log, Clock(NOON), side=side) as owner:
        yield owner, pool
    await pool.close()
    await log.close()
    await side.close()


async def _verified(owner: ShardOwner, pool: Pool) -> Verification:
    shards = LocalShards(owner, {BRAND.id: BRAND})
    return await verify_features(
        shards, PostgresRecount(pool), BRAND, range(SHARDS), lambda _done: None
    )


async def test_nothing_differs_while_events_come_in(dsn: str) -> None:
    async with _a_system(dsn) as (owner, pool):
        await owner.append([[event] for event in _events(600, seed=1)])

        async def ingest() -> None:
            for event in _events(2_000, seed=2):
                await owner.append([[event]])

        ingesting = asyncio.create_task(ingest())
        found = await _verified(owner, pool)
        assert not ingesting.done(), "nothing came in meanwhile"
        ingesting.cancel()
        await asyncio.gather(ingesting, return_exceptions=True)
    assert (found.wrong, found.max_difference) == (0, 0)
    assert found.players == 40
    assert found.compared == 40 * len(FEATURES)
    assert found.nonzero_share("bet_count_lifetime") > 0.5


@pytest.mark.parametrize("damage", ["too much", "an event lost", "a player lost"])
async def test_a_wrong_feature_is_found(dsn: str, damage: str) -> None:
    async with _a_system(dsn) as (owner, pool):
        await owner.append([[event] for event in _events(300, seed=1)])
        table = await owner.table(BRAND.id)
        row = table.row("p3")
        assert row is not None
        if damage == "too much":
            table._lifetime[2, row] += 7
        else:
            of_p3 = "FROM user_transactions WHERE player_id = 'p3'"
            async with pool.using() as connection:
                if damage == "an event lost":
                    await connection.execute(
                        f"DELETE {of_p3} AND event_id IN (SELECT min(event_id) {of_p3})"
                    )
                else:
                    await connection.execute(f"DELETE {of_p3}")
                    await connection.execute("DELETE FROM user_sessions WHERE player_id = 'p3'")
        found = await _verified(owner, pool)
    assert found.wrong > 0
    assert all(line.startswith("p3") for line in found.differences)
    if damage == "too much":
        assert found.max_difference == 7
