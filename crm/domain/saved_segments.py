"""Saved segments: a rule, or a list of players, under a name of its own; and their facts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from crm.domain.errors import InvalidSegment, SegmentArchived, SegmentChanged
from crm.domain.personal import unstorable

MAX_NAME_CHARS = 100
MAX_LIST_PLAYERS = 1_000_000
MAX_ERRORS = 100  # of an import: told one by one; the rest is counted

Kind = Literal["rule", "list"]
Mode = Literal["replace", "add"]
# what would end the name in `segment "name"`, or a line
_UNQUOTABLE = re.compile(r'["\x00-\x1f\x7f-\x9f\u2028\u2029]')


class SegmentSize(msgspec.Struct, frozen=True):
    """How many players were in `version` of a segment at one moment."""

    at: datetime
    version: int
    players: int


class SavedSegment(msgspec.Struct, frozen=True):
    """A segment as it stands; `rule` is text in canonical form, None for a list.

    `size` is the newest that was measured, None before the first.
    """

    id: str
    brand: str
    name: str
    kind: Kind
    version: int
    rule: str | None
    created_at: datetime
    changed_at: datetime
    archived_at: datetime | None = None
    size: SegmentSize | None = None


class SegmentVersion(msgspec.Struct, frozen=True):
    """What a segment was from `made_at` on, until its next version."""

    version: int
    name: str
    rule: str | None
    made_at: datetime


class LiveSegment(NamedTuple):
    """A segment that is not archived, as those load it who say who is in; no rule: a list."""

    id: str
    brand: str
    name: str
    version: int
    rule: str | None


Check: TypeAlias = Callable[[Sequence[LiveSegment]], None]
"""Raises unless a change may stand, given its brand's live segments as they are with it.

Changes come to their checks one after the other, whoever makes them: each sees all before it.
"""


class BadLine(msgspec.Struct, frozen=True):
    """A line (from 1) of an imported list that names no player; the message holds no value."""

    line: int
    message: str


class ListReport(msgspec.Struct, frozen=True):
    """What became of an imported list: `read` lines = accepted + duplicates + rejected.

    `unknown` of the accepted players have sent no event yet; they are kept all the same. `added`
    and `removed` is what changed; `errors` are the first MAX_ERRORS of those rejected.
    """

    read: int
    accepted: int
    duplicates: int
    rejected: int
    errors: list[BadLine]
    unknown: int
    added: int = 0
    removed: int = 0


class Written(msgspec.Struct, frozen=True):
    """The segment after a change to it, and of an imported list what became of its lines."""

    segment: SavedSegment
    report: ListReport | None = None


class Use(msgspec.Struct, frozen=True):
    """What relies on a segment: another segment, by its rule."""

    kind: Literal["segment", "campaign"]
    id: str
    name: str
    version: int


Shown: TypeAlias = int | float | str | None


class Why(msgspec.Struct, frozen=True):
    """One node of a rule, and whether it holds for a player; `and`, `or` and `not` have `terms`.

    So has another `segment` that the rule names: its own rule is the one term. It and a `list` say
    which segment that is, and its `name`.

    A condition has what it is of: `value` and `threshold` as they are written for people (money in
    major units, missing as null), `raw` as it is kept, `unit` (of money, the currency's code). Of
    `did` and `did_not` the value is how often; one that leaves newcomers out has `known_since`.
    """

    kind: Literal["and", "or", "not", "condition", "list", "segment"]
    holds: bool
    terms: list[Why] | UnsetType = UNSET
    text: str | UnsetType = UNSET
    feature: str | UnsetType = UNSET
    op: str | UnsetType = UNSET
    threshold: Shown | list[Shown] | UnsetType = UNSET
    value: Shown | UnsetType = UNSET
    raw: int | UnsetType | None = UNSET
    unit: str | UnsetType = UNSET
    known_since: str | UnsetType | None = UNSET
    segment: str | UnsetType = UNSET
    name: str | UnsetType = UNSET


class Once(NamedTuple):
    """A change that may be asked for again: whose (a digest), under which key, and what (a digest).

    The answer of the first time is the answer of every time.
    """

    caller: bytes
    key: str
    request: bytes


def check_name(name: str) -> str:
    """Return a segment's name; raises InvalidSegment unless a rule can name it in double quotes."""
    if not name or name != name.strip() or len(name) > MAX_NAME_CHARS:
        raise InvalidSegment(f"name: 1 to {MAX_NAME_CHARS} characters, without blanks at its ends")
    if unstorable(name) or _UNQUOTABLE.search(name):
        raise InvalidSegment("name: no double quotes, and no control characters")
    return name


def to_be_changed(segment: SavedSegment, read: int | None) -> SavedSegment:
    """Return a segment of which the caller has read version `read` (None: whichever it is).

    Raises SegmentArchived, SegmentChanged.
    """
    if segment.archived_at is not None:
        raise SegmentArchived("the segment is archived; make a new one")
    if read is not None and read != segment.version:
        raise SegmentChanged(
            f"the segment is at version {segment.version} by now, not {read}; read it again"
        )
    return segment


def edited(
    before: SavedSegment,
    at: datetime,
    *,
    name: str | None = None,
    rule: str | None = None,
    size: int | None = None,
) -> SavedSegment:
    """Return the next version, or `before` where nothing differs; `size` is of the new rule.

    Raises InvalidSegment for a rule of a list.
    """
    if rule is not None and before.kind == "list":
        raise InvalidSegment("rule: a list has players, not a rule")
    new_name, new_rule = name or before.name, rule or before.rule
    if (new_name, new_rule) == (before.name, before.rule):
        return before
    version = before.version + 1
    measured = before.size if size is None else SegmentSize(at, version, size)
    return replace(
        before, name=new_name, rule=new_rule, version=version, changed_at=at, size=measured
    )


def name_taken() -> str:
    """What is said of a name that another segment has."""
    return "another segment of this brand has this name; archive it, or choose another name"


def too_long() -> str:
    """What is said of a list that would grow too long."""
    return f"a list holds at most {MAX_LIST_PLAYERS:,} players"
