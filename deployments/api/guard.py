"""The guard before every route: an API key but for open paths, safe headers on all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Protocol

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crm.domain.errors import CrmError
from deployments.api.problems import problem

log = structlog.get_logger(__name__)
OPEN = frozenset({"/healthz", "/readyz", "/docs", "/openapi.json", "/docs/oauth2-redirect"})
OPEN_BELOW = ("/docs/assets/",)
REREAD_S = 5.0  # how soon a key that was made or removed is noticed
SAFE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class Keys(Protocol):
    """Where the digests of the API keys are."""

    async def digests(self) -> dict[bytes, str]:
        """Return key names by SHA-256 digest; raises DatabaseAway."""


class KnownKeys:
    """The digests of all keys, read again when they are old or a key is not among them."""

    def __init__(self, keys: Keys, monotonic: Callable[[], float]) -> None:
        self._keys = keys
        self._monotonic = monotonic
        self._digests: dict[bytes, str] = {}
        self._read_at = float("-inf")

    async def knows(self, key: str) -> bool:
        """Whether `key` is known. Comparing digests leaves no timing to learn from."""
        digest = sha256(key.encode()).digest()
        age = self._monotonic() - self._read_at
        if age > REREAD_S or (digest not in self._digests and age > REREAD_S / 5):
            self._digests = await self._keys.digests()
            self._read_at = self._monotonic()
        return digest in self._digests


class Guard:
    """ASGI middleware: what is not listed as open needs a key; nothing is reached without one."""

    def __init__(self, app: ASGIApp, keys: KnownKeys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer 401."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no WebSocket is served here yet
            await send({"type": "websocket.close", "code": 1008})
            return
        sending = _with_safe_headers(send)
        refusal = None if _is_open(scope["path"]) else await self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, sending)
            return
        await self._app(scope, receive, sending)

    async def _refusal(self, scope: Scope) -> ASGIApp | None:
        key = _bearer(scope)
        if key is None:
            return problem("unauthorized", "send an API key: Authorization: Bearer KEY")
        try:
            known = await self._keys.knows(key)
        except CrmError as error:
            return problem(error.code, error.message)
        return None if known else problem("unauthorized", "this API key is not known")


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith(OPEN_BELOW)


def _bearer(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return str(value[7:].strip().decode("latin-1"))
    return None


def _with_safe_headers(send: Send) -> Callable[[Message], Awaitable[None]]:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SAFE.items():
                headers.setdefault(name, value)
        await send(message)

    return sending
