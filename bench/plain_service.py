"""The reference of bench/ingest.py: FastAPI, pydantic, one committed insert an event."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any

import asyncpg
import uvicorn
from fastapi import FastAPI, Request
from pydantic import BaseModel


class Event(BaseModel):
    """One event, as the contract has it."""

    event_id: str
    type: str
    player_id: str
    brand: str
    occurred_at: datetime
    amount: Decimal | None = None
    currency: str | None = None
    properties: dict[str, Any] = {}


class Events(BaseModel):
    """What is posted."""

    events: list[Event]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the pool and make the table."""
    async with asyncpg.create_pool(os.environ["DSN"], min_size=8, max_size=32) as pool:
        await pool.execute(
            "CREATE TABLE IF NOT EXISTS plain_events (brand text, event_id text, type text, "
            "player_id text, occurred_at timestamptz, amount numeric, currency text, "
            "properties jsonb, PRIMARY KEY (brand, event_id))"
        )
        app.state.pool = pool
        yield


app = FastAPI(lifespan=lifespan)
_INSERT = "INSERT INTO plain_events VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING"


@app.post("/events")
async def take(body: Events, request: Request) -> dict[str, int]:
    """Insert every event in a transaction of its own."""
    for e in body.events:
        properties = Event.model_dump_json(e, include={"properties"})
        row = (e.brand, e.event_id, e.type, e.player_id, e.occurred_at, e.amount, e.currency)
        await request.app.state.pool.execute(_INSERT, *row, properties)
    return {"accepted": len(body.events)}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
