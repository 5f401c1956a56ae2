"""What is told beside transitions, about once a second: counters of brands, progress of jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Protocol

from crm.domain.errors import CrmError
from crm.domain.facts import Fact, Stream
from crm.domain.live import Audience, Counters, Job
from crm.services.live import Hub, Mailbox

PLAYERS_S = 5.0  # how old a number of players may be: counting asks every owner
SILENCE_S = 60.0  # so long a running job may say nothing
FIRST_S = 3600.0  # what a new subscriber is told of jobs: an hour
AT_ONCE = 25  # counters go to so many sockets, then it is the turn of transitions
PAUSE_S = 0.005
FACTS_OF: Stream = "models"
FACTS_AT_ONCE = 100
OVERLAP_S = 10.0  # a reading looks back so far before the last one: commits come late


class Log(Protocol):
    """The log of events."""

    async def length(self) -> int:
        """Return the number of events ever accepted; raises DatabaseAway."""


class Jobs(Protocol):
    """Progress of jobs."""

    async def recent(self, seconds: float, silence_s: float) -> Sequence[Job]:
        """Return what runs and what changed lately, the newest first; raises DatabaseAway."""


class ToldFacts(Protocol):
    """Streams of facts."""

    async def after(self, stream: Stream, seq: int, limit: int) -> list[Fact]:
        """Return at most `limit` facts behind `seq`, in order; raises DatabaseAway."""

    async def head(self, stream: Stream) -> int:
        """Return the seq of a stream's newest fact, 0 before the first; raises DatabaseAway."""


class Figures:
    """Counters for those who want them; nothing is asked for where nobody does."""

    def __init__(
        self,
        hub: Hub,
        log: Log,
        count_players: Callable[[str], Awaitable[int]],
        render: Callable[[Counters], str],
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._pause = pause
        self._hub = hub
        self._log = log
        self._count_players = count_players
        self._render = render
        self._clock = clock
        self._monotonic = monotonic
        self._last: tuple[float, int] | None = None
        self._players: dict[str, tuple[float, int | None]] = {}

    async def tick(self) -> None:
        """Publish each brand's counters once; raises DatabaseAway."""
        wanting = [(audience, _wanting(boxes)) for audience, boxes in self._hub.members()]
        wanting = [(audience, boxes) for audience, boxes in wanting if boxes]
        if not wanting:
            self._last = None
            return
        length, now = await self._log.length(), self._monotonic()
        before, self._last = self._last, (now, length)
        rate = 0.0
        if before is not None and now > before[0]:
            rate = (length - before[1]) / (now - before[0])
        for audience, boxes in wanting:
            players = await self._players_of(audience.brand, now)
            counters = Counters(
                audience.brand, self._clock(), length, round(rate, 1), players,
                self._hub.since or self._clock(), self._moves(audience),
            )  # fmt: skip
            text = self._render(counters)
            for start in range(0, len(boxes), AT_ONCE):
                for box in boxes[start : start + AT_ONCE]:
                    box.offer_counters(text)
                await self._pause(PAUSE_S)

    async def _players_of(self, brand: str, now: float) -> int | None:
        """Return a number that is a few seconds old at most; None while shards are warming."""
        counted_at, players = self._players.get(brand, (float("-inf"), None))
        if now - counted_at < PLAYERS_S:
            return players
        try:
            found: int | None = await self._count_players(brand)
        except CrmError:
            found = None
        self._players[brand] = (now, found)
        return found

    def _moves(self, audience: Audience) -> dict[str, tuple[int, int]]:
        return {
            segment: (entered, left)
            for (brand, segment), (entered, left) in self._hub.moves.items()
            if brand == audience.brand
            and (audience.segments is None or segment in audience.segments)
        }


class JobBoard:
    """Progress of jobs for those who want it: each change once, the newest state for a newcomer."""

    def __init__(self, hub: Hub, jobs: Jobs, monotonic: Callable[[], float]) -> None:
        self._hub = hub
        self._jobs = jobs
        self._monotonic = monotonic
        self._told: dict[str, tuple[datetime, str]] = {}
        self._read_at: float | None = None

    async def tick(self) -> None:
        """Tell what has changed since the last time; raises DatabaseAway."""
        boxes = [box for box in self._hub.mailboxes if box.wanted.jobs]
        if not boxes:
            self._read_at = None
            return
        now = self._monotonic()
        back_s = FIRST_S if self._read_at is None else now - self._read_at + OVERLAP_S
        jobs = await self._jobs.recent(back_s, SILENCE_S)
        changed = [job for job in jobs if self._told.get(job.id) != _state(job)]
        self._told, self._read_at = {job.id: _state(job) for job in jobs}, now
        for job in reversed(changed):
            for box in boxes:
                _offer(box, job)

    async def welcome(self, box: Mailbox) -> None:
        """Tell a new subscriber what runs and what ended lately; raises DatabaseAway."""
        now = self._monotonic()
        jobs = await self._jobs.recent(FIRST_S, SILENCE_S)
        if self._read_at is None:  # nobody else is told of changes: they begin here
            self._told, self._read_at = {job.id: _state(job) for job in jobs}, now
        for job in reversed(jobs):
            _offer(box, job)


class FactBoard:
    """Facts of models for those who want them, from when the first of them came."""

    def __init__(self, hub: Hub, facts: ToldFacts) -> None:
        self._hub = hub
        self._facts = facts
        self._seq: int | None = None

    async def tick(self) -> None:
        """Tell what is new since the last time; raises DatabaseAway."""
        boxes = [box for box in self._hub.mailboxes if box.wanted.facts]
        if not boxes:
            self._seq = None
            return
        await self.begin()
        for fact in await self._facts.after(FACTS_OF, self._seq or 0, FACTS_AT_ONCE):
            self._seq = fact.seq
            for box in boxes:
                if fact.brand == box.wanted.audience.brand:
                    box.offer_fact(fact)

    async def begin(self) -> None:
        """Note where the stream stands, if nobody has followed it; raises DatabaseAway."""
        if self._seq is None:
            self._seq = await self._facts.head(FACTS_OF)


def _state(job: Job) -> tuple[datetime, str]:
    return (job.changed_at, job.state)


def _wanting(boxes: set[Mailbox]) -> list[Mailbox]:
    return [box for box in boxes if box.wanted.counters]


def _offer(box: Mailbox, job: Job) -> None:
    if job.brand is None or job.brand == box.wanted.audience.brand:
        box.offer_job(job)
