"""The application of the models' deployment: predictions, by models that follow the registry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from crm.domain.brands import Brand
from crm.domain.errors import CrmError
from crm.services.predictions import Predictions
from crm.services.served_models import ServedModels
from deployments.api import predictions, problems
from deployments.api.guard import Guard, KnownKeys

POLL_S = 1.0  # how soon a promotion is noticed
LOAD_S = 30.0  # a replica that has loaded no model by then says so to whoever asks, and goes on

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class SegmentationServices:
    """What the routes work with: made once a replica."""

    brands: Mapping[str, Brand]
    predictions: Predictions
    served: ServedModels
    keys: KnownKeys


def create_app(services: SegmentationServices, poll_s: float = POLL_S) -> ASGIApp:
    """Return the application; it polls the registry while it runs, and begins with its models."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loaded = asyncio.Event()
        polling = asyncio.create_task(_poll(services.served, loaded, poll_s))
        try:
            async with asyncio.timeout(LOAD_S):
                await loaded.wait()
        except TimeoutError:
            log.warning("models_not_loaded", after_s=LOAD_S)
        yield
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)

    http = FastAPI(
        docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False, lifespan=lifespan
    )
    problems.install(http)
    http.include_router(predictions.router(services))
    http.add_middleware(Guard, services=services)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # Serve's prefix is in our paths
        await http({**scope, "root_path": ""} if scope["type"] == "http" else scope, receive, send)

    return app


async def _poll(served: ServedModels, loaded: asyncio.Event, every_s: float) -> None:
    """Follow the registry for ever; what fails is tried again."""
    while True:
        try:
            await served.refresh()
            loaded.set()
        except CrmError as error:
            log.warning("models_unread", error=error.code)
        except Exception:
            log.exception("models_unread")
        await asyncio.sleep(every_s)
