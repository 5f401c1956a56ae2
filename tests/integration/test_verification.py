"""Holding live features against the recount: nothing differs under load, and a wrong one shows."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from crm.adapters.lake import Lake
from crm.adapters.lake_events import LakeEventFiles
from crm.adapters.postgres.events import PostgresEventLog
from crm.adapters.postgres.lake import PostgresManifest
from crm.adapters.postgres.pool import Pool
from crm.adapters.postgres.recount import PostgresRecount
from crm.domain.events import LoggedEvent
from crm.domain.feature_list import features_of
from crm.domain.ledger import Cells
from crm.domain.shards import shard_of
from crm.services.lake_writing import LakeWriter
from crm.services.shard_owner import ShardOwner
from crm.services.verification import Recount, Verification, verify_features
from pipelines.batch_recount import BatchRecount
from tests.support.builders import NOON, a_brand, a_logged_event
from tests.support.clock import Clock
from tests.support.local_shards import LocalShards
from tests.support.own_measures import OWN
from tests.support.owners import an_owner

BRAND = a_brand(measures=OWN)
PLAYERS = [f"p{number}" for number in range(40)]
OURS = sorted({shard_of(BRAND.id, player) for player in PLAYERS})
KINDS: tuple[tuple[str, dict[str, object]], ...] = (
    ("bet.placed", {"product": "live", "x": 1.005, "tag": True}),
    ("bet.settled", {"product": "crash", "result": "won", "x": 0.285}),
    ("custom.spin", {"x": -1e13, "tag": "1"}), ("custom.spin", {"x": "7", "tag": 1.0}),
    ("deposit.completed", {"method": "pix"}), ("session.started", {"x": 2.5, "tag": 1}),
    ("session.ended", {"duration_s": 90}), ("withdrawal.cancelled", {}), ("message.opened", {}),
)  # fmt: skip


def _events(count: int, seed: int, days: int = 100) -> list[LoggedEvent]:
    rng = random.Random(seed)
    found = []
    for number in range(count):
        kind, properties = rng.choice(KINDS)
        found.append(
            a_logged_event(
                event_id=f"{seed}-{number}",
                type=kind,
                player_id=rng.choice(PLAYERS),
                occurred_at=NOON - timedelta(minutes=rng.randrange(60 * 24 * days)),
                properties=properties,
            )
        )
    return found


@dataclass
class _System:
    """An owner over a log, the lake beside it, and the recounts that hold it to account."""

    owner: ShardOwner
    pool: Pool
    lake: Lake

    def __post_init__(self) -> None:
        manifest = PostgresManifest(self.pool)
        self.writer = LakeWriter(manifest, LakeEventFiles(self.lake), lambda: NOON)
        self.sql = PostgresRecount(self.pool, self.lake)
        self.batch = BatchRecount(manifest, self.lake, self.writer)

    async def verified(self, *recounts: Recount) -> Verification:
        shards = LocalShards(self.owner, {BRAND.id: BRAND})
        chosen = recounts or (self.sql, self.batch)
        return await verify_features(shards, chosen, BRAND, OURS, lambda _done: None)


@asynccontextmanager
async def _a_system(dsn: str, folder: Path) -> AsyncIterator[_System]:
    then = NOON - timedelta(days=300)  # sessions of 600 days ago were recent
    log, side = (PostgresEventLog(dsn, lambda: then) for _ in range(2))
    pool = Pool(dsn, most=1)
    try:
        async with an_owner(log, Clock(NOON), side=side, brands={BRAND.id: BRAND}) as owner:
            yield _System(owner, pool, Lake(str(folder)))
    finally:
        for opened in (pool, log, side):
            await opened.close()


async def test_nothing_differs_while_events_come_in(dsn: str, tmp_path: Path) -> None:
    async with _a_system(dsn, tmp_path) as system:
        await system.owner.append([[event] for event in _events(600, seed=1)])

        accepted = 0

        async def ingest() -> None:
            nonlocal accepted
            for seed in itertools.count(2):
                for event in _events(100, seed):
                    await system.owner.append([[event]])
                    accepted += 1

        ingesting = asyncio.create_task(ingest())
        try:
            found = await system.verified()
            assert not ingesting.done(), "the ingest has failed"
        finally:
            ingesting.cancel()
            await asyncio.gather(ingesting, return_exceptions=True)
        assert accepted > 0, "nothing came in meanwhile"
    assert (found.wrong, found.max_difference) == (0, 0)
    assert found.players == len(PLAYERS)
    assert found.compared == 2 * len(PLAYERS) * len(features_of(BRAND).features)
    assert found.nonzero_share("bet_count_lifetime") > 0.5


async def test_a_wrong_feature_is_found_by_both_recounts(dsn: str, tmp_path: Path) -> None:
    async with _a_system(dsn, tmp_path) as system:
        await system.owner.append([[event] for event in _events(300, seed=1)])
        table = await system.owner.table(BRAND.id)
        row = table.row("p3")
        assert row is not None
        seven = np.array([7])
        table._lifetime.add(Cells(np.array([row]), np.array([2]), seven))
        for recount in (system.sql, system.batch):
            found = await system.verified(recount)
            assert found.max_difference == 7
            assert all(line.startswith("p3") for line in found.differences)
            assert all(line.endswith(recount.name) for line in found.differences)


@pytest.mark.parametrize("lost", ["an event", "a player"])
async def test_events_that_the_raw_tables_lack_are_found(
    dsn: str, tmp_path: Path, lost: str
) -> None:
    async with _a_system(dsn, tmp_path) as system:
        await system.owner.append([[event] for event in _events(300, seed=1)])
        of_p3 = "FROM user_transactions WHERE player_id = 'p3'"
        async with system.pool.using() as connection:
            if lost == "an event":
                await connection.execute(
                    f"DELETE {of_p3} AND event_id IN (SELECT min(event_id) {of_p3})"
                )
            else:
                await connection.execute(f"DELETE {of_p3}")
                await connection.execute("DELETE FROM user_sessions WHERE player_id = 'p3'")
        found = await system.verified(system.sql)
    assert found.wrong > 0
    assert all(line.startswith("p3") for line in found.differences)


async def test_events_that_the_lake_lacks_are_found(dsn: str, tmp_path: Path) -> None:
    async with _a_system(dsn, tmp_path) as system:
        await system.owner.append([[event] for event in _events(300, seed=1)])
        await system.writer.catch_up()
        async with system.pool.using() as connection:
            await connection.execute("DELETE FROM lake_files WHERE shard % 2 = 0")
        found = await system.verified(system.batch)
    assert found.wrong > 0


async def test_sessions_that_stand_in_the_lake_alone_are_counted(dsn: str, tmp_path: Path) -> None:
    async with _a_system(dsn, tmp_path) as system:
        await system.owner.append([[event] for event in _events(600, seed=1, days=600)])
        await system.writer.catch_up()
        assert await system.writer.drop_sessions() != []
        assert (await system.verified()).wrong == 0
        assert (await system.verified(PostgresRecount(system.pool))).wrong > 0  # without the lake
