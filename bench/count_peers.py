"""The references of bench/segments.py, and the table that they share: what the owners hold.

    python bench/count_peers.py FILE.parquet

writes the table, read from the running service's owners through the gateway.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import polars as pl

from bench.environments import python_of
from bench.frame import CLONE
from bench.ingest import wait_until_listening
from bench.load import Server
from bench.players import BRAND
from tests.support.instance import Instance
from tests.support.ports import free_port

COLUMNS = (
    "deposit_amount_30d", "last_bet_at", "bet_count_90d", "stake_amount_lifetime",
    "ggr_amount_30d", "session_count_7d",
)  # fmt: skip


def commands(instance: Instance, folder: Path) -> dict[str, list[str]]:
    """Return how each reference is started, over one table of the players there are now."""
    table = folder / "players.parquet"
    command = [sys.executable, __file__, str(table)]
    subprocess.run(command, env=instance.environment(), check=True)
    script, dsn = str(CLONE / "bench" / "count_service.py"), instance.state()["postgres"]
    asyncio.run(_into_postgres(dsn, table))
    return {
        "DuckDB": [str(python_of("duckdb")), script, "PORT", "duckdb", str(table)],
        "PostgreSQL": [sys.executable, script, "PORT", "postgres", dsn],
    }


async def _into_postgres(dsn: str, table: Path) -> None:
    rows = pl.read_parquet(table)
    columns = ", ".join(f"{name} bigint" for name in COLUMNS)
    connection = await asyncpg.connect(dsn)
    await connection.execute(f"CREATE TABLE ready_players (player_id text PRIMARY KEY, {columns})")
    await connection.copy_records_to_table("ready_players", records=rows.iter_rows())
    await connection.execute("VACUUM ANALYZE ready_players")
    await connection.close()


@contextmanager
def running(command: Sequence[str]) -> Iterator[Server]:
    """A reference for the length of a block."""
    port = free_port()
    command = [str(port) if word == "PORT" else word for word in command]
    server = subprocess.Popen(command)
    try:
        wait_until_listening(port, server)
        yield Server(port)
    finally:
        server.terminate()
        server.wait()


def _export(file: Path) -> None:
    from cluster.app import prepare

    prepare()  # before anything imports Ray

    from actors.gateway import connect
    from cluster.commands.support import connected
    from configs.brands import load_brands

    with connected() as settings:
        gateway = connect(settings, load_brands(settings.brands_dir))
        found = asyncio.run(gateway.columns(BRAND, COLUMNS))
    columns = {
        name: pl.Series(name, found.values[name]).set(pl.Series(found.missing[name]), None)
        if name in found.missing
        else pl.Series(name, found.values[name])
        for name in COLUMNS
    }
    pl.DataFrame({"player_id": found.player_ids, **columns}).write_parquet(file)


if __name__ == "__main__":
    _export(Path(sys.argv[1]))
