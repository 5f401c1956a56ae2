"""Importing rows: a chunk of rows becomes events, goes through the door and to the feature shards.

A row's events are one group, stored whole or not at all. Everything may be repeated: what is known
already comes back as a duplicate.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any

import msgspec

from crm.domain.appending import Verdict
from crm.domain.bound_mappings import BoundMapping, looks_damaged
from crm.domain.errors import DatabaseAway, EventRefused, ShardsWarming
from crm.domain.events import Door, LoggedEvent
from crm.domain.expressions import exact_arithmetic
from crm.domain.ports import FeatureShards

ROWS_A_CHUNK = 1_000
EVENTS_A_CALL = 2_000
CALLS_IN_FLIGHT = 2
FIRST_LINES = 5

_CONFLICT = ("conflict", "an event of this row is known with other content; nothing was changed")


class Fault(msgspec.Struct, array_like=True, frozen=True):
    """Why one row is rejected; `line` counts from 1 in the file, the message shows no values."""

    line: int
    code: str
    message: str


class Chunk(msgspec.Struct, array_like=True):
    """Consecutive rows of one file: line numbers, cells, row hashes (or none), unreadable lines."""

    file: int
    lines: list[int]
    rows: list[list[Any]]
    hashes: list[str]
    faults: list[Fault]


class Outcome(msgspec.Struct, array_like=True):
    """What became of one chunk: rows by fate, new events, and the lines to look at."""

    file: int
    accepted: int = 0
    duplicates: int = 0
    filtered: int = 0
    events: int = 0
    rejected: list[Fault] = []
    doubtful: list[int] = []

    @property
    def read(self) -> int:
        """The number of rows."""
        return self.accepted + self.duplicates + self.filtered + len(self.rejected)


@dataclass(frozen=True)
class Patience:
    """How long warming shards are waited for (exponential back-off with jitter, in seconds)."""

    deadline_s: float = 60.0
    first_wait_s: float = 0.1
    longest_wait_s: float = 3.0


@dataclass(frozen=True)
class Importer:
    """Stores chunks through `door` and `shards`, with a bounded number of calls in flight."""

    shards: FeatureShards
    door: Door
    mapping: BoundMapping
    clock: Callable[[], datetime]
    patience: Patience = field(default_factory=Patience)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Random = field(default_factory=Random)

    async def store(self, chunks: Iterable[Chunk]) -> list[Outcome]:
        """Store all rows; raises ShardsWarming or DatabaseAway once patience is at its end."""
        outcomes = []
        running: set[asyncio.Task[None]] = set()
        try:
            for chunk in chunks:
                outcome, rows = accept_rows(chunk, self.mapping, self.door, self.clock())
                outcomes.append(outcome)
                for part in _calls(rows):
                    running.add(asyncio.create_task(self._append(part, outcome)))
                    running = await _at_most(running, CALLS_IN_FLIGHT - 1)
            await _at_most(running, 0)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        return outcomes

    async def _append(self, rows: Sequence[AcceptedRow], outcome: Outcome) -> None:
        verdicts = await self._patiently([events for _, events in rows])
        for (line, _), row_verdicts in zip(rows, verdicts, strict=True):
            _count(outcome, line, row_verdicts)

    async def _patiently(self, groups: list[list[LoggedEvent]]) -> list[list[Verdict]]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.patience.deadline_s
        wait_s = self.patience.first_wait_s
        while True:
            try:
                return await self.shards.append(groups)
            except (ShardsWarming, DatabaseAway):
                # what was stored before the error is a duplicate when it comes again
                if loop.time() + wait_s > deadline:
                    raise
            await self.sleep(wait_s * self.random.uniform(0.5, 1.0))
            wait_s = min(2 * wait_s, self.patience.longest_wait_s)


AcceptedRow = tuple[int, list[LoggedEvent]]


def accept_rows(
    chunk: Chunk, mapping: BoundMapping, door: Door, received_at: datetime
) -> tuple[Outcome, list[AcceptedRow]]:
    """Turn a chunk's rows into logged events, by line; rows that are refused are in the outcome."""
    outcome = Outcome(chunk.file, rejected=list(chunk.faults))
    accepted: list[AcceptedRow] = []
    hashes = chunk.hashes or [""] * len(chunk.rows)
    with exact_arithmetic():
        for line, cells, row_hash in zip(chunk.lines, chunk.rows, hashes, strict=True):
            try:
                events = mapping.events(cells, row_hash)
                logged = [door.accept(event, received_at) for event in events]
            except EventRefused as error:
                outcome.rejected.append(Fault(line, error.code, error.message))
                continue
            if not logged:
                outcome.filtered += 1
                continue
            if looks_damaged(logged[0].player_id):
                outcome.doubtful.append(line)
            accepted.append((line, logged))
    return outcome, accepted


