"""Retrains in PostgreSQL, which alone knows whether one was asked for, and has begun."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from crm.adapters.postgres.pool import Pool
from crm.adapters.postgres.queries import load
from crm.domain.drift import Drift
from crm.domain.errors import DatabaseAway, KeyReused
from crm.domain.models import ModelKind
from crm.domain.retrains import (
    Outcome,
    Retrain,
    RetrainNotFound,
    RetrainOptions,
    running_already,
    short,
)


class PostgresRetrains:
    """Rows of `retrains` and what belongs to them; every call may raise DatabaseAway."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sql = load("retrains")

    async def ask(self, retrain: Retrain, request: bytes | None = None) -> Retrain:
        """Store a retrain, or return the one that has its id as it stands.

        Raises KeyReused, RetrainRunning.
        """
        options = msgspec.json.encode(retrain.options).decode()
        fields = (retrain.brand, retrain.kind, retrain.cause, retrain.occasion, request, options)
        async with self._pool.using() as connection:
            row = await connection.fetchrow(self._sql["ask"], retrain.id, *fields, retrain.asked_at)
            if row is not None:
                return _retrain(row)
            # other statements, with newer snapshots: they see what the first one met
            row = await connection.fetchrow(self._sql["get"], retrain.id)
            if row is not None:
                if row["request"] != request:
                    raise KeyReused(
                        "this Idempotency-Key came with another request before; use a new one"
                    )
                return _retrain(row)
            row = await connection.fetchrow(self._sql["active_of"], retrain.brand, retrain.kind)
        if row is None:
            raise DatabaseAway("another retrain ended at this moment; try again")
        raise running_already(_retrain(row))

    async def get(self, retrain: str) -> Retrain:
        """Return a retrain; raises RetrainNotFound."""
        row = await self._row("get", retrain)
        if row is None:
            raise RetrainNotFound("no retrain has this id")
        return _retrain(row)

    async def page(
        self, brand: str, kind: ModelKind | None, after: tuple[datetime, str] | None, limit: int
    ) -> list[Retrain]:
        """Return retrains of a brand, the newest first, older than `after`."""
        async with self._pool.using() as connection:
            rows = await connection.fetch(
                self._sql["page"], brand, kind, *(after or (None, None)), limit
            )
        return [_retrain(row) for row in rows]

    async def active(self) -> list[Retrain]:
        """Return all retrains that have not ended, the oldest first."""
        async with self._pool.using() as connection:
            return [_retrain(row) for row in await connection.fetch(self._sql["active"])]

    async def note_submitted(self, retrain: str, at: datetime) -> None:
        """Note that Ray has taken its job; changes nothing unless it is queued."""
        async with self._pool.using() as connection:
            await connection.execute(self._sql["note_submitted"], retrain, at)

    async def begin(self, retrain: str, at: datetime) -> Retrain | None:
        """Begin: only the first who asks is given it, and only while it waits."""
        row = await self._row("begin", retrain, at)
        return None if row is None else _retrain(row)

    async def finish(self, retrain: str, outcome: Outcome, at: datetime) -> bool:
        """Note what it has made; False if it is not running (any more)."""
        made = (outcome.model, outcome.promoted, outcome.note)
        return await self._row("finish", retrain, *made, at) is not None

    async def fail(self, retrain: str, reason: str, at: datetime) -> bool:
        """Note that it has failed; False if it had ended before."""
        return await self._row("fail", retrain, short(reason), at) is not None

    async def newest(self, brand: str, kind: ModelKind) -> datetime | None:
        """Return when the brand's newest retrain of this kind was asked for."""
        async with self._pool.using() as connection:
            found: datetime | None = await connection.fetchval(self._sql["newest"], brand, kind)
        return found

    async def planned_since(self, brand: str, kind: ModelKind, at: datetime) -> datetime:
        """Return since when there is a schedule: `at`, if it was never asked before."""
        async with self._pool.using() as connection:
            since: datetime = await connection.fetchval(self._sql["plan"], brand, kind, at)
        return since

    async def note_drift(self, drift: Drift) -> None:
        """Keep a look at a model in the place of the one before."""
        text = msgspec.json.encode(drift).decode()
        async with self._pool.using() as connection:
            await connection.execute(self._sql["note_drift"], drift.model, drift.at, text)

    async def drift(self, model: str) -> Drift | None:
        """Return the newest look at a model, None before the first."""
        async with self._pool.using() as connection:
            text = await connection.fetchval(self._sql["drift"], model)
        return None if text is None else msgspec.json.decode(text, type=Drift)

    async def _row(self, query: str, *values: object) -> asyncpg.Record | None:
        async with self._pool.using() as connection:
            row: asyncpg.Record | None = await connection.fetchrow(self._sql[query], *values)
        return row


def _retrain(row: asyncpg.Record) -> Retrain:
    fields: dict[str, Any] = dict(row)
    del fields["request"]
    options = msgspec.json.decode(fields.pop("options"), type=RetrainOptions)
    return Retrain(**fields, options=options)


@asynccontextmanager
async def open_retrains(dsn: str) -> AsyncIterator[PostgresRetrains]:
    """Yield a store with a small pool of its own, for a job."""
    pool = Pool(dsn, most=1)
    try:
        yield PostgresRetrains(pool)
    finally:
        await pool.close()
