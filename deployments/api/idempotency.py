"""Idempotency-Key: a change that is asked for twice under one key happens once."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Annotated

from fastapi import Depends, Header, Request

from crm.domain.errors import InvalidKey
from crm.domain.saved_segments import Once

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


async def once(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            description="Of your own making, a new one for each change. Sent again with the same "
            "request within a day, it brings the first answer, and nothing happens twice."
        ),
    ] = None,
) -> Once | None:
    """Return what a request with a key is known by, None without one; raises InvalidKey."""
    if idempotency_key is None:
        return None
    if not _KEY.fullmatch(idempotency_key):
        raise InvalidKey("Idempotency-Key: 1 to 255 printable ASCII characters, no blanks")
    asked = sha256()
    for part in (request.method, request.scope["path"], request.url.query):
        asked.update(part.encode() + b"\0")
    asked.update(await request.body())
    caller = sha256(request.headers.get("authorization", "").encode()).digest()
    return Once(caller, idempotency_key, asked.digest())


OnceOrNot = Annotated[Once | None, Depends(once)]
