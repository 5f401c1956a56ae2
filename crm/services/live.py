"""The live hub: what is new goes from one reader to the mailboxes of all subscribers, in memory.

Everything here is synchronous and belongs to one event loop, so a mailbox joins the stream between
two batches, never within one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from crm.domain.facts import Fact
from crm.domain.live import Audience, Chunk, Job, Position, Transition, Wanted

ROOM = 256 * 1024  # characters of transitions that wait for one subscriber
RECENT = 50_000  # transitions kept (25 MB), so that a reconnect rarely asks the database
JOBS_WAITING = 200
FACTS_WAITING = 200


class Mailbox:
    """What waits for one subscriber: transitions until there is no room, and newest counters.

    `live`: the stream comes in here. A subscriber that is too slow for that falls out of it, and
    reads what it has missed from the store, at its own pace, until it has caught up.
    """

    def __init__(self, wanted: Wanted, room: int = ROOM) -> None:
        self.wanted = wanted
        self.live = False
        self.ready = asyncio.Event()
        self._room = room
        self._chunks: deque[Chunk] = deque()
        self._size = 0
        self._counters: str | None = None
        self._lost = 0
        self._jobs: dict[str, Job] = {}
        self._facts: deque[Fact] = deque(maxlen=FACTS_WAITING)
        self._due = False

    def offer(self, chunk: Chunk) -> bool:
        """Take in transitions; False, and the mailbox has left the stream, if there is no room."""
        if self._size + len(chunk.text) > self._room and self._chunks:
            self.live = False
            self._chunks.clear()
            self._size = 0
            self.ready.set()
            return False
        self._chunks.append(chunk)
        self._size += len(chunk.text)
        self.ready.set()
        return True

    def offer_counters(self, text: str) -> None:
        """Take in counters; older ones that still wait are lost, and counted."""
        self._lost += self._counters is not None
        self._counters = text
        self.ready.set()

    def offer_job(self, job: Job) -> None:
        """Take in a job's newest state; of very many jobs the oldest is let go."""
        self._jobs.pop(job.id, None)
        self._jobs[job.id] = job
        if len(self._jobs) > JOBS_WAITING:
            del self._jobs[next(iter(self._jobs))]
        self.ready.set()

    def offer_fact(self, fact: Fact) -> None:
        """Take in a fact; of very many the oldest is let go: a gap in `seq` shows it."""
        self._facts.append(fact)
        self.ready.set()

    def remind(self) -> None:
        """Have a heartbeat sent."""
        self._due = True
        self.ready.set()

    def take(self, most: int) -> list[Chunk]:
        """Return chunks of about `most` characters at most, the oldest first."""
        taken: list[Chunk] = []
        size = 0
        while self._chunks and (not taken or size + len(self._chunks[0].text) <= most):
            chunk = self._chunks.popleft()
            size += len(chunk.text)
            taken.append(chunk)
        self._size -= size
        return taken

    def take_counters(self) -> tuple[str, int] | None:
        """Return the newest counters and how many were lost before them."""
        if self._counters is None:
            return None
        taken = (self._counters, self._lost)
        self._counters, self._lost = None, 0
        return taken

    def take_jobs(self) -> list[Job]:
        """Return the jobs that have changed."""
        jobs = list(self._jobs.values())
        self._jobs.clear()
        return jobs

    def take_facts(self) -> list[Fact]:
        """Return the facts that wait, in order."""
        facts = list(self._facts)
        self._facts.clear()
        return facts

    def take_reminder(self) -> bool:
        """Whether a heartbeat is due."""
        due, self._due = self._due, False
        return due

    @property
    def empty(self) -> bool:
        """Whether no transition waits."""
        return not self._chunks


class _Batch(NamedTuple):
    before: Position
    position: Position
    transitions: Sequence[Transition]


