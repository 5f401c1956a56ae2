"""Lists of players as a request brings them: JSON, CSV, or a file in a form."""

from __future__ import annotations

import asyncio
from email.message import EmailMessage

from fastapi import Request

from crm.domain.errors import InvalidList, UnknownFormat
from crm.domain.player_lists import PlayerList, from_csv, from_json

_CSV = ("text/csv", "text/plain", "application/csv", "application/vnd.ms-excel")
_ANY_FILE = "application/octet-stream"
BODY = {
    "required": True,
    "content": {
        "text/csv": {"schema": {"type": "string"}, "example": "player_id\np1\np2\n"},
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {"player_ids": {"type": "array", "items": {"type": "string"}}},
            }
        },
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"file": {"type": "string", "format": "binary"}},
            }
        },
    },
}


async def player_list(request: Request) -> PlayerList:
    """Read the list in a body; raises InvalidList, InvalidJson, UnknownFormat, TooLarge."""
    body = await request.body()
    kind, options = _media_type(request.headers.get("content-type", ""))
    if kind == "multipart/form-data":
        kind, body = _file_of(body, options.get("boundary", ""))
    if kind == "application/json" or kind.endswith("+json"):
        return await asyncio.to_thread(from_json, body)  # seconds of a core: others are answered
    if kind in _CSV:
        return await asyncio.to_thread(from_csv, body)
    raise UnknownFormat("send the list as text/csv, application/json, or a file in a form")


def _media_type(header: str) -> tuple[str, dict[str, str]]:
    """Return a content type and its options."""
    if not header:  # which an e-mail would call text/plain
        return "", {}
    message = EmailMessage()
    message["content-type"] = "".join(char for char in header if char.isprintable())
    return message.get_content_type(), dict(message["content-type"].params)


def _file_of(body: bytes, boundary: str) -> tuple[str, bytes]:
    """Return the media type and the bytes of the first file in a form; raises InvalidList."""
    if not boundary:
        raise InvalidList("the form states no boundary")
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary.encode())[1:]:
        head, found, content = part.partition(b"\r\n\r\n")
        headers = dict(_header(line) for line in head.decode(errors="replace").split("\r\n"))
        name = headers.get("content-disposition", "")
        if found and "filename" in name:
            kind, _ = _media_type(headers.get("content-type", _ANY_FILE))
            if kind == _ANY_FILE:  # the client does not know: the name says it
                kind = "application/json" if '.json"' in name.lower() else "text/csv"
            return kind, content
    raise InvalidList("the form holds no file")


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip().lower(), value.strip()
