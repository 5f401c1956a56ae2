"""A service with many players at once: owners that adopt snapshots, as after a stop.

Loading a million players over HTTP takes long, so their tables are filled in a process of their own
(as bench/memory.py does), written as the snapshots that owners write, and listed in PostgreSQL. The
service that is started then is the real one.

    .venv/bin/python bench/filled.py PLAYERS FOLDER
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import numpy as np

from bench.frame import CLONE
from bench.load import Server
from bench.memory import DAY_US, DAYS, live
from bench.players import BRAND, server_of
from configs.brands import load_brands
from crm.adapters import clock
from crm.domain.feature_list import features_of
from crm.domain.feature_table import FeatureTable
from crm.domain.shards import SHARDS, shard_of
from crm.domain.times import to_us
from crm.services.shard_snapshots import ShardSnapshot
from tests.support.instance import Instance, a_place

_LIST = """
INSERT INTO shard_snapshots (shard, epoch, seq, name, size, taken_at)
SELECT shard, epoch, 0, format('snapshots/%s.snap', shard), 0, now() FROM virtual_shards"""


@contextmanager
def a_filled_service(players: int, **settings: str) -> Iterator[tuple[Instance, Server]]:
    """An instance whose owners have adopted so many players, 10 % of them active in a week."""
    with a_place() as instance:
        filled = instance.var_dir.parent / "filled"
        command = [sys.executable, __file__, str(players), str(filled)]
        subprocess.run(command, check=True)
        for adopt in (True, False):
            started = instance.crm("up", CRM_RAY__OBJECT_STORE_MB="512", **settings)
            if started.returncode:
                raise SystemExit(started.stderr)
            if adopt:
                state = instance.state()
                shutil.move(filled, Path(urlsplit(state["lake"]).path) / "snapshots")
                asyncio.run(_listed(state["postgres"]))
                instance.crm("down")
        yield instance, server_of(instance)


async def _listed(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(_LIST)
    await connection.close()


def _write(players: int, folder: Path) -> None:
    """Write the snapshots of all shards, as of now."""
    brand = load_brands(CLONE / "configs" / "brands")[BRAND]
    ids = [f"player-{n}" for n in range(players)]
    shards = np.array([shard_of(brand.id, player) for player in ids])
    now_us = to_us(clock.now())
    table = FeatureTable(brand.zone, now_us - DAYS * DAY_US, features_of(brand))
    live(table, ids, shards, now_us)
    folder.mkdir(parents=True)
    for shard in range(SHARDS):
        snapshot = ShardSnapshot(shard, 0, table.now_us, {brand.id: table.export(shard)})
        (folder / f"{shard}.snap").write_bytes(snapshot.encode())


if __name__ == "__main__":
    _write(int(sys.argv[1]), Path(sys.argv[2]))
