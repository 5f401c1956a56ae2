"""Write transitions at a steady rate: `transitions.py DSN ROWS TRANSACTIONS_A_SECOND SECONDS`.

Prints how many it wrote. A transaction that is late is written at once.
"""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime

import asyncpg

from tests.support.live import a_transition
from tests.support.transitions import insert


async def write(dsn: str, rows: int, per_s: float, seconds: float) -> int:
    """Write and return how many rows there are."""
    connection = await asyncpg.connect(dsn)
    start, written = time.perf_counter(), 0
    for number in range(int(per_s * seconds)):
        await asyncio.sleep(max(0.0, start + number / per_s - time.perf_counter()))
        now = datetime.now(UTC)
        part = [
            a_transition(f"player-{written + n}", seq=written + n, segment=f"s{n % 10}", at=now)
            for n in range(rows)
        ]
        async with connection.transaction():
            await insert(connection, *part)
            await connection.execute("NOTIFY segment_transitions")
        written += rows
    await connection.close()
    return written


if __name__ == "__main__":
    dsn, rows, per_s, seconds = sys.argv[1:]
    sys.stdout.write(f"{asyncio.run(write(dsn, int(rows), float(per_s), float(seconds)))}\n")
