"""The terms of a rule that are no comparison of a named feature: windows, did, texts, segments."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal, TypeAlias

import msgspec

MAX_DAYS = 90  # local days that the tables keep, today included
MAX_TEXT_BYTES = 128  # of a text that is compared: as long as a player's id may be
MAX_NAME_CHARS = 200  # of a segment

Newcomers = Literal["included", "excluded"]
TextOperator = Literal["=", "!=", "contains", "starts_with"]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT_BYTES)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME_CHARS)]


class Node(msgspec.Struct, frozen=True, tag_field="kind", forbid_unknown_fields=True):
    """What all nodes share: they never change, and `kind` tells them apart in JSON."""


class LastDays(Node, frozen=True, tag="last_days"):
    """The last `days` local days of the brand, today included."""

    days: Annotated[int, msgspec.Meta(ge=1, le=MAX_DAYS)]


class Dates(Node, frozen=True, tag="dates"):
    """The local days of the brand from `first` to `last`, both included."""

    first: date
    last: date


Over: TypeAlias = LastDays | Dates


class Did(Node, frozen=True, tag="did"):
    """True where the player did `event` (such as bet) at least once."""

    event: str
    over: Over


class DidNot(Node, frozen=True, tag="did_not"):
    """True where the player did not do `event`.

    With newcomers excluded it is false for who is not known since before the days began.
    """

    event: str
    over: Over
    newcomers: Newcomers


class TextCompare(Node, frozen=True, tag="text"):
    """A column of text against one text, case and all; false where it is missing."""

    column: str
    op: TextOperator
    value: Text


class TextIn(Node, frozen=True, tag="text_in"):
    """A column of text that equals one of `values`."""

    column: str
    values: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1)]


class InSegment(Node, frozen=True, tag="segment"):
    """True where the player is in another segment, by its id or its name."""

    segment: Name


class OnList(Node, frozen=True, tag="list"):
    """True where the player is on a list: what a reference to a segment of that kind becomes."""

    list: Name


# what compares no number
Term: TypeAlias = Did | DidNot | TextCompare | TextIn | InSegment | OnList


def over_text(over: Over) -> str:
    """Return a window as a rule writes it."""
    match over:
        case LastDays(days):
            return f"in {days} day{'s' if days != 1 else ''}"
        case Dates(first, last):
            return f"from {first} to {last}"
