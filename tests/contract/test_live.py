"""The laws of a stream of transitions, of tickets and of jobs: on the twins and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Protocol

import asyncpg
import pytest

from crm.adapters.memory_live import MemoryJobs, MemoryTickets, MemoryTransitions, Writing
from crm.adapters.postgres.live import PostgresJobs, PostgresTickets, PostgresTransitions
from crm.adapters.postgres.pool import Pool
from crm.adapters.postgres.queries import load
from crm.domain.errors import DatabaseAway
from crm.domain.live import Audience, Job, Page, Position, Transition
from tests.support.builders import NOON
from tests.support.clock import Clock
from tests.support.live import a_transition
from tests.support.transitions import Open, begin

ALL = Audience("demo", None)


class Stream(Protocol):
    """What the product reads."""

    async def head(self) -> Position: ...
    async def newest(self) -> Position: ...
    async def after(self, position: Position, limit: int) -> Page: ...
    async def changed(self, timeout_s: float) -> None: ...
    async def between(
        self, after: Position, upto: Position, audience: Audience, limit: int
    ) -> Page: ...
    async def unknown(self, audience: Audience) -> list[str]: ...


class Writer(Protocol):
    """A transaction of the writer's."""

    async def write(self, *transitions: Transition) -> None: ...
    async def commit(self) -> None: ...


class World(Protocol):
    """A stream, and who writes it."""

    @property
    def stream(self) -> Stream: ...

    async def begin(self) -> Writer: ...


async def _write(world: World, *players: str, **changes: Any) -> None:
    writer = await world.begin()
    await writer.write(*[a_transition(player, **changes) for player in players])
    await writer.commit()


async def _read(world: World, after: Position, limit: int = 100) -> tuple[list[str], Page]:
    page = await world.stream.after(after, limit)
    return [one.player_id for one in page.transitions], page


async def _settled(world: World, after: Position) -> list[str]:
    """All after a position, once nothing is held back by a transaction of somebody else's."""
    async with asyncio.timeout(30):
        while True:
            players, page = await _read(world, after)
            if not page.held:
                return players
            await asyncio.sleep(0)


class StreamLaws:
    """What any stream of transitions does."""

    async def test_it_begins_behind_what_has_committed(self, world: World) -> None:
        await _write(world, "before")
        head = await _head_behind(world)
        await _write(world, "a", "b")
        await _write(world, "c")
        assert await _settled(world, head) == ["a", "b", "c"]

    async def test_a_transition_comes_back_as_it_was_written(self, world: World) -> None:
        head = await _head_behind(world)
        written = [
            a_transition("p", seq=7),
            a_transition("p", seq=None, entered=False, segment="s2", version=3, shard=255),
        ]
        writer = await world.begin()
        await writer.write(*written)
        await writer.commit()
        await _settled(world, head)
        page = await world.stream.after(head, 10)
        for found, one in zip(page.transitions, written, strict=True):
            for name in ("brand", "segment", "version", "player_id", "entered", "shard", "seq"):
                assert getattr(found, name) == getattr(one, name)
            assert found.at == one.at

    async def test_what_commits_out_of_order_is_neither_missed_nor_told_twice(
        self, world: World
    ) -> None:
        position = await _head_behind(world)
        told: list[str] = []
        early, late = await world.begin(), await world.begin()
        await early.write(a_transition("early"))
        await late.write(a_transition("late"))
        await late.commit()
        players, page = await _read(world, position)
        assert (players, page.held) == ([], True)  # who reads on would miss `early` for ever
        told, position = told + players, page.position
        await _write(world, "later still")
        players, page = await _read(world, position)
        told, position = told + players, page.position
        await early.write(a_transition("early, again", seq=8))
        await early.commit()
        told += await _settled(world, position)
        assert sorted(told) == ["early", "early, again", "late", "later still"]
        assert len(set(told)) == len(told)

    async def test_many_writers_at_once_are_all_read_once(self, world: World) -> None:
        position, told = await _head_behind(world), list[str]()
        writers = [await world.begin() for _ in range(8)]
        for round_ in range(5):
            for number in (3, 0, 6, 1, 7, 2, 5, 4):
                await writers[number].write(a_transition(f"{round_}-{number}"))
                if (round_ + number) % 3 == 0:
                    await writers[number].commit()
                    writers[number] = await world.begin()
                players, page = await _read(world, position, limit=2)
                told, position = told + players, page.position
        for writer in writers:
            await writer.commit()
        told += await _settled(world, position)
        assert sorted(told) == sorted(f"{r}-{n}" for r in range(5) for n in range(8))

    async def test_pages_are_full_until_the_last(self, world: World) -> None:
        position = await _head_behind(world)
        await _write(world, *"abcde")
        await _settled(world, position)
        found = []
        while True:
            players, page = await _read(world, position, limit=2)
            found.append(players)
            position = page.position
            if not page.full:
                break
        assert found == [["a", "b"], ["c", "d"], ["e"]]
        assert (await world.stream.after(position, 2)).transitions == []

    async def test_the_past_of_one_subscriber_is_read_in_bounded_pieces(self, world: World) -> None:
        position = await _head_behind(world)
        for number in range(4):
            await _write(world, f"a{number}")
            await _write(world, f"b{number}", segment="s2")
            await _write(world, f"c{number}", brand="other")
        await _settled(world, position)
        end = (await world.stream.after(position, 100)).position
        for audience, expected in (
            (ALL, ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "b3"]),
            (Audience("demo", frozenset({"s2"})), ["b0", "b1", "b2", "b3"]),
            (Audience("demo", frozenset({"s9"})), []),
        ):
            found: list[str] = []
            at, pages = position, 0
            while at < end:
                page = await world.stream.between(at, end, audience, 5)
                found += [one.player_id for one in page.transitions]
                assert page.position > at
                at, pages = page.position, pages + 1
            assert found == expected
            assert pages == 3
        middle = (await world.stream.between(position, end, ALL, 6)).position
        assert len((await world.stream.between(position, middle, ALL, 100)).transitions) == 4

    async def test_no_cursor_of_this_stream_is_ahead_of_its_newest(self, world: World) -> None:
        head = await world.stream.head()
        await _write(world, "a")
        page = await world.stream.after(head, 10)
        assert page.position <= await world.stream.newest()

    async def test_who_waits_is_told_of_a_commit(self, world: World) -> None:
        await world.stream.head()
        waiting = asyncio.create_task(world.stream.changed(60))
        await _write(world, "told")
        await asyncio.wait_for(waiting, 30)
        await world.stream.changed(0.001)


