"""Segment transitions, tickets and progress of jobs in PostgreSQL, for the live socket."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg

from crm.adapters.postgres.pool import AWAY, Pool, away
from crm.adapters.postgres.queries import load
from crm.domain.live import (
    Audience,
    CursorTooOld,
    Job,
    Page,
    Position,
    Transition,
    too_old,
)

CHANNEL = "segment_transitions"
_CONNECT_S = 5.0
_COMMAND_S = 10.0
_KEPT_DAYS = 7
_SHOWN = 50


class PostgresTransitions:
    """The stream of transitions: one connection of its own reads it, and is told of what is new.

    `direct_dsn` bypasses a PgBouncer, which cannot pass notifications on.
    """

    def __init__(self, direct_dsn: str, pool: Pool) -> None:
        self._dsn = direct_dsn
        self._pool = pool
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._news = asyncio.Event()

    async def head(self) -> Position:
        """Return the position at which a stream that begins now begins; raises DatabaseAway."""
        horizon = (await self._fetch(load("live")["head"]))[0][0]
        return Position(horizon, 0)

    async def after(self, position: Position, limit: int) -> Page:
        """Return at most `limit` transitions after `position`, in order; raises DatabaseAway."""
        sql = load("live")["transitions_after"]
        rows = await self._fetch(sql, str(position.xact), position.id, limit)
        found = read_transitions(rows)
        if len(found) == limit:
            return Page(found, found[-1].position, full=True)
        horizon = Position(rows[0]["horizon"], 0)
        return Page(found, max(horizon, position), held=rows[0]["held"])

    async def changed(self, timeout_s: float) -> None:
        """Return when something is told, or `timeout_s` has passed."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()

    async def newest(self) -> Position:
        """Return a position that no cursor can be ahead of; raises DatabaseAway."""
        async with self._pool.using() as connection:
            return Position(await connection.fetchval(load("live")["head"]), 0)

    async def dropped(self) -> Position:
        """Return the place of the last transition that is not kept here any more."""
        async with self._pool.using() as connection:
            (row,) = await connection.fetch(load("live")["dropped"])
        return Position(*row.values())

    async def between(
        self, after: Position, upto: Position, audience: Audience, limit: int
    ) -> Page:
        """Return what `audience` wants of the next `limit` transitions.

        Raises CursorTooOld, DatabaseAway.
        """
        segments = None if audience.segments is None else list(audience.segments)
        places = (str(after.xact), after.id, str(upto.xact), upto.id)
        async with self._pool.using() as connection:
            rows = await connection.fetch(
                load("live")["transitions_between"], *places, limit, audience.brand, segments
            )
        if rows[0]["gone"]:
            raise CursorTooOld(too_old())
        full = rows[0]["read"] == limit
        position = Position(rows[0]["last_xact"], rows[0]["last_id"]) if full else upto
        return Page(read_transitions(rows), position, full=full)

    async def unknown(self, audience: Audience) -> list[str]:
        """Return the segments that the brand does not have; raises DatabaseAway."""
        async with self._pool.using() as connection:
            rows = await connection.fetch(
                load("live")["unknown_segments"], audience.brand, sorted(audience.segments or ())
            )
        return [row["id"] for row in rows]

    async def close(self) -> None:
        """End the stream's connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _fetch(self, sql: str, *values: Any) -> list[asyncpg.Record]:
        try:
            if self._connection is None:
                self._connection = await self._listening()
            return await self._connection.fetch(sql, *values)
        except AWAY as error:
            await self.close()
            raise away(error) from error

    async def _listening(self) -> asyncpg.Connection[asyncpg.Record]:
        connection = await asyncpg.connect(
            self._dsn,
            timeout=_CONNECT_S,
            command_timeout=_COMMAND_S,
            server_settings={"application_name": "crm-live"},
        )
        await connection.add_listener(CHANNEL, lambda *_: self._news.set())
        connection.add_termination_listener(lambda _: self._news.set())
        return connection


class PostgresTickets:
    """Tickets by digest: made once, redeemed once."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def make(self, digest: bytes, key_sha256: bytes, valid_s: float) -> datetime:
        """Keep a ticket; return until when it is good; raises DatabaseAway."""
        async with self._pool.using() as connection:
            until: datetime = await connection.fetchval(
                load("live")["make_ticket"], digest, key_sha256, valid_s
            )
        return until

    async def redeem(self, digest: bytes) -> bytes | None:
        """Use a ticket up; return whose key asked for it, or None; raises DatabaseAway."""
        async with self._pool.using() as connection:
            key: bytes | None = await connection.fetchval(load("live")["redeem_ticket"], digest)
        return key


class PostgresJobs:
    """Progress of jobs: written by whoever does them, read by the live socket."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def put(self, job: Job) -> None:
        """Store a job's newest state; its times are the database's; raises DatabaseAway."""
        async with self._pool.using() as connection:
            await connection.execute(
                load("live")["put_job"],
                job.id, job.kind, job.what, job.brand, job.state, job.done, job.total, job.unit,
                job.message,
            )  # fmt: skip

    async def sweep(self) -> None:
        """Forget what ended long ago; raises DatabaseAway."""
        async with self._pool.using() as connection:
            await connection.execute(load("live")["sweep_jobs"], _KEPT_DAYS)

    async def close(self) -> None:
        """End every connection."""
        await self._pool.close()

    async def recent(self, seconds: float, silence_s: float) -> list[Job]:
        """Return what runs and what changed in the last seconds, the newest first.

        A running job that said nothing for `silence_s` is `lost`. Raises DatabaseAway.
        """
        async with self._pool.using() as connection:
            rows = await connection.fetch(load("live")["jobs_since"], seconds, silence_s, _SHOWN)
        return [Job(**dict(row)) for row in rows]


def open_jobs(dsn: str) -> PostgresJobs:
    """Return the jobs of the database at `dsn`, over a connection of their own."""
    return PostgresJobs(Pool(dsn, most=1))


class PostgresLog:
    """How long the log is."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def length(self) -> int:
        """Return the number of events ever accepted; raises DatabaseAway."""
        async with self._pool.using() as connection:
            return int(await connection.fetchval(load("live")["log_length"]))


def read_transitions(rows: Sequence[asyncpg.Record]) -> list[Transition]:
    """Return rows as transitions; a row without any is none."""
    return [
        Transition(
            Position(row["xact"], row["id"]), row["brand"], row["segment"], row["version"],
            row["player_id"], row["entered"], row["shard"], row["seq"], row["at"], row["made_at"],
        )
        for row in rows
        if row["xact"] is not None
    ]  # fmt: skip
