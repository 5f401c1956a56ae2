"""POST /v1/segments/preview."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from crm.domain.rule_text import parse, to_text
from crm.domain.rules import from_tree
from crm.services.player_features import rfc3339
from deployments.api.services import Services


class Preview(BaseModel):
    """A rule as text, or as a tree of the same meaning."""

    model_config = ConfigDict(extra="forbid")
    brand: str | None = None
    rule: Annotated[
        str | dict[str, Any],
        Field(examples=["bet_count_lifetime >= 10 and days_since_last_bet > 7"]),
    ]


def router(services: Services) -> APIRouter:
    """Return the routes of segments."""
    routes = APIRouter(tags=["segments"])

    @routes.post("/v1/segments/preview", response_model=None)
    async def preview(asked: Preview) -> Response:
        """Count the players that match a rule: exact, live, each shard once, at one moment."""
        brand = services.brand(asked.brand)
        rule = parse(asked.rule) if isinstance(asked.rule, str) else from_tree(asked.rule)
        count = await services.shards.count(brand.id, to_text(rule))
        body = {
            "count": count.count,
            "as_of": rfc3339(count.as_of),
            "breakdown": {"players": count.total},
            "sample": count.sample,
        }
        return Response(msgspec.json.encode(body), media_type="application/json")

    return routes