async def _head_behind(world: World) -> Position:
    """A position behind everything that has committed, whatever others do on the server."""
    position = await world.stream.head()
    async with asyncio.timeout(30):
        while True:
            page = await world.stream.after(position, 100)
            if not page.held:
                return page.position
            await asyncio.sleep(0)


class _MemoryWorld:
    def __init__(self) -> None:
        self.stream = MemoryTransitions()

    async def begin(self) -> Writer:
        return _MemoryWriter(self.stream, self.stream.begin())


class _MemoryWriter:
    def __init__(self, stream: MemoryTransitions, writing: Writing) -> None:
        self._stream = stream
        self._writing = writing

    async def write(self, *transitions: Transition) -> None:
        for one in transitions:
            self._stream.write(self._writing, one)

    async def commit(self) -> None:
        self._stream.commit(self._writing)


class TestMemoryTransitions(StreamLaws):
    @pytest.fixture
    def world(self) -> World:
        return _MemoryWorld()


class _PostgresWorld:
    def __init__(self, dsn: str, stream: PostgresTransitions) -> None:
        self.stream = stream
        self.dsn = dsn
        self.open: list[Open] = []

    async def begin(self) -> Writer:
        self.open.append(await begin(self.dsn))
        return self.open[-1]


class TestPostgresTransitions(StreamLaws):
    @pytest.fixture
    async def world(self, dsn: str) -> AsyncIterator[World]:
        pool = Pool(dsn)
        stream = PostgresTransitions(dsn, pool)
        world = _PostgresWorld(dsn, stream)
        yield world
        for writer in world.open:
            await writer.end()
        await stream.close()
        await pool.close()

    async def test_its_connection_may_be_lost(self, world: _PostgresWorld) -> None:
        position = await _head_behind(world)
        connection = await asyncpg.connect(world.dsn)
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'crm-live'"
        )
        await connection.close()
        with pytest.raises(DatabaseAway):
            await world.stream.after(position, 10)
        await _write(world, "a")
        assert await _settled(world, position) == ["a"]
        await self.test_who_waits_is_told_of_a_commit(world)

    async def test_reading_on_never_scans_the_table(self, world: _PostgresWorld) -> None:
        await _write(world, *[f"p{number}" for number in range(20_000)])
        plans = {
            "transitions_after": ("1", 0, 500),
            "transitions_between": ("1", 0, "9999999", 0, 500, "demo", ["s1"]),
        }
        async with _connected(world.dsn) as connection:
            await connection.execute("ANALYZE segment_transitions")
            for name, values in plans.items():
                rows = await connection.fetch(f"EXPLAIN {load('live')[name]}", *values)
                plan = "\n".join(row[0] for row in rows)
                assert "segment_transitions_order" in plan
                assert "Seq Scan on segment_transitions" not in plan, plan

    async def test_segments_that_are_not_there_are_named(self, world: _PostgresWorld) -> None:
        connection = await asyncpg.connect(world.dsn)
        await connection.execute(
            "INSERT INTO segments (id, brand, name, kind, version, rule, created_at, changed_at)"
            " VALUES ('s1', 'demo', 'S', 'rule', 1, 'x > 1', now(), now()),"
            " ('s2', 'other', 'S', 'rule', 1, 'x > 1', now(), now())"
        )
        await connection.close()
        asked = Audience("demo", frozenset({"s1", "s2", "s3"}))
        assert await world.stream.unknown(asked) == ["s2", "s3"]
        assert await world.stream.unknown(ALL) == []


