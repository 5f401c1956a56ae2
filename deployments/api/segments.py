"""POST /v1/segments/preview."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from crm.domain.rule_text import parse, to_text
from crm.domain.rules import from_tree
from deployments.api.answers import answers, json
from deployments.api.services import Services


class Preview(BaseModel):
    """A rule as text, or as a tree of the same meaning."""

    model_config = ConfigDict(extra="forbid")
    brand: str | None = None
    rule: Annotated[
        str | dict[str, Any],
        Field(examples=["bet_count_lifetime >= 10 and days_since_last_bet > 7"]),
    ]


class SegmentPreview(msgspec.Struct):
    """How many players match at `as_of`, of how many (`breakdown.players`), and some of them."""

    count: int
    as_of: datetime
    breakdown: dict[str, int]
    sample: list[str]


def router(services: Services) -> APIRouter:
    """Return the routes of segments."""
    routes = APIRouter(tags=["segments"])

    @routes.post(
        "/v1/segments/preview",
        summary="Preview a segment",
        response_model=None,
        responses=answers(
            SegmentPreview,
            "invalid_json",
            "unknown_brand",
            "too_large",
            "invalid_rule",
            "invalid_field",
            "warming",
            "database_unavailable",
        ),
    )
    async def preview(asked: Preview) -> Response:
        """Count the players that match a rule: exact, live, each shard once, at one moment."""
        brand = services.brand(asked.brand)
        rule = (
            parse(asked.rule, brand)
            if isinstance(asked.rule, str)
            else from_tree(asked.rule, brand)
        )
        found = await services.shards.count(brand.id, to_text(rule))
        breakdown = {"players": found.total}
        return json(SegmentPreview(found.count, found.as_of, breakdown, found.sample))

    return routes
