"""An import with HTTP ingest beside it while shard owners and replicas are killed, from a seed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from random import Random

import asyncpg
import pyarrow.parquet as pq

from tests.support.balance import Balance, Sent
from tests.support.chaos import Experiment
from tests.support.instance import CRM, Instance
from tests.support.load import LONG_S, Load, Pace
from tests.support.mix import Mix
from tests.support.wait import wait_for_async

MAPPING = Path(__file__).parents[2] / "configs" / "mappings" / "simulated.yaml"
KILLED = ("owner", "replica")
MINUTES_S = 600  # what an import may take between two kills, on a busy machine


@dataclass(frozen=True)
class Fire:
    """How large, how long and how hard; the kills are spread over the rows of the import."""

    players: int
    days: int
    kills: int
    seed: int = 1


async def import_under_fire(instance: Instance, folder: Path, fire: Fire) -> Balance:
    """Simulate, import under fire, and draw the balance; raises AssertionError if it gets stuck."""
    file = folder / "events.parquet"
    made = await asyncio.to_thread(
        instance.crm, "simulate", "--players", str(fire.players), "--days", str(fire.days),
        "--seed", str(fire.seed), "--brand", "demo", "--end", "2026-03-01", "--out", str(file),
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    from_file = _read(file)
    rng = Random(fire.seed)
    players = rng.sample(sorted({event.player_id for event in from_file}), 100)
    mix = Mix("http", fire.seed, players=[*players, *[f"http-p{number}" for number in range(50)]])
    async with instance.client() as client:
        load = Load(client, mix, Pace(clients=2, size=50, pause_s=0))
        experiment = await Experiment.begun(load, instance.state()["postgres"])
        importing = asyncio.create_task(_import(instance, file))
        async with load.running():
            await _fire(instance, experiment, _moments(fire, rng, len(from_file)), rng)
            report = await importing
        assert report["rejected"] == 0, report
        assert report["read"] == report["accepted"] + report["duplicates"] == len(from_file)
        return await experiment.balance(also=from_file)


def _moments(fire: Fire, rng: Random, rows: int) -> list[int]:
    """How many events are stored when each kill comes: all while the import runs."""
    share = rows // (fire.kills + 1)
    return [number * share + rng.randrange(share) for number in range(fire.kills)]


async def _fire(
    instance: Instance, experiment: Experiment, moments: Sequence[int], rng: Random
) -> None:
    """Kill owners and replicas in turn."""
    connection = await asyncpg.connect(experiment.dsn)
    try:
        for number, moment in enumerate(moments):
            reached = partial(_has_stored, connection, moment)
            await wait_for_async(reached, f"{moment} events are stored", deadline_s=MINUTES_S)
            what = KILLED[number % 2]
            found = partial(asyncio.to_thread, _pids, instance, what)
            pids = await wait_for_async(found, f"there is an {what}", deadline_s=LONG_S)
            os.kill(rng.choice(pids), signal.SIGKILL)
            await experiment.recovery(what)
    finally:
        await connection.close()


def _pids(instance: Instance, what: str) -> list[int]:
    return instance.owner_pids() if what == "owner" else instance.pids("ray::ServeReplica")


async def _has_stored(connection: asyncpg.Connection[asyncpg.Record], events: int) -> bool:
    return bool(await connection.fetchval("SELECT sum(seq) > $1 FROM virtual_shards", events))


async def _import(instance: Instance, file: Path) -> dict[str, int]:
    process = await asyncio.create_subprocess_exec(
        *CRM, "import", str(file), "--mapping", str(MAPPING), "--json",
        env=instance.environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()[-2000:]
    report: dict[str, int] = json.loads(out.decode().splitlines()[-1])
    return report


def _read(file: Path) -> list[Sent]:
    rows = pq.read_table(file, columns=["event_id", "player_id", "type", "amount"])
    return [
        Sent(event_id, player, kind, None if amount is None else Decimal(amount))
        for event_id, player, kind, amount in zip(
            *[rows.column(name).to_pylist() for name in rows.column_names], strict=True
        )
    ]


def show(balance: Balance) -> None:
    """Print the balance where a run's log shows it."""
    sys.stdout.write(f"\n{balance}\n")
