"""POST /v1/events."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from crm.domain.brands import MAX_DIGITS
from crm.domain.event_batch import MAX_BYTES, MAX_EVENTS
from crm.domain.events import EVENT_TYPES, IncomingEvent
from crm.domain.rates import FINEST
from crm.services.ingest import IngestReport
from deployments.api.answers import REF, answers, json
from deployments.api.services import Services


def event_schema() -> dict[str, Any]:
    """Return the JSON schema of one event, as clients may write it."""
    _, components = msgspec.json.schema_components([IncomingEvent], ref_template=REF)
    schema: dict[str, Any] = components[IncomingEvent.__name__]
    schema["description"] = (
        f"Types: {', '.join(sorted(EVENT_TYPES))}, or your own: custom.NAME. "
        "`amount` is a decimal string in major units of `currency`, with at most its decimals and "
        f"{MAX_DIGITS} digits; a currency that is not stated is the brand's own. Another one, with "
        f"at most {FINEST.decimals} decimals, is converted with the rate that held on the brand's "
        "local day of `occurred_at`; where none did, the event is refused: `unknown_currency`."
    )
    schema["properties"]["amount"] = {
        "anyOf": [{"type": "string", "format": "decimal"}, {"type": "number"}, {"type": "null"}],
        "default": None,
    }
    schema["required"].remove("brand")  # ?brand= stands in
    return schema


_BODY = {
    "type": "object",
    "required": ["events"],
    "properties": {
        "events": {
            "type": "array",
            "maxItems": MAX_EVENTS,
            "items": {"$ref": REF.format(name=IncomingEvent.__name__)},
        }
    },
}


def router(services: Services) -> APIRouter:
    """Return the routes of events."""
    routes = APIRouter(tags=["events"])

    @routes.post(
        "/v1/events",
        summary="Take in events",
        description=f"At most {MAX_EVENTS} events or {MAX_BYTES // 1_000_000} MB. Each event is "
        "judged alone; the answer comes when the good ones are durable. Sending again is harmless. "
        "`brand` is for events that name none.",
        response_model=None,
        responses=answers(
            IngestReport,
            "invalid_json",
            "too_large",
            "too_many_events",
            "warming",
            "database_unavailable",
        ),
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": {"schema": _BODY}}},
        },
    )
    async def take_events(request: Request, brand: str | None = None) -> Response:
        report = await services.ingest.take(await request.body(), brand)
        return json(report)

    return routes
