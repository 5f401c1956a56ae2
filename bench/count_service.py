"""The references of bench/segments.py: a route that counts by SQL over a table that is ready.

    python bench/count_service.py PORT duckdb FILE.parquet
    python bench/count_service.py PORT postgres DSN

DuckDB holds the table in memory; PostgreSQL's is `ready_players`, analysed. Both keep the time of
the last bet, so that one table serves every moment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

CONDITIONS = (
    "deposit_amount_30d >= $1", "last_bet_at <= $2", "bet_count_90d >= $3",
    "stake_amount_lifetime > $4", "ggr_amount_30d > $5", "session_count_7d < $6",
)  # fmt: skip
COUNT = f"SELECT count(*) FROM ready_players WHERE {' AND '.join(CONDITIONS)}"


def _without(place: int) -> str:
    others = [one for n, one in enumerate(CONDITIONS) if n != place]
    return " AND ".join([*others, f"({CONDITIONS[place]}) IS NOT TRUE"])


_FILTERS = [" AND ".join(CONDITIONS), *CONDITIONS, *map(_without, range(len(CONDITIONS)))]
TERMS = f"SELECT {', '.join(f'count(*) FILTER (WHERE {f})' for f in _FILTERS)} FROM ready_players"


class Asked(BaseModel):
    """Six literals, raw; with `terms`, also what matches each condition, and what each removes."""

    literals: list[int]
    terms: bool = False


def _over_duckdb(file: str) -> FastAPI:
    import duckdb

    database = duckdb.connect(config={"threads": os.cpu_count() or 1})
    database.execute(f"CREATE TABLE ready_players AS SELECT * FROM read_parquet('{file}')")
    app = FastAPI()

    @app.post("/count")
    def count(asked: Asked) -> list[int]:
        sql = TERMS if asked.terms else COUNT
        row = database.cursor().execute(sql, asked.literals).fetchone()
        return list(row or ())

    return app


def _over_postgres(dsn: str) -> FastAPI:
    import asyncpg

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with asyncpg.create_pool(dsn, min_size=4, max_size=4) as pool:
            app.state.pool = pool
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/count")
    async def count(asked: Asked) -> list[int]:
        sql = TERMS if asked.terms else COUNT
        return list(await app.state.pool.fetchrow(sql, *asked.literals))

    return app


if __name__ == "__main__":
    port, engine, where = sys.argv[1:]
    served = (_over_duckdb if engine == "duckdb" else _over_postgres)(where)
    uvicorn.run(served, host="127.0.0.1", port=int(port), log_level="warning")
