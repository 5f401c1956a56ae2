"""GET /healthz and /readyz."""

from __future__ import annotations

import asyncio

import msgspec
from fastapi import APIRouter, Response

from deployments.api.answers import answers, json
from deployments.api.services import Check, Services

CHECK_TIMEOUT_S = 2.0


class Health(msgspec.Struct):
    """That this process answers."""

    status: str


class Readiness(msgspec.Struct):
    """Each part's state: ok, warming or away; `status` is ready or not ready."""

    status: str
    parts: dict[str, str]


def router(services: Services) -> APIRouter:
    """Return the routes of health; they are open, and say nothing but states."""
    routes = APIRouter(tags=["health"])

    @routes.get("/healthz", summary="Is it alive?", response_model=None, responses=answers(Health))
    async def healthz() -> Response:
        """Say that this process answers."""
        return json(Health("ok"))

    @routes.get(
        "/readyz",
        summary="Is it ready?",
        response_model=None,
        responses={
            **answers(Readiness),
            503: {**answers(Readiness)[200], "description": "A part that is needed is not ok."},
        },
    )
    async def readyz() -> Response:
        """Say each part's state; 503 while a part that is needed is not ok."""
        names = list(services.checks)
        states = await asyncio.gather(*[_state(services.checks[name]) for name in names])
        parts = dict(zip(names, states, strict=True))
        ready = all(parts[name] == "ok" for name in services.needed)
        return json(Readiness("ready" if ready else "not ready", parts), 200 if ready else 503)

    return routes


async def _state(check: Check) -> str:
    try:
        return await asyncio.wait_for(check(), CHECK_TIMEOUT_S)
    except Exception:  # noqa: BLE001 - whatever is wrong with a part, the answer is its state
        return "away"
