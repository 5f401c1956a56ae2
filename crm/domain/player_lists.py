"""Lists of players as files: what is read of CSV and JSON, and cells that no spreadsheet runs.

Messages never repeat a line: it may hold something personal.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from crm.domain.errors import EventRefused, InvalidJson, InvalidList
from crm.domain.events import check_id
from crm.domain.saved_segments import MAX_ERRORS, BadLine

COLUMN = "player_id"
_FORMULA = tuple("=+-@\t\r")
_QUOTED = (*_FORMULA, "'")  # what a quote stands before, so that taking it away is never wrong
_DELIMITERS = (",", ";", "\t")
_LINE_END = re.compile(r"[\r\n]")
_LONGEST_HEADER = 10_000
_KEYS = ("player_ids", "items")
_EMPTY = "the list is empty"


class PlayerList(NamedTuple):
    """The players of a list, each once, in its order; and which lines name none."""

    players: list[str]
    read: int
    duplicates: int
    rejected: int
    errors: list[BadLine]


def cell(text: str) -> str:
    """Return `text` as a CSV cell that no spreadsheet takes for a formula; `uncell` gives it back.

    https://owasp.org/www-community/attacks/CSV_Injection
    """
    return f"'{text}" if text.startswith(_QUOTED) else text


def uncell(text: str) -> str:
    """Return what a cell stands for: without the quote that `cell` has put before it."""
    return text[1:] if text[:1] == "'" and text[1:].startswith(_QUOTED) else text


def from_csv(body: bytes) -> PlayerList:
    """Read a CSV file: its column `player_id`, or its first one if no column has this name.

    Raises InvalidList if it is not UTF-8, or none of its lines names a player.
    """
    return _collected(_cells(_decoded(body)))


def from_json(body: bytes) -> PlayerList:
    """Read `["p1", ...]`, or an object whose `player_ids` or `items` are such; raises InvalidList.

    An item may be an object with a `player_id`, as the members of a segment are answered. Raises
    InvalidJson.
    """
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidJson("the body is not valid JSON") from None
    if isinstance(found, dict):
        found = next((found[key] for key in _KEYS if key in found), None)
    if not isinstance(found, list):
        raise InvalidList(f"send an array of ids, or an object with {' or '.join(_KEYS)}")
    return of_items(found)


def of_items(items: Iterable[Any]) -> PlayerList:
    """Read decoded items, texts or objects with a `player_id`; a line is an item's place from 1."""
    return _collected(
        (place, item.get(COLUMN) if isinstance(item, dict) else item)
        for place, item in enumerate(items, 1)
    )


def _collected(lines: Iterable[tuple[int, Any]]) -> PlayerList:
    players: dict[str, None] = {}
    errors: list[BadLine] = []
    read = rejected = 0
    for line, value in lines:
        read += 1
        try:
            check_id(value, COLUMN)
        except EventRefused as refused:
            rejected += 1
            if len(errors) < MAX_ERRORS:
                errors.append(BadLine(line, refused.message))
        else:
            players[value] = None
    if not players:
        lines = tuple((error.line, error.message) for error in errors)
        raise InvalidList("no line of the list names a player" if lines else _EMPTY, lines)
    return PlayerList([*players], read, read - rejected - len(players), rejected, errors)


def _decoded(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise InvalidList(f"the list is not UTF-8: see line {line}") from None


def _cells(text: str) -> Iterator[tuple[int, str | None]]:
    """Yield the line where a row begins, and the player's cell; None if the row cannot be read."""
    delimiter, column, has_header = _header(text)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    while True:
        line = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error:
            yield line, None
            continue
        if (line == 1 and has_header) or not any(row):
            continue
        yield line, uncell(row[column]) if column < len(row) else ""


def _header(text: str) -> tuple[str, int, bool]:
    """Return the delimiter, the place of the players' column, and whether a line names it."""
    first = _LINE_END.split(text[:_LONGEST_HEADER], maxsplit=1)[0]
    for delimiter in _DELIMITERS:
        names = next(csv.reader([first], delimiter=delimiter), []) if "\0" not in first else []
        for place, name in enumerate(names):
            if name.strip().lower() == COLUMN:
                return delimiter, place, True
    return ",", 0, False
