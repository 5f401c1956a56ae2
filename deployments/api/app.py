"""The FastAPI application: routes, errors and guard, over given services."""

from __future__ import annotations

from fastapi import FastAPI

from deployments.api import clusters, events, health, players, problems, segments
from deployments.api.guard import Guard
from deployments.api.services import Services


def create_app(services: Services) -> FastAPI:
    """Return the application; it holds no state beyond `services`."""
    app = FastAPI(
        title="CRM Inteligente",
        version="0.1.0",
        description="Events in; exact live features, segments and player clusters out.",
        redoc_url=None,
    )
    problems.install(app)
    for noun in (events, players, segments, clusters, health):
        app.include_router(noun.router(services))
    app.add_middleware(Guard, keys=services.keys)
    return app
