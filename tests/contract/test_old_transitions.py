"""Old transitions: in the lake before they leave the store; no cursor misses one without a word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import polars as pl
import pytest
from msgspec.structs import replace

from crm.adapters.lake import Lake
from crm.adapters.lake_transitions import SCHEMA, LakeTransitionFiles
from crm.adapters.memory_live import MemoryTransitions
from crm.adapters.postgres.events import PostgresEventLog
from crm.adapters.postgres.live import PostgresTransitions
from crm.adapters.postgres.old_transitions import PostgresOldTransitions
from crm.adapters.postgres.pool import Pool
from crm.domain.live import Audience, CursorTooOld, Page, Position, Transition
from crm.domain.telling import Told
from crm.services import old_transitions
from crm.services.old_transitions import drop_old
from tests.support.builders import NOON
from tests.support.live import a_transition
from tests.support.transitions import begin

ALL = Audience("demo", None)
KEPT = timedelta(days=30)
OLD = NOON - timedelta(days=31)
YOUNG = NOON - timedelta(days=29)


@dataclass
class World:
    """A stream, the store of its past, the lake, and who writes."""

    stream: Any
    old: Any
    files: LakeTransitionFiles
    write: Callable[[datetime, Sequence[str]], Awaitable[None]]
    hold: Callable[[], Awaitable[Callable[[], Awaitable[None]]]]
    lake: Path

    async def drop(self, kept: timedelta = KEPT) -> int:
        """Drop what is old at noon."""
        await self.kept()
        return await drop_old(self.old, self.files, NOON, kept, _no_pause)

    async def kept(self) -> list[str]:
        """The players of all transitions that the store has, once nobody holds them back.

        Transactions of any database of the server do.
        """
        async with asyncio.timeout(30):
            while True:
                page: Page = await self.stream.after(Position(0, 0), 1_000)
                if not page.held:
                    return [one.player_id for one in page.transitions]
                await asyncio.sleep(0)

    async def in_lake(self) -> list[str]:
        """The players of all transitions that stand in listed files."""
        names = await self.old.files()
        paths = [self.lake / name for name in names]
        return list(pl.concat([pl.read_parquet(path) for path in paths])["player_id"])


@pytest.fixture(params=["memory", "postgres"])
async def world(request: pytest.FixtureRequest, dsn: str, tmp_path: Path) -> AsyncIterator[World]:
    """An empty stream."""
    files = LakeTransitionFiles(Lake(str(tmp_path)))
    if request.param == "memory":
        stream = MemoryTransitions()

        async def write(at: datetime, players: Sequence[str]) -> None:
            writing = stream.begin()
            for player in players:
                stream.write(writing, a_transition(player, made_at=at))
            stream.commit(writing)

        async def hold() -> Callable[[], Awaitable[None]]:
            writing = stream.begin()

            async def release() -> None:
                stream.commit(writing)

            return release

        yield World(stream, stream, files, write, hold, tmp_path)
        return
    pool = Pool(dsn)
    reading = PostgresTransitions(dsn, pool)

    async def write_there(at: datetime, players: Sequence[str]) -> None:
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute(
                "INSERT INTO segment_transitions"
                " (shard, brand, segment, version, player_id, entered, seq, at, made_at)"
                " SELECT 3, 'demo', 's1', 1, player, true, 7, $2, $2"
                " FROM unnest($1::text[]) AS player",
                list(players),
                at,
            )
        finally:
            await connection.close()

    async def hold_there() -> Callable[[], Awaitable[None]]:
        writing = await begin(dsn)

        async def release() -> None:
            await writing.commit()
            await writing.end()

        return release

    yield World(reading, PostgresOldTransitions(pool), files, write_there, hold_there, tmp_path)
    await reading.close()
    await pool.close()


async def test_what_is_old_is_in_the_lake_and_nowhere_else(world: World) -> None:
    await world.write(OLD, ["a", "b"])
    await world.write(YOUNG, ["c"])
    assert await world.drop() == 2
    assert await world.kept() == ["c"]
    assert await world.in_lake() == ["a", "b"]
    assert await world.drop() == 0
    assert await world.drop(timedelta(days=1)) == 1
    assert (await world.kept(), await world.in_lake()) == ([], ["a", "b", "c"])


async def test_the_lake_has_them_as_they_were(world: World) -> None:
    await world.write(OLD, ["a"])
    (before,) = (await world.stream.after(Position(0, 0), 9)).transitions
    await world.drop()
    (name,) = await world.old.files()
    rows = pl.read_parquet(world.lake / name)
    assert rows.schema == SCHEMA
    place, *fields = rows.row(0)[0], *rows.row(0)[1:]
    assert Position(place, fields[0]) == before.position
    names = [one for one in SCHEMA if one not in ("xact", "id")]
    assert fields[1:] == [getattr(before, one) for one in names]


async def test_only_the_streams_beginning_is_dropped(world: World) -> None:
    await world.write(OLD, ["a"])
    await world.write(YOUNG, ["late to be written"])
    await world.write(OLD, ["b"])
    assert await world.drop() == 1
    assert await world.kept() == ["late to be written", "b"]


async def test_a_longer_retention_keeps_what_stands_in_the_lake_already(world: World) -> None:
    await world.write(OLD, ["a", "b"])
    await world.kept()
    after = await world.old.in_lake()
    some: list[Transition] = list(await world.old.lacking(after, NOON, 9))
    assert await world.old.add(world.files.write(after, some))
    assert await world.drop(timedelta(days=60)) == 0
    assert await world.drop() == 2


async def test_nothing_is_dropped_that_the_lake_lacks(world: World) -> None:
    await world.write(OLD, ["a", "b"])
    assert await world.old.drop(NOON, 100) == 0

    def away(after: Position, transitions: Sequence[Transition]) -> Any:
        raise OSError("the bucket is away")

    world.files.write = away  # type: ignore[method-assign]  # a fault
    with pytest.raises(OSError, match="away"):
        await world.drop()
    assert await world.kept() == ["a", "b"]


async def test_what_may_still_commit_before_it_holds_it_back(world: World) -> None:
    release = await world.hold()
    await world.write(OLD, ["behind"])
    assert await drop_old(world.old, world.files, NOON, KEPT, _no_pause) == 0
    await release()
    assert await world.drop() == 1


async def test_it_is_done_in_small_pieces(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(old_transitions, "A_FILE", 4)
    monkeypatch.setattr(old_transitions, "AT_ONCE", 3)
    players = [f"p{n}" for n in range(10)]
    for player in players:
        await world.write(OLD, [player])
    assert await world.drop() == 10
    assert await world.in_lake() == players
    assert len(await world.old.files()) == 3


async def test_a_cursor_is_good_for_what_is_kept_and_an_older_one_is_told(world: World) -> None:
    start = Position(0, 0)
    await world.write(OLD, ["a", "b"])
    await world.kept()
    second = (await world.stream.after(start, 2)).position
    first = (await world.stream.after(start, 1)).position
    await world.write(YOUNG, ["c"])
    await world.kept()
    end = (await world.stream.after(start, 100)).position
    assert await world.stream.dropped() == start
    await world.drop()
    assert await world.stream.dropped() == second
    page = await world.stream.between(second, end, ALL, 10)
    assert [one.player_id for one in page.transitions] == ["c"]
    for cursor in (start, first):
        with pytest.raises(CursorTooOld):
            await world.stream.between(cursor, end, ALL, 10)


async def test_of_two_that_write_one_is_listed(world: World) -> None:
    await world.write(OLD, ["a", "b"])
    await world.kept()
    after = await world.old.in_lake()
    some = list(await world.old.lacking(after, NOON, 9))
    files = [world.files.write(after, some[:1]), world.files.write(after, some)]
    assert [await world.old.add(file) for file in files] == [True, False]
    assert await world.drop() == 2
    assert await world.in_lake() == ["a", "b"]


async def test_what_a_killed_writer_has_left_goes_in_time(world: World) -> None:
    await world.write(OLD, ["a"])
    stray = world.files.write(Position(0, 0), [replace(a_transition("x"), made_at=OLD)])
    written = world.files.names()[stray.name]
    later = written + timedelta(minutes=59)
    await drop_old(world.old, world.files, later, KEPT, _no_pause)
    assert stray.name in world.files.names()
    await drop_old(world.old, world.files, later + timedelta(minutes=2), KEPT, _no_pause)
    assert list(world.files.names()) == await world.old.files()


async def _no_pause(_s: float) -> None:
    """Nobody else is there."""


# --- clocks --------------------------------------------------------------------------------------


class _Says:
    """Tells a clock, of no shard."""

    shards: frozenset[int] = frozenset()
    due = True

    def __init__(self, owner: str, clock_us: int) -> None:
        self._told = Told(owner, clock_us, [], [])

    def of(self, *_: object) -> Told:
        """Return it."""
        return self._told


async def test_the_clocks_of_owners_that_are_gone_are_dropped(dsn: str) -> None:
    log, pool = PostgresEventLog(dsn, lambda: NOON), Pool(dsn)
    try:
        for owner, shards in (("former", [1, 2]), ("owner", [1]), ("other", [2])):
            epochs = {s: c.epoch for s, c in (await log.claim(shards, owner)).items()}
            await log.append(epochs, [], _Says(owner, 5))
        await log.append({}, [], _Says("about to claim", 10_000))
        old = PostgresOldTransitions(pool)
        await old.drop_clocks(datetime.fromtimestamp(0.005, NOON.tzinfo))
        async with pool.using() as connection:
            rows = await connection.fetch("SELECT owner FROM segment_clocks ORDER BY owner")
        assert [row["owner"] for row in rows] == ["about to claim", "other", "owner"]
        claimed = await log.claim([1, 2], "successor")
        assert {claim.clock_us for claim in claimed.values()} == {5}
    finally:
        await log.close()
        await pool.close()