# --- tickets -------------------------------------------------------------------------------------

KEY = b"k" * 32


class TicketLaws:
    """What any store of tickets does."""

    async def test_a_ticket_is_good_once(self, tickets: Any) -> None:
        until = await tickets.make(b"d", KEY, 30)
        assert until.tzinfo is not None
        found = await asyncio.gather(*[tickets.redeem(b"d") for _ in range(20)])
        assert sorted(one is not None for one in found) == [False] * 19 + [True]
        assert KEY in found

    async def test_an_old_one_and_an_unknown_one_are_not(self, tickets: Any) -> None:
        await tickets.make(b"old", KEY, -1)
        for name in (b"n1", b"n2"):
            await tickets.make(name, KEY, 30)  # sweeps
        assert await tickets.redeem(b"old") is None
        assert await tickets.redeem(b"none") is None

    async def test_one_of_a_key_that_is_not_known_is_not(self, tickets: Any) -> None:
        await tickets.make(b"d", b"another", 30)
        assert await tickets.redeem(b"d") is None


class TestMemoryTickets(TicketLaws):
    @pytest.fixture
    def tickets(self, clock: Clock) -> MemoryTickets:
        return MemoryTickets(clock, lambda key: key == KEY)


class TestPostgresTickets(TicketLaws):
    @pytest.fixture
    async def tickets(self, dsn: str) -> AsyncIterator[PostgresTickets]:
        connection = await asyncpg.connect(dsn)
        await connection.execute("INSERT INTO api_keys (name, key_sha256) VALUES ('k', $1)", KEY)
        await connection.close()
        pool = Pool(dsn)
        yield PostgresTickets(pool)
        await pool.close()


# --- jobs ----------------------------------------------------------------------------------------


def _job(**changes: Any) -> Job:
    fields: dict[str, Any] = {
        "id": "j", "kind": "import", "what": "importing", "state": "running", "done": 1,
        "total": None, "unit": "rows", "started_at": NOON, "changed_at": NOON, "brand": "demo",
    }  # fmt: skip
    return Job(**(fields | changes))


Age = Callable[[float], Awaitable[None]]


class JobLaws:
    """What any store of jobs does."""

    async def test_the_newest_state_counts(self, jobs: Any, age: Age) -> None:
        await jobs.put(_job())
        (first,) = await jobs.recent(60, 60)
        await age(1)
        await jobs.put(_job(done=5, total=9, state="done", message="well"))
        (found,) = await jobs.recent(60, 60)
        assert (found.done, found.total, found.state, found.message) == (5, 9, "done", "well")
        assert found.started_at == first.started_at
        assert found.changed_at > first.changed_at
        assert isinstance(found.changed_at, datetime)

    async def test_what_ended_long_ago_is_not_told_and_what_is_silent_is_lost(
        self, jobs: Any, age: Age
    ) -> None:
        await jobs.put(_job(id="ended", state="done"))
        await jobs.put(_job(id="silent"))
        await age(61)
        await jobs.put(_job(id="new"))
        await jobs.sweep()
        found = {job.id: job.state for job in await jobs.recent(60, 60)}
        assert found == {"silent": "lost", "new": "running"}


class TestMemoryJobs(JobLaws):
    @pytest.fixture
    def jobs(self, clock: Clock) -> MemoryJobs:
        return MemoryJobs(clock)

    @pytest.fixture
    def age(self, clock: Clock) -> Age:
        async def age(seconds: float) -> None:
            clock.move(seconds=seconds)

        return age


class TestPostgresJobs(JobLaws):
    @pytest.fixture
    async def jobs(self, dsn: str) -> AsyncIterator[PostgresJobs]:
        pool = Pool(dsn)
        yield PostgresJobs(pool)
        await pool.close()

    @pytest.fixture
    def age(self, dsn: str) -> Age:
        async def age(seconds: float) -> None:
            async with _connected(dsn) as connection:
                await connection.execute(
                    "UPDATE job_progress SET changed_at = changed_at - make_interval(secs => $1)",
                    seconds,
                )

        return age


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()
