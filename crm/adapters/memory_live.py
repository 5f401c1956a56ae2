"""The twins in memory of what the live socket reads: transitions, tickets, progress of jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import takewhile

import msgspec

from crm.domain.live import (
    Audience,
    CursorTooOld,
    Job,
    Page,
    Position,
    Transition,
    too_old,
)
from crm.domain.transition_files import TransitionFile


@dataclass
class Writing:
    """A transaction that is open: what it has written nobody sees."""

    xact: int
    rows: list[Transition] = field(default_factory=list)


class MemoryTransitions:
    """Transitions as PostgreSQL would show them: by transaction, visible when it commits."""

    def __init__(self) -> None:
        self._next = Position(1, 1)
        self._open: dict[int, Writing] = {}
        self._rows: list[Transition] = []
        self._news = asyncio.Event()
        self._dropped = Position(0, 0)
        self.listed: list[TransitionFile] = []  # files of the lake

    def begin(self) -> Writing:
        """Open a transaction."""
        writing = Writing(self._next.xact)
        self._next = Position(self._next.xact + 1, self._next.id)
        self._open[writing.xact] = writing
        return writing

    def write(self, writing: Writing, transition: Transition) -> None:
        """Write a transition; its position is given here."""
        position = Position(writing.xact, self._next.id)
        self._next = Position(self._next.xact, self._next.id + 1)
        writing.rows.append(msgspec.structs.replace(transition, position=position))

    def commit(self, writing: Writing) -> None:
        """Show what a transaction has written, and tell of it."""
        del self._open[writing.xact]
        self._rows = sorted((*self._rows, *writing.rows), key=lambda row: row.position)
        self._news.set()

    async def head(self) -> Position:
        """Return the position at which a stream that begins now begins."""
        return Position(min(self._open, default=self._next.xact), 0)

    async def newest(self) -> Position:
        """Return a position that no cursor can be ahead of."""
        return await self.head()

    async def after(self, position: Position, limit: int) -> Page:
        """Return at most `limit` transitions after `position`, in order."""
        horizon = await self.head()
        rows = [row for row in self._rows if position < row.position < horizon][:limit]
        if len(rows) == limit:
            return Page(rows, rows[-1].position, full=True)
        held = any(row.position > horizon for row in self._rows)
        return Page(rows, max(horizon, position), held=held)

    async def changed(self, timeout_s: float) -> None:
        """Return when something is told, or `timeout_s` has passed."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()

    async def between(
        self, after: Position, upto: Position, audience: Audience, limit: int
    ) -> Page:
        """Return what `audience` wants of the next `limit` transitions; raises CursorTooOld."""
        if after < self._dropped:
            raise CursorTooOld(too_old())
        piece = [row for row in self._rows if after < row.position <= upto][:limit]
        full = len(piece) == limit
        wanted = [
            row
            for row in piece
            if row.brand == audience.brand
            and (audience.segments is None or row.segment in audience.segments)
        ]
        return Page(wanted, piece[-1].position if full else upto, full=full)

    async def unknown(self, audience: Audience) -> list[str]:
        """Return the segments that nobody has ever entered."""
        known = {row.segment for row in self._rows if row.brand == audience.brand}
        return sorted((audience.segments or frozenset()) - known)

    # --- the past -------------------------------------------------------------------------------

    async def dropped(self) -> Position:
        """Return the place of the last transition that is not kept here any more."""
        return self._dropped

    async def in_lake(self) -> Position:
        """Return the place up to which the lake holds all."""
        return self.listed[-1].last if self.listed else Position(0, 0)

    async def lacking(self, after: Position, before: datetime, limit: int) -> Sequence[Transition]:
        """Return the next transitions after a place, in order, up to the first made since."""
        horizon = await self.head()
        next_ = [row for row in self._rows if after < row.position < horizon][:limit]
        return list(takewhile(lambda row: row.made_at < before, next_))

    async def add(self, file: TransitionFile) -> bool:
        """List a file of the lake, if it begins where the lake ends."""
        if file.after != await self.in_lake():
            return False
        self.listed.append(file)
        return True

    async def files(self) -> list[str]:
        """Return the names of all files that are listed, in the stream's order."""
        return [file.name for file in self.listed]

    async def drop(self, before: datetime, limit: int) -> int:
        """Drop up to so many that were made before a moment and stand in the lake."""
        end = await self.in_lake()
        old = [row for row in self._rows if row.position <= end][:limit]
        gone = list(takewhile(lambda row: row.made_at < before, old))
        if gone:
            self._rows = self._rows[len(gone) :]
            self._dropped = gone[-1].position
        return len(gone)

    async def drop_clocks(self, before: datetime) -> None:
        """Nobody has a clock here."""

    async def close(self) -> None:
        """Nothing is open."""


class MemoryTickets:
    """Tickets by digest, and the keys that they may be asked for with."""

    def __init__(self, clock: Callable[[], datetime], known: Callable[[bytes], bool]) -> None:
        self._clock = clock
        self._known = known
        self._tickets: dict[bytes, tuple[bytes, datetime]] = {}

    async def make(self, digest: bytes, key_sha256: bytes, valid_s: float) -> datetime:
        """Keep a ticket; return until when it is good."""
        until = self._clock() + timedelta(seconds=valid_s)
        self._tickets[digest] = (key_sha256, until)
        return until

    async def redeem(self, digest: bytes) -> bytes | None:
        """Use a ticket up; return whose key asked for it, or None."""
        key, until = self._tickets.pop(digest, (b"", self._clock()))
        return key if until > self._clock() and self._known(key) else None


class MemoryJobs:
    """Progress of jobs by id."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._jobs: dict[str, Job] = {}

    async def put(self, job: Job) -> None:
        """Store a job's newest state; its times are this store's."""
        now = self._clock()
        started = self._jobs[job.id].started_at if job.id in self._jobs else now
        self._jobs[job.id] = msgspec.structs.replace(job, started_at=started, changed_at=now)

    async def sweep(self) -> None:
        """Forget what ended long ago: here nothing is old."""

    async def close(self) -> None:
        """Nothing is open."""

    async def recent(self, seconds: float, silence_s: float) -> list[Job]:
        """Return what runs and what changed in the last seconds, the newest first."""
        now = self._clock()
        found = []
        for job in sorted(self._jobs.values(), key=lambda one: one.changed_at, reverse=True):
            age_s = (now - job.changed_at).total_seconds()
            if job.state == "running" and age_s > silence_s:
                found.append(msgspec.structs.replace(job, state="lost"))
            elif job.state == "running" or age_s < seconds:
                found.append(job)
        return found
