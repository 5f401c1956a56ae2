"""GET /healthz and /readyz."""

from __future__ import annotations

import asyncio

import msgspec
from fastapi import APIRouter, Response

from deployments.api.services import Check, Services

CHECK_TIMEOUT_S = 2.0


def router(services: Services) -> APIRouter:
    """Return the routes of health; they are open, and say nothing but states."""
    routes = APIRouter(tags=["health"])

    @routes.get("/healthz", response_model=None)
    async def healthz() -> Response:
        """Say that this process answers."""
        return Response(b'{"status":"ok"}', media_type="application/json")

    @routes.get("/readyz", response_model=None)
    async def readyz() -> Response:
        """Say each part's state; 503 while a part that is needed is not ok."""
        names = list(services.checks)
        states = await asyncio.gather(*[_state(services.checks[name]) for name in names])
        parts = dict(zip(names, states, strict=True))
        ready = all(parts[name] == "ok" for name in services.needed)
        body = msgspec.json.encode({"status": "ready" if ready else "not ready", "parts": parts})
        return Response(body, 200 if ready else 503, media_type="application/json")

    return routes


async def _state(check: Check) -> str:
    try:
        return await asyncio.wait_for(check(), CHECK_TIMEOUT_S)
    except Exception:  # noqa: BLE001 - whatever is wrong with a part, the answer is its state
        return "away"