class Hub:
    """All mailboxes of a process, and the stream's newest position (None: nobody reads it)."""

    def __init__(
        self,
        render: Callable[[Transition], str],
        clock: Callable[[], datetime],
        recent: int = RECENT,
    ) -> None:
        self.position: Position | None = None
        self.since: datetime | None = None
        self.mailboxes: set[Mailbox] = set()
        self.needed = asyncio.Event()
        self.moves: dict[tuple[str, str], list[int]] = {}  # entered and left, since the start
        self._render = render
        self._clock = clock
        self._members: dict[Audience, set[Mailbox]] = {}
        self._by_segment: dict[tuple[str, str], list[Audience]] = {}
        self._moved = asyncio.Event()
        self._batches: deque[_Batch] = deque()
        self._kept = 0
        self._recent = recent

    # --- subscribers ----------------------------------------------------------------------------

    def attach(self, mailbox: Mailbox) -> None:
        """Count a subscriber in; transitions come once it has joined."""
        self.mailboxes.add(mailbox)
        self._note_need()

    def detach(self, mailbox: Mailbox) -> None:
        """Forget a subscriber."""
        self.mailboxes.discard(mailbox)
        self._leave(mailbox)
        self._note_need()

    def join(self, mailbox: Mailbox, after: Position) -> bool:
        """Let the stream come in from `after` on; False if that is not in memory (any more).

        True also where `after` is all that there is: nothing is missed and nothing comes twice.
        """
        if self.position is None or after > self.position:
            return False
        missed: list[_Batch] = []
        if after < self.position:
            if not self._batches or after < self._batches[0].before:
                return False
            missed = [batch for batch in self._batches if batch.position > after]
        audience = mailbox.wanted.audience
        mailbox.live = True
        for batch in missed:
            texts = [
                self._render(one)
                for one in batch.transitions
                if one.position > after and _wants(audience, one)
            ]
            if texts and not mailbox.offer(Chunk(",".join(texts), batch.position)):
                return False  # from the store, then, page by page
        self._enter(mailbox)
        return True

    def members(self) -> Iterator[tuple[Audience, set[Mailbox]]]:
        """Yield every subscriber, grouped by what it wants."""
        found: dict[Audience, set[Mailbox]] = {}
        for mailbox in self.mailboxes:
            found.setdefault(mailbox.wanted.audience, set()).add(mailbox)
        yield from found.items()

    async def reached(self, position: Position | None) -> Position:
        """Return the stream's position once somebody reads it and it is at `position` or later."""
        while self.position is None or (position is not None and self.position < position):
            await self._moved.wait()
        return self.position

    # --- the reader's side ----------------------------------------------------------------------

    def start(self, position: Position) -> None:
        """Begin a stream at a position; what was before is in the store alone."""
        self.moves.clear()
        self.since = self._clock()
        self._forget()
        self._move(position)

    def stop(self) -> None:
        """Say that nobody reads the stream any more."""
        self.position = None
        self._forget()

    def publish(self, transitions: Sequence[Transition], position: Position) -> None:
        """Hand out what follows the stream's position, up to `position`."""
        before = self.position
        if before is None or position <= before:
            return
        texts: dict[Audience, list[str]] = {}
        for one in transitions:
            count = self.moves.setdefault((one.brand, one.segment), [0, 0])
            count[0 if one.entered else 1] += 1
            audiences = self._interested(one)
            if audiences:
                text = self._render(one)
                for audience in audiences:
                    texts.setdefault(audience, []).append(text)
        for audience, parts in texts.items():
            self._deliver(audience, Chunk(",".join(parts), position))
        self._keep(_Batch(before, position, transitions))
        self._move(position)

    def _deliver(self, audience: Audience, chunk: Chunk) -> None:
        for mailbox in [m for m in self._members[audience] if not m.offer(chunk)]:
            self._leave(mailbox)

    def _keep(self, batch: _Batch) -> None:
        if not batch.transitions and self._batches:  # a mere step forward lengthens the last one
            last = self._batches.pop()
            self._kept -= len(last.transitions)
            batch = _Batch(last.before, batch.position, last.transitions)
        self._batches.append(batch)
        self._kept += len(batch.transitions)
        while self._kept > self._recent:
            self._kept -= len(self._batches.popleft().transitions)

    def _forget(self) -> None:
        self._batches.clear()
        self._kept = 0

    def _move(self, position: Position) -> None:
        self.position = position
        if not self._moved.is_set():
            self._moved.set()
            self._moved = asyncio.Event()

    def _interested(self, one: Transition) -> list[Audience]:
        some = self._by_segment.get((one.brand, one.segment), [])
        everything = Audience(one.brand, None)
        return [*some, everything] if everything in self._members else some

    def _enter(self, mailbox: Mailbox) -> None:
        audience = mailbox.wanted.audience
        if audience not in self._members:
            self._members[audience] = set()
            for key in _keys(audience):
                self._by_segment.setdefault(key, []).append(audience)
        self._members[audience].add(mailbox)

    def _leave(self, mailbox: Mailbox) -> None:
        mailbox.live = False
        audience = mailbox.wanted.audience
        members = self._members.get(audience, set())
        members.discard(mailbox)
        if not members and self._members.pop(audience, None) is not None:
            for key in _keys(audience):
                self._by_segment[key].remove(audience)
                if not self._by_segment[key]:
                    del self._by_segment[key]

    def _note_need(self) -> None:
        if any(box.wanted.transitions or box.wanted.counters for box in self.mailboxes):
            self.needed.set()
        else:
            self.needed.clear()


def _keys(audience: Audience) -> Iterable[tuple[str, str]]:
    return [(audience.brand, segment) for segment in audience.segments or ()]


def _wants(audience: Audience, one: Transition) -> bool:
    return audience.brand == one.brand and (
        audience.segments is None or one.segment in audience.segments
    )
