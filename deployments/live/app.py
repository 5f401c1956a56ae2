"""The ASGI application of the live deployment: the socket, and the tickets that open it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from crm.domain.errors import CrmError
from deployments.api import problems
from deployments.api.guard import Guard
from deployments.live import tickets
from deployments.live.services import LiveServices
from deployments.live.socket import LATER, REVOKED, TOO_SLOW, Gone, Refused, Socket, refusal

log = structlog.get_logger(__name__)

TEND_S = 1.0
KEYS_S = 5.0  # how soon a socket whose key was removed is closed
_AGAIN_S = 0.5
Work = Callable[[], Awaitable[None]]


class Sockets:
    """All sockets of a replica."""

    def __init__(self, services: LiveServices) -> None:
        self._services = services
        self._reads = asyncio.Semaphore(services.limits.reads)
        self._pending = 0
        self._open: set[Socket] = set()
        self._keys_read_at = float("-inf")

    async def serve(self, receive: Receive, send: Send) -> None:
        """Serve one socket to its end."""
        socket = Socket(self._services, self._reads, receive, send)
        try:
            await self._admit(socket)
            self._open.add(socket)
            await socket.run()
        except Gone:
            pass
        except Exception as error:  # noqa: BLE001 - the last resort of every socket
            await socket.close(refusal(error))
        finally:
            self._open.discard(socket)

    async def tend(self) -> None:
        """Remind quiet sockets to send a heartbeat, end those that do not read or may no longer."""
        limits, now = self._services.limits, asyncio.get_running_loop().time()
        for socket in list(self._open):
            if socket.sending_since is not None:
                if now - socket.sending_since > limits.stall_s:
                    socket.stop(Refused("too_slow", "you have stopped reading", TOO_SLOW))
            elif socket.box is not None and now - socket.last_sent >= limits.heartbeat_s:
                socket.box.remind()
        if self._open and now - self._keys_read_at > KEYS_S:
            self._keys_read_at = now
            known = await self._services.digests.digests()
            for socket in list(self._open):
                if socket.key not in known:
                    socket.stop(Refused("unauthorized", "this API key was removed", REVOKED))

    async def _admit(self, socket: Socket) -> None:
        limits = self._services.limits
        if self._pending >= limits.pending or len(self._open) >= limits.sockets:
            await socket.refuse()
        self._pending += 1
        try:
            await socket.open()
        finally:
            self._pending -= 1
        if len(self._open) >= limits.sockets:
            raise Refused("too_many_sockets", "all places are taken; try again", LATER)


def create_app(services: LiveServices, works: Sequence[Work] = ()) -> ASGIApp:
    """Return the application; while it runs, each of `works` is done again and again."""
    sockets = Sockets(services)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tending = [asyncio.create_task(_keep(work)) for work in (*works, _every(sockets.tend))]
        yield
        for task in tending:
            task.cancel()
        await asyncio.gather(*tending, return_exceptions=True)

    http = FastAPI(
        docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False, lifespan=lifespan
    )
    problems.install(http)
    http.include_router(tickets.router(services))
    http.add_middleware(Guard, services=services)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and scope["path"] == tickets.PATH:
            await sockets.serve(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": LATER})  # before it is open: HTTP 403
        else:
            await http({**scope, "root_path": ""}, receive, send)  # Serve's prefix is in our paths

    return app


def every_second(work: Work) -> Work:
    """Return work that is done once a second."""
    return _every(work)


def _every(work: Work) -> Work:
    async def paced() -> None:
        await asyncio.sleep(TEND_S)
        await work()

    return paced


async def _keep(work: Work) -> None:
    """Do work for ever; what fails is tried again."""
    while True:
        try:
            await work()
        except CrmError as error:
            log.warning("live_work_failed", error=error.code)
        except Exception as error:
            log.exception("live_work_failed", error=type(error).__name__)
        else:
            continue
        await asyncio.sleep(_AGAIN_S)
