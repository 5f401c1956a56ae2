"""Write transitions at a steady rate: `transitions.py DSN ROWS TRANSACTIONS_A_SECOND SECONDS`.

Prints how many it wrote, and the 99th percentile of how long a transaction took in milliseconds: no
reader can be quicker. A transaction that is late is written at once.
"""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime

import asyncpg

from bench.load import Times
from tests.support.live import a_transition
from tests.support.transitions import insert


async def write(dsn: str, rows: int, per_s: float, seconds: float) -> tuple[int, list[float]]:
    """Write; return how many rows there are, and how long each transaction took, in seconds."""
    connection = await asyncpg.connect(dsn)
    start, written = time.perf_counter(), 0
    took: list[float] = []
    for number in range(int(per_s * seconds)):
        await asyncio.sleep(max(0.0, start + number / per_s - time.perf_counter()))
        now = datetime.now(UTC)
        part = [
            a_transition(f"player-{written + n}", seq=written + n, segment=f"s{n % 10}", at=now)
            for n in range(rows)
        ]
        began = time.perf_counter()
        async with connection.transaction():
            await insert(connection, *part)
            await connection.execute("NOTIFY segment_transitions")
        took.append(time.perf_counter() - began)
        written += rows
    await connection.close()
    return written, took


if __name__ == "__main__":
    dsn, rows, per_s, seconds = sys.argv[1:]
    written, took = asyncio.run(write(dsn, int(rows), float(per_s), float(seconds)))
    sys.stdout.write(f"{written} {Times(took).percentile_ms(0.99):.1f}\n")