def _calls(rows: list[AcceptedRow]) -> Iterator[list[AcceptedRow]]:
    """Split rows into calls of about `EVENTS_A_CALL` events."""
    call: list[AcceptedRow] = []
    events = 0
    for row in rows:
        call.append(row)
        events += len(row[1])
        if events >= EVENTS_A_CALL:
            yield call
            call, events = [], 0
    if call:
        yield call


async def _at_most(running: set[asyncio.Task[None]], limit: int) -> set[asyncio.Task[None]]:
    """Wait until at most `limit` tasks run, and return them; raises what one of them raised."""
    await asyncio.sleep(0)  # lets a new task send its call before the next rows are read
    while len(running) > limit:
        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    return running


def _count(outcome: Outcome, line: int, verdicts: Sequence[Verdict]) -> None:
    if any(verdict in ("conflict", "withheld") for verdict in verdicts):
        outcome.rejected.append(Fault(line, *_CONFLICT))
        return
    new = sum(verdict == "accepted" for verdict in verdicts)
    outcome.events += new
    outcome.accepted += new > 0
    outcome.duplicates += new == 0


class Tally:
    """The sum of outcomes: 16 bytes a rejected row, so that a file of nothing but faults fits."""

    def __init__(self, files: int) -> None:
        self.accepted = self.duplicates = self.filtered = self.events = 0
        self._reasons: dict[tuple[str, str], int] = {}
        self._lines = [array("q") for _ in range(files)]
        self._reason_of = [array("l") for _ in range(files)]
        self._doubtful: list[array[int]] = [array("q") for _ in range(files)]

    def add(self, outcome: Outcome) -> None:
        """Count one chunk's outcome."""
        self.accepted += outcome.accepted
        self.duplicates += outcome.duplicates
        self.filtered += outcome.filtered
        self.events += outcome.events
        self._doubtful[outcome.file].extend(outcome.doubtful)
        for fault in outcome.rejected:
            reason = self._reasons.setdefault((fault.code, fault.message), len(self._reasons))
            self._lines[outcome.file].append(fault.line)
            self._reason_of[outcome.file].append(reason)

    @property
    def rejected(self) -> int:
        """The number of rejected rows."""
        return sum(len(lines) for lines in self._lines)

    @property
    def read(self) -> int:
        """The number of rows."""
        return self.accepted + self.duplicates + self.filtered + self.rejected

    def faults(self, file: int) -> Iterator[Fault]:
        """Yield the rejected rows of a file, in line order."""
        reasons = list(self._reasons)
        for line, reason in sorted(zip(self._lines[file], self._reason_of[file], strict=True)):
            yield Fault(line, *reasons[reason])

    def doubtful(self, file: int) -> list[int]:
        """Return the lines of a file whose player id may be damaged, in order."""
        return sorted(self._doubtful[file])

    def rejected_by_reason(self) -> dict[str, int]:
        """Return how many rows were rejected for each code, the most frequent first."""
        codes = [code for code, _ in self._reasons]
        counts: Counter[str] = Counter()
        for reasons in self._reason_of:
            for reason, count in Counter(reasons).items():
                counts[codes[reason]] += count
        return dict(counts.most_common())

    def first_lines(self) -> dict[str, list[tuple[int, int]]]:
        """Return the first places, as (file, line), of each code."""
        first: dict[str, list[tuple[int, int]]] = {}
        for file in range(len(self._lines)):
            for fault in self.faults(file):
                places = first.setdefault(fault.code, [])
                if len(places) < FIRST_LINES:
                    places.append((file, fault.line))
        return first
