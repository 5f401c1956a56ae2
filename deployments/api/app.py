"""The FastAPI application: routes, errors and guard, over given services."""

from __future__ import annotations

from typing import Any, cast

from fastapi import FastAPI

from deployments.api import (
    analytics,
    clusters,
    docs,
    events,
    health,
    models,
    players,
    problems,
    replays,
    retrains,
    saved_segments,
    scores,
    segment_members,
    segments,
)
from deployments.api.guard import Guard
from deployments.api.openapi import describe
from deployments.api.services import Services


class Application(FastAPI):
    """FastAPI with this project's own OpenAPI document."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, made once."""
        if self.openapi_schema is None:
            self.openapi_schema = describe(self)
        return self.openapi_schema


def create_app(services: Services) -> FastAPI:
    """Return the application; it holds no state beyond `services`."""
    app = Application(
        title="CRM Inteligente",
        version="0.1.0",
        description="Events in; exact live features, segments and player clusters out.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    problems.install(app)
    nouns = (
        events, scores, players, segments, replays, saved_segments, segment_members, clusters,
        models, retrains, analytics, health,
    )  # fmt: skip
    for noun in nouns:
        app.include_router(noun.router(services))
    app.include_router(docs.router())
    app.add_middleware(Guard, services=services)
    return app


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document without a service: describing routes asks nothing of them."""
    return create_app(cast("Services", None)).openapi()
