"""Saved segments in PostgreSQL: every change in one transaction, which raises the revision."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import asyncpg
import msgspec
from msgspec.structs import replace

from crm.adapters.postgres import idempotency
from crm.adapters.postgres.pool import Pool
from crm.adapters.postgres.queries import load
from crm.domain.errors import SegmentNameTaken, SegmentNotFound, TooLarge
from crm.domain.saved_segments import (
    MAX_LIST_PLAYERS,
    Check,
    ListReport,
    LiveSegment,
    Mode,
    Once,
    SavedSegment,
    SegmentSize,
    SegmentVersion,
    Written,
    edited,
    name_taken,
    to_be_changed,
    too_long,
)
from crm.domain.shards import shard_of

if TYPE_CHECKING:
    from crm.adapters.postgres.idempotency import Connection

_BULK_TIMEOUT_S = 60
_AT_ONCE = 20_000  # players in a statement: others have their turn between two


class PostgresSegments:
    """Rows of `segments` and what belongs to them; every call may raise DatabaseAway."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sql = load("segments")

    # --- changes --------------------------------------------------------------------------------

    async def answered(self, once: Once | None) -> Written | None:
        """Return what a change has led to that was asked for before; raises KeyReused."""
        if once is None:
            return None
        async with self._pool.using() as connection:
            found = await idempotency.answered(connection, once)
        return None if found is None else _decode(found)

    async def create(
        self,
        segment: SavedSegment,
        players: Sequence[str] = (),
        report: ListReport | None = None,
        once: Once | None = None,
        check: Check | None = None,
    ) -> Written:
        """Store a new segment with its size, and the players of a list.

        Raises SegmentNameTaken, TooLarge, and what `check` raises.
        """

        async def work(connection: Connection) -> Written:
            fields = (segment.brand, segment.name, segment.kind, segment.version, segment.rule)
            times = (segment.created_at, segment.changed_at)
            with _names():
                await connection.execute(self._sql["add_segment"], segment.id, *fields, *times)
            await self._note_version(connection, segment)
            written, told = segment, report
            if segment.kind == "list":
                added = await self._add_players(connection, segment, players)
                size = await self._list_size(connection, segment)
                written = replace(segment, size=size)
                told = None if report is None else replace(report, added=added)
            await self._note_size(connection, written)
            await self._raise_revision(connection, segment, check)
            return Written(written, told)

        return await self._change(work, once)

    async def edit(  # noqa: PLR0913 - what may change, and under which conditions
        self,
        segment: str,
        read: int,
        *,
        name: str | None,
        rule: str | None,
        at: datetime,
        size: int | None = None,
        once: Once | None = None,
        check: Check | None = None,
    ) -> Written:
        """Make the version after `read`, whose rule has `size` players; None: as it is.

        Raises SegmentNotFound, SegmentArchived, SegmentChanged, SegmentNameTaken, and what `check`
        raises.
        """

        async def work(connection: Connection) -> Written:
            before = to_be_changed(await self._locked(connection, segment), read)
            after = edited(before, at, name=name, rule=rule, size=size)
            if after != before:
                await self._make_version(connection, after, check)
            return Written(after)

        return await self._change(work, once)

    async def put_players(
        self,
        segment: str,
        read: int | None,
        players: Sequence[str],
        mode: Mode,
        report: ListReport,
        *,
        at: datetime,
        once: Once | None = None,
    ) -> Written:
        """Add players to a list, or replace them: a new version, if anybody comes or goes.

        Raises SegmentNotFound, SegmentArchived, SegmentChanged, TooLarge.
        """

        async def work(connection: Connection) -> Written:
            before = to_be_changed(await self._locked(connection, segment), read)
            removed = 0
            if mode == "replace":
                sql = self._sql["keep_players"]
                removed = _rows(
                    await connection.execute(sql, segment, players, timeout=_BULK_TIMEOUT_S)
                )
            added = await self._add_players(connection, before, players)
            after = before
            if added or removed:
                after = replace(before, version=before.version + 1, changed_at=at)
                after = replace(after, size=await self._list_size(connection, after))
                await self._make_version(connection, after)
            return Written(after, replace(report, added=added, removed=removed))

        return await self._change(work, once)

    async def archive(
        self,
        segment: str,
        read: int | None,
        at: datetime,
        once: Once | None = None,
        check: Check | None = None,
    ) -> Written:
        """Archive a segment, for good; one that is archived stays as it is.

        Raises SegmentNotFound, SegmentChanged, and what `check` raises.
        """

        async def work(connection: Connection) -> Written:
            before = await self._locked(connection, segment)
            if before.archived_at is not None:
                return Written(before)
            to_be_changed(before, read)
            await connection.execute(self._sql["archive"], segment, at)
            await self._raise_revision(connection, before, check)
            return Written(replace(before, archived_at=at, changed_at=at))

        return await self._change(work, once)

    async def _change(
        self, work: Callable[[Connection], Awaitable[Written]], once: Once | None
    ) -> Written:
        """Do `work` once in a transaction, with its answer under the key."""
        async with self._pool.using() as connection, connection.transaction():
            if (found := await idempotency.take(connection, once)) is not None:
                return _decode(found)
            written = await work(connection)
            await idempotency.note(connection, once, msgspec.json.encode(written))
        return written

    async def _locked(self, connection: Connection, segment: str) -> SavedSegment:
        await connection.execute(self._sql["lock"], segment)
        return await self._one(connection, segment)

    async def _raise_revision(
        self, connection: Connection, changed: SavedSegment, check: Check | None
    ) -> None:
        """Have owners look; its lock lets one change after the other be held against `check`."""
        await connection.execute(self._sql["raise_revision"])
        if check is not None:
            check(_live(await connection.fetch(self._sql["active"], changed.brand)))

    async def _make_version(
        self, connection: Connection, after: SavedSegment, check: Check | None = None
    ) -> None:
        with _names():
            await connection.execute(
                self._sql["change"],
                after.id, after.version, after.name, after.rule, after.changed_at,
            )  # fmt: skip
        await self._note_version(connection, after)
        if after.size is not None and after.size.version == after.version:
            await self._note_size(connection, after)
        await self._raise_revision(connection, after, check)

    async def _note_version(self, connection: Connection, after: SavedSegment) -> None:
        fields = (after.version, after.name, after.rule, after.changed_at)
        await connection.execute(self._sql["add_version"], after.id, *fields)

    async def _note_size(self, connection: Connection, after: SavedSegment) -> None:
        if (size := after.size) is not None:
            fields = (size.at, size.version, size.players)
            await connection.execute(self._sql["add_size"], after.id, *fields)

    async def _add_players(
        self, connection: Connection, segment: SavedSegment, players: Sequence[str]
    ) -> int:
        added = 0
        for first in range(0, len(players), _AT_ONCE):
            some = players[first : first + _AT_ONCE]
            shards = [shard_of(segment.brand, player) for player in some]
            added += _rows(
                await connection.execute(
                    self._sql["add_players"], segment.id, shards, some, timeout=_BULK_TIMEOUT_S
                )
            )
        return added

    async def _list_size(self, connection: Connection, after: SavedSegment) -> SegmentSize:
        players = await connection.fetchval(self._sql["count_players"], after.id)
        if players > MAX_LIST_PLAYERS:
            raise TooLarge(too_long())
        return SegmentSize(after.changed_at, after.version, players)

    # --- reading --------------------------------------------------------------------------------

    async def get(self, segment: str) -> SavedSegment:
        """Return a segment, archived or not; raises SegmentNotFound."""
        async with self._pool.using() as connection:
            return await self._one(connection, segment)

    async def page(
        self, brand: str, after: tuple[datetime, str] | None, limit: int, *, archived: bool = False
    ) -> list[SavedSegment]:
        """Return a brand's segments, the newest first, after (created_at, id)."""
        at, segment = after or (None, None)
        async with self._pool.using() as connection:
            rows = await connection.fetch(self._sql["page"], brand, archived, at, segment, limit)
        return [_segment(row) for row in rows]

    async def versions(self, segment: str, below: int | None, limit: int) -> list[SegmentVersion]:
        """Return versions of a segment, the newest first."""
        async with self._pool.using() as connection:
            rows = await connection.fetch(self._sql["versions"], segment, below, limit)
        return [SegmentVersion(*row.values()) for row in rows]

    async def active(self, brand: str | None = None) -> list[LiveSegment]:
        """Return all live segments, of one brand or of all, by id."""
        async with self._pool.using() as connection:
            return _live(await connection.fetch(self._sql["active"], brand))

    async def revision(self) -> int:
        """Return a number that every change to any segment has raised."""
        async with self._pool.using() as connection:
            revision: int = await connection.fetchval(self._sql["revision"])
        return revision

    async def players(self, segment: str, after: str, limit: int) -> list[str]:
        """Return players of a list after a player, in the order of their ids' bytes."""
        async with self._pool.using() as connection:
            rows = await connection.fetch(self._sql["players"], segment, after, limit)
        return [row["player_id"] for row in rows]

    async def players_of(self, segment: str, shards: Sequence[int]) -> dict[int, list[str]]:
        """Return the players of a list by shard, of those shards that have any."""
        async with self._pool.using() as connection:
            rows = await connection.fetch(
                self._sql["players_of_shards"], segment, shards, timeout=_BULK_TIMEOUT_S
            )
        found: dict[int, list[str]] = {}
        for shard, player in rows:
            found.setdefault(shard, []).append(player)
        return found

    async def holds(self, segment: str, shard: int, player: str) -> bool:
        """Whether a list has this player."""
        async with self._pool.using() as connection:
            return bool(
                await connection.fetchval(self._sql["holds_player"], segment, shard, player)
            )

    async def count_players(self, segment: str) -> int:
        """Return how many players a list has."""
        async with self._pool.using() as connection:
            return int(await connection.fetchval(self._sql["count_players"], segment))

    # --- sizes ----------------------------------------------------------------------------------

    async def add_size(self, segment: str, size: SegmentSize) -> None:
        """Note how large a segment was; a second size of one moment takes the first one's place."""
        async with self._pool.using() as connection:
            sql = self._sql["add_size"]
            await connection.execute(sql, segment, size.at, size.version, size.players)

    async def sizes(self, segment: str, before: datetime | None, limit: int) -> list[SegmentSize]:
        """Return sizes of a segment, the newest first."""
        async with self._pool.using() as connection:
            rows = await connection.fetch(self._sql["sizes"], segment, before, limit)
        return [SegmentSize(*row.values()) for row in rows]

    async def unmeasured(self, since: datetime) -> list[LiveSegment]:
        """Return live segments that have no size after `since`."""
        async with self._pool.using() as connection:
            return _live(await connection.fetch(self._sql["unmeasured"], since))

    async def forget_answers(self, before: datetime) -> None:
        """Forget what was answered under an Idempotency-Key before a moment."""
        async with self._pool.using() as connection:
            await connection.execute(load("idempotency")["forget_keys"], before)

    async def _one(self, connection: Connection, segment: str) -> SavedSegment:
        row = await connection.fetchrow(self._sql["segment"], segment)
        if row is None:
            raise SegmentNotFound("no segment has this id")
        return _segment(row)


@contextmanager
def _names() -> Iterator[None]:
    """Say what it means when a name is not free."""
    try:
        yield
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "segments_names":
            raise
        raise SegmentNameTaken(name_taken()) from None


def _segment(row: asyncpg.Record) -> SavedSegment:
    *fields, at, version, players = row.values()
    size = None if at is None else SegmentSize(at, version, players)
    return replace(SavedSegment(*fields), size=size)


def _live(rows: Iterable[asyncpg.Record]) -> list[LiveSegment]:
    return [LiveSegment(*row.values()) for row in rows]


def _decode(answer: bytes) -> Written:
    return msgspec.json.decode(answer, type=Written)


def _rows(status: str) -> int:
    """Return how many rows a statement has touched."""
    return int(status.rpartition(" ")[2])


@asynccontextmanager
async def open_segments(dsn: str) -> AsyncIterator[PostgresSegments]:
    """Yield a store with a small pool of its own, for a command or a test."""
    pool = Pool(dsn, most=2)
    try:
        yield PostgresSegments(pool)
    finally:
        await pool.close()
