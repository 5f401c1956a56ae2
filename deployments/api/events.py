"""POST /v1/events."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from crm.domain.errors import TooLarge
from crm.domain.event_batch import MAX_BYTES, MAX_EVENTS
from crm.domain.events import EVENT_TYPES, IncomingEvent
from crm.services.ingest import IngestReport
from deployments.api.services import Services


def _schema(struct: type, **changes: Any) -> dict[str, Any]:
    (_,), components = msgspec.json.schema_components([struct], ref_template="#/components/{name}")
    return {**components[struct.__name__], **changes}


_EVENT = _schema(
    IncomingEvent,
    description=f"Types: {', '.join(sorted(EVENT_TYPES))}, or your own: custom.NAME.",
)
_BODY = {
    "type": "object",
    "required": ["events"],
    "properties": {"events": {"type": "array", "maxItems": MAX_EVENTS, "items": _EVENT}},
}


def router(services: Services) -> APIRouter:
    """Return the routes of events."""
    routes = APIRouter(tags=["events"])

    @routes.post(
        "/v1/events",
        summary="Take in events",
        description=f"At most {MAX_EVENTS} events or {MAX_BYTES // 1_000_000} MB. Each event is "
        "judged alone; the answer comes when the good ones are durable. Sending again is harmless.",
        response_model=None,
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": {"schema": _BODY}}},
        },
    )
    async def take_events(request: Request, brand: str | None = None) -> Response:
        report: IngestReport = await services.ingest.take(await _body(request), brand)
        return Response(msgspec.json.encode(report), media_type="application/json")

    return routes


async def _body(request: Request) -> bytes:
    """Read the body, and no more of it than may be taken; raises TooLarge."""
    if int(request.headers.get("content-length", 0)) > MAX_BYTES:
        raise TooLarge(f"the body exceeds {MAX_BYTES // 1_000_000} MB")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise TooLarge(f"the body exceeds {MAX_BYTES // 1_000_000} MB")
    return bytes(body)
