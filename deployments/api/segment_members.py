"""GET /v1/segments/{id}/members and .../players/{player_id}/why: who is in, and why."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from urllib.parse import unquote

import msgspec
from fastapi import APIRouter, Query, Response

from crm.services.saved_segments import WhyAnswer
from deployments.api import cursors
from deployments.api.answers import answers, json
from deployments.api.exports import exported, with_files
from deployments.api.services import Services

_READ = (
    "segment_not_found",
    "unknown_brand",
    "segment_archived",
    "invalid_rule",
    "invalid_field",
    "warming",
    "database_unavailable",
)
_PAGE = 100
_LONGEST_PAGE = 1_000

MayLimit = Annotated[int | None, Query(ge=1)]


class Member(msgspec.Struct):
    """A player who is in a segment."""

    player_id: str


class MemberList(msgspec.Struct):
    """Players in the order of their ids, who were in the segment at `as_of`."""

    items: list[Member]
    next: str | None
    as_of: datetime


def router(services: Services) -> APIRouter:
    """Return the routes of who is in a segment."""
    routes = APIRouter(tags=["segments"])

    @routes.get(
        "/v1/segments/{segment_id}/members",
        summary="List who is in a segment",
        response_model=None,
        responses=with_files(answers(MemberList, *_READ, "invalid_cursor")),
    )
    async def list_members(
        segment_id: str,
        limit: MayLimit = None,
        cursor: str | None = None,
        format: Literal["json", "csv", "parquet"] = "json",  # noqa: A002 - the parameter's name
    ) -> Response:
        """Return the players in a segment, live, in the order of their ids.

        As JSON a page of 100, or of `limit` up to 1,000. As CSV or Parquet all of them, or `limit`
        of them, streamed; each row group or 20,000 lines are of one moment.
        """
        segment = await services.segments.store.get(segment_id)
        after = cursors.read(cursor, str) or ""
        if format != "json":
            pages = services.segments.all_members(segment, after, limit)
            return await exported(segment, pages, format)
        limit = min(limit or _PAGE, _LONGEST_PAGE)
        found = await services.segments.members(segment, after, limit + 1)
        page, more = cursors.page(found.player_ids, limit, str)
        return json(MemberList([Member(player) for player in page], more, found.as_of))

    @routes.get(
        "/v1/segments/{segment_id}/players/{player_id:path}/why",
        summary="Read why a player is in a segment, or is not",
        response_model=None,
        responses=answers(WhyAnswer, *_READ, "player_not_found"),
    )
    async def read_why(segment_id: str, player_id: str) -> Response:
        """Return every term of the rule with the player's value, and whether it holds."""
        segment = await services.segments.store.get(segment_id)
        return json(await services.segments.why(segment, unquote(player_id)))

    return routes
