"""What is told live: positions in the stream of transitions, the transitions, who wants what."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple

import msgspec

from crm.domain.errors import CrmError

_CURSOR = re.compile(r"([0-9a-f]{1,16})-([0-9a-f]{1,16})")
_MOST = 2**63


class CursorUnusable(CrmError):
    """A cursor is not one of ours, or is ahead of this database."""

    code = "invalid_cursor"


class CursorTooOld(CrmError):
    """What came after a cursor is not kept any more."""

    code = "cursor_too_old"


class Position(NamedTuple):
    """A place in the order that readers of transitions can trust: nothing comes late before it."""

    xact: int
    id: int


def to_cursor(position: Position) -> str:
    """Return a position as the text that clients keep."""
    return f"{position.xact:x}-{position.id:x}"


def from_cursor(text: str) -> Position:
    """Return the position in a client's cursor; raises CursorUnusable."""
    found = _CURSOR.fullmatch(text)
    position = Position(int(found[1], 16), int(found[2], 16)) if found else None
    if position is None or max(position) >= _MOST:
        raise CursorUnusable("this is no cursor: send one from a message, or none")
    return position


def too_old() -> str:
    """What is said of a cursor before the first transition that is kept."""
    return (
        "what came after this cursor is not kept any more: read who is in the segments now, and"
        " begin without a cursor"
    )


class Transition(msgspec.Struct, frozen=True):
    """A player entered or left a saved segment; `seq` names the event that caused it, or None."""

    position: Position
    brand: str
    segment: str
    version: int
    player_id: str
    entered: bool
    shard: int
    seq: int | None
    at: datetime
    made_at: datetime


class Page(NamedTuple):
    """Transitions in order, and up to where they are all.

    `full`: more may follow at once. `held`: some are there that may not be told yet, because a
    transaction that began before theirs is still open.
    """

    transitions: Sequence[Transition]
    position: Position
    full: bool = False
    held: bool = False


class Chunk(NamedTuple):
    """Transitions of one batch as text, and the position after them."""

    text: str
    position: Position


class Audience(NamedTuple):
    """Whose transitions are wanted: `segments` None means all of the brand."""

    brand: str
    segments: frozenset[str] | None


class Wanted(msgspec.Struct, frozen=True):
    """What one subscriber wants to be told."""

    audience: Audience
    counters: bool = False
    jobs: bool = False
    facts: bool = False

    @property
    def transitions(self) -> bool:
        """Whether any transition is wanted."""
        return self.audience.segments is None or bool(self.audience.segments)


class Counters(msgspec.Struct, frozen=True):
    """Figures of one brand; `segments` holds how many entered and left since `since`.

    `events` and `events_per_s` are of all brands: the log's own count. `players` None: not known.
    """

    brand: str
    at: datetime
    events: int
    events_per_s: float
    players: int | None
    since: datetime
    segments: dict[str, tuple[int, int]]


JobState = Literal["running", "done", "failed", "lost"]


class Job(msgspec.Struct, frozen=True):
    """How far long work has come; `total` None: not known. `lost`: it has not been heard of."""

    id: str
    kind: str
    what: str
    state: JobState
    done: int
    total: int | None
    unit: str
    started_at: datetime
    changed_at: datetime
    brand: str | None = None
    message: str | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.state in ("done", "failed")
