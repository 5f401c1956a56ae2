"""The guard before every route: who may ask, how much is read, and what every answer carries."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crm.domain.errors import CrmError, SlowBody, TooLarge
from crm.domain.event_batch import MAX_BYTES
from deployments.api.problems import problem

log = structlog.get_logger(__name__)
OPEN = frozenset({"/healthz", "/readyz", "/docs", "/openapi.json"})
OPEN_BELOW = ("/docs/assets/",)
BODY_S = 10.0  # how long a body may pause
REREAD_S = 5.0  # how soon a key that was made or removed is noticed
SAFE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
_TOO_LARGE = f"the body exceeds {MAX_BYTES // 1_000_000} MB"
_FRAMES = 6


class Keys(Protocol):
    """Where the digests of the API keys are."""

    async def digests(self) -> dict[bytes, str]:
        """Return key names by SHA-256 digest; raises DatabaseAway."""


class HasKeys(Protocol):
    """Any services that know the API keys."""

    @property
    def keys(self) -> KnownKeys:
        """The keys."""


class KnownKeys:
    """The digests of all keys, read again when they are old or a key is not among them."""

    def __init__(self, keys: Keys, monotonic: Callable[[], float]) -> None:
        self._keys = keys
        self._monotonic = monotonic
        self._digests: dict[bytes, str] = {}
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def knows(self, key: str) -> bool:
        """Whether `key` is known. Comparing digests leaves no timing to learn from."""
        return await self.name(key) is not None

    async def name(self, key: str) -> str | None:
        """Return what `key` is called, None if it is not known."""
        digest = sha256(key.encode()).digest()
        age = self._monotonic() - self._read_at
        if age > REREAD_S or (digest not in self._digests and age > REREAD_S / 5):
            if self._reading is None or self._reading.done():  # else one reading serves all
                self._reading = asyncio.create_task(self._read())
            await asyncio.shield(self._reading)
        return self._digests.get(digest)

    async def _read(self) -> None:
        self._digests = await self._keys.digests()
        self._read_at = self._monotonic()


class Guard:
    """ASGI middleware: what is not listed as open needs a key; nothing is reached without one.

    Whatever a route raises unexpectedly ends here, as one log line and a problem without details.
    """

    def __init__(self, app: ASGIApp, services: HasKeys) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer it with a problem."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # sockets are the live deployment's
            await send({"type": "websocket.close", "code": 1008})
            return
        asked = _as_sent(scope)
        answer = _Answer(send)
        try:
            app = await self._refusal(asked) or self._app
            await app(asked, _limited(receive), answer.send)
        except Exception as error:  # noqa: BLE001 - the last resort of every route
            _record(error, asked)
            if answer.started:  # too late for a problem: the connection must break off
                raise RuntimeError("an answer broke off; its story is in the log") from None
            told = problem("internal", "something went wrong on our side; it is in our log")
            await told(asked, receive, answer.send)

    async def _refusal(self, scope: Scope) -> ASGIApp | None:
        if not _is_open(scope["path"]):
            key = bearer(scope)
            if key is None:
                return problem("unauthorized", "send an API key: Authorization: Bearer KEY")
            try:
                known = await self._services.keys.knows(key)
            except CrmError as error:
                return problem(error.code, error.message)
            if not known:
                return problem("unauthorized", "this API key is not known")
        stated = _header(scope, b"content-length")
        if stated.isdigit() and int(stated[:20]) > MAX_BYTES:
            return problem(TooLarge.code, _TOO_LARGE)
        return None


class _Answer:
    """The way back: safe headers on every answer."""

    def __init__(self, send: Send) -> None:
        self.started = False
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            for name, value in SAFE.items():
                headers.setdefault(name, value)
        await self._send(message)


def _as_sent(scope: Scope) -> Scope:
    """Return the scope with its path still encoded, so that an id may hold a slash, as %2F.

    HEAD is answered as GET is: the server, which knows what was asked, leaves the body out.
    """
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    raw = scope.get("raw_path")
    path = raw.decode(errors="replace") if raw else scope["path"]
    return {**scope, "method": method, "path": path}


def _limited(receive: Receive) -> Receive:
    """Return `receive` that takes no more of a body than may be sent, and no longer.

    Raises TooLarge or SlowBody: a body that never ends would hold one of the replica's places.
    """
    size, more = 0, True

    async def receiving() -> Message:
        nonlocal size, more
        try:
            async with asyncio.timeout(BODY_S if more else None):
                message = await receive()
        except TimeoutError:
            raise SlowBody(f"nothing of the body came for {BODY_S:.0f} s") from None
        more = message.get("more_body", False)
        size += len(message.get("body", b""))
        if size > MAX_BYTES:
            raise TooLarge(_TOO_LARGE)
        return message

    return receiving


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith(OPEN_BELOW)


def bearer(scope: Scope) -> str | None:
    """Return the API key that a request carries, if it carries one."""
    value = _header(scope, b"authorization")
    return value[7:].strip().decode("latin-1") if value[:7].lower() == b"bearer " else None


def _header(scope: Scope, name: bytes) -> bytes:
    return next((bytes(value) for found, value in scope["headers"] if found == name), b"")


def _record(error: Exception, scope: Scope) -> None:
    """Log what went wrong and where: neither the error's text nor the path, which hold values."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    log.error(
        "request_failed",
        error=type(error).__name__,
        where=" < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames)),
        route=getattr(scope.get("route"), "path", None),
        method=scope["method"],
    )
