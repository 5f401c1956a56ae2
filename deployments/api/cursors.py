"""Cursors: where a list goes on, as opaque text that the list itself has given."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import TypeVar

import msgspec

from crm.domain.errors import InvalidCursor

Place = TypeVar("Place")
Item = TypeVar("Item")
MAX_CHARS = 1_000


def write(place: object) -> str:
    """Return a place (anything that JSON can say) as a cursor."""
    return urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def read(cursor: str | None, kind: type[Place]) -> Place | None:
    """Return the place of a cursor, None for none; raises InvalidCursor."""
    if cursor is None:
        return None
    try:
        padded = cursor[:MAX_CHARS] + "=" * (-len(cursor) % 4)
        return msgspec.json.decode(urlsafe_b64decode(padded), type=kind)
    except (ValueError, msgspec.MsgspecError):
        raise InvalidCursor("this cursor is not of this list; begin without one") from None


def page(
    found: list[Item], limit: int, place: Callable[[Item], object]
) -> tuple[list[Item], str | None]:
    """Return the first `limit` of what was found, and a cursor behind the last if there are more.

    So one more than `limit` must have been asked for; `place` says where an item stands.
    """
    items = found[:limit]
    return items, write(place(items[-1])) if len(found) > limit else None
