"""POST /v1/segments/preview, and the schema of a rule's tree."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from crm.domain.brands import Brand
from crm.domain.rule_meaning import describe
from crm.domain.rule_schema import tree_schema
from crm.domain.segments import Rule, from_tree, parse, to_text, top_terms
from crm.services.segment_rules import names_segments
from deployments.api.answers import answers, json
from deployments.api.services import Services

# what somebody types comes again: an owner's numbers move on while the rule stays
_parsed = lru_cache(maxsize=256)(parse)
_meaning = lru_cache(maxsize=256)(describe)


class Preview(BaseModel):
    """A rule as text, or as a tree of the same meaning."""

    model_config = ConfigDict(extra="forbid")
    brand: str | None = None
    rule: Annotated[
        str | dict[str, Any],
        Field(examples=["bet_count_lifetime >= 10 and days_since_last_bet > 7"]),
    ]


class PreviewTerm(msgspec.Struct):
    """One term of the rule, alone: how many match it, and how many more would match without it."""

    rule: str
    matches: int
    removes: int


class PreviewCluster(msgspec.Struct):
    """How many of those who match are in a player cluster; null: in none that is known."""

    cluster: int | None
    matches: int


class PreviewBreakdown(msgspec.Struct):
    """All players, and what each term does: those that `and` joins, or else the rule itself.

    `clusters` says where those are who match: by id, empty as long as no model serves.
    """

    players: int
    terms: list[PreviewTerm]
    clusters: list[PreviewCluster]


class SegmentPreview(msgspec.Struct):
    """How many players match at `as_of`, how that comes about, and up to ten of them.

    `meaning` says in plain words who they are: "players who ...".
    """

    count: int
    as_of: datetime
    meaning: str
    breakdown: PreviewBreakdown
    sample: list[str]


class RuleSchema(msgspec.Struct):
    """The JSON schema of a rule's tree."""

    schema: dict[str, Any]


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
        """Count the players that match a rule: exact, live, each shard once, at one moment.

        Of each term that `and` joins it says how many match it alone, and how many more would match
        the rule without it.
        """
        brand = services.brand(asked.brand)
        if names_segments(asked.rule):
            named = await services.segments.named(brand, asked.rule)
            rule, meaning = named.whole, describe(named.rule, brand, named.segments)
        else:
            rule = _rule(asked.rule, brand)
            meaning = _meaning(rule, brand)
        found = await services.shards.count(brand.id, rule)
        terms = [
            PreviewTerm(to_text(term), *counted)
            for term, counted in zip(top_terms(rule), found.terms, strict=True)
        ]
        clusters = [PreviewCluster(*counted) for counted in found.clusters]
        breakdown = PreviewBreakdown(found.total, terms, clusters)
        return json(SegmentPreview(found.count, found.as_of, meaning, breakdown, found.sample))

    @routes.get(
        "/v1/segments/rule-schema",
        summary="Show the JSON schema of a rule's tree",
        response_model=None,
        responses=answers(RuleSchema, "unknown_brand"),
    )
    async def rule_schema(brand: str | None = None) -> Response:
        """Show what a rule may look like as JSON, with the names that the brand knows."""
        return json(RuleSchema(tree_schema(services.brand(brand))))

    return routes


def _rule(asked: str | dict[str, Any], brand: Brand) -> Rule:
    return _parsed(asked, brand) if isinstance(asked, str) else from_tree(asked, brand)
