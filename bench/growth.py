"""How cost grows: with owners, with players, with events.

    .venv/bin/python bench/growth.py [--quick]

Owners: acknowledged ingest. Players: one table of so many, up to the most that fit into the memory
that is free now. Events: bench/batch.py at 1 and 50 million; it has 10 million by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial

import psutil

from bench import batch, memory
from bench.environments import version_of
from bench.frame import Row, Size, main
from bench.ingest import closed
from bench.players import a_service

OWNERS = (1, 2, 4)
PLAYERS = (100_000, 1_000_000)
EVENTS = (1_000_000, 50_000_000)
BYTES_A_PLAYER = 6_000  # what filling, copying and loading a table takes at its peak, at most
MOST_PLAYERS = 4_000_000  # more would take longer to fill than everything else together


def measure(size: Size) -> Iterator[Row]:
    """Measure the three curves; the reference of owners and players is the first of the curve."""
    quick = size == "quick"
    yield from _owners(OWNERS, 2.0 if quick else 10.0)
    yield from _players((5_000, 10_000) if quick else (*PLAYERS, _largest()))
    for events in (50_000, 100_000) if quick else EVENTS:
        yield from batch.compare(events)


def _owners(numbers: Sequence[int], seconds: float) -> Iterator[Row]:
    first = None
    for owners in numbers:
        with a_service(CRM_SHARDS__OWNERS=str(owners)) as (_, server):
            asyncio.run(closed(server, 500, 1, 0.5))
            times = asyncio.run(closed(server, 500, 8, seconds))
        rate = times.rate * 500
        first = first or rate
        note = f"500 a request, 8 connections; p99 {times.percentile_ms(0.99):.0f} ms"
        yield Row(f"{owners} shard owner{'s' * (owners > 1)}: ingest", rate, "events/s",
                  f"{numbers[0]} owner", first, note=note)  # fmt: skip


def _players(numbers: Sequence[int]) -> Iterator[Row]:
    first = None
    for players in numbers:
        table = memory.table_of(players)
        first = first or table
        base, what = f"{numbers[0]:,} players", f"{players:,} players"
        note = f"{table.events:,} events"
        yield Row(f"{what}: memory", table.nbytes / 2**20, "MiB", base, first.nbytes / 2**20,
                  note=f"{note}; {table.nbytes / players:,.0f} bytes a player")  # fmt: skip
        yield Row(f"{what}: load from snapshots", table.load_s, "s", base, first.load_s,
                  note=f"{table.snapshot_bytes / 2**20:,.0f} MiB unpacked")  # fmt: skip
        yield Row(f"{what}: mask of six conditions", table.mask_s * 1000, "ms", base,
                  first.mask_s * 1000)  # fmt: skip
        yield Row(f"{what}: events applied", table.events / table.fill_s, "events/s", base,
                  first.events / first.fill_s)  # fmt: skip


def _largest() -> int:
    """Return how many players fit, in round numbers."""
    fit = psutil.virtual_memory().available // BYTES_A_PLAYER
    return min(fit, MOST_PLAYERS) // 100_000 * 100_000


if __name__ == "__main__":
    main("growth", "How cost grows", measure, partial(version_of, "duckdb", "duckdb"))
