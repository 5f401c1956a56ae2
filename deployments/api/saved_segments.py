"""/v1/segments: saved segments and lists of players, their versions, sizes and usage."""

from __future__ import annotations

from datetime import datetime
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from crm.domain.errors import InvalidSegment
from crm.domain.player_lists import of_items
from crm.domain.saved_segments import (
    ListReport,
    SavedSegment,
    SegmentSize,
    SegmentVersion,
    Use,
    Written,
)
from deployments.api import cursors
from deployments.api.answers import answers, json
from deployments.api.idempotency import OnceOrNot
from deployments.api.services import Services
from deployments.api.uploads import BODY, player_list

_READ = ("segment_not_found", "invalid_field", "database_unavailable")
_PAGE = (*_READ, "invalid_cursor")
_KEY = ("invalid_idempotency_key", "idempotency_key_reused")
_EDIT = (*_READ, *_KEY, "unknown_brand", "segment_changed", "segment_archived")
_FORM = ("invalid_json", "too_large")
_LIST = (*_FORM, "unsupported_media_type", "invalid_list", "invalid_segment", "warming")

Rule = Annotated[
    str | dict[str, Any], Field(examples=["bet_count_lifetime >= 10 and days_since_last_bet > 7"])
]
Limit = Annotated[int, Query(ge=1, le=1_000)]
Version = Annotated[int | None, Query(ge=1, description="The version that was read.")]


class NewSegment(BaseModel):
    """A rule, as text or as a tree; or, of kind `list`, players."""

    model_config = ConfigDict(extra="forbid")
    brand: str | None = None
    name: str
    kind: Literal["rule", "list"] = "rule"
    rule: Rule | None = None
    player_ids: list[Any] | None = Field(None, json_schema_extra={"items": {"type": "string"}})


class SegmentEdit(BaseModel):
    """What changes, and the `version` that it was read at."""

    model_config = ConfigDict(extra="forbid")
    version: Annotated[int, Field(ge=1)]
    name: str | None = None
    rule: Rule | None = None


class ListedSegment(SavedSegment, frozen=True):
    """A segment; after an import also what became of each line."""

    report: ListReport | None = None


class SegmentList(msgspec.Struct):
    """Saved segments of a brand, the newest first."""

    items: list[SavedSegment]
    next: str | None


class VersionList(msgspec.Struct):
    """The versions of a segment, the newest first."""

    items: list[SegmentVersion]
    next: str | None


class SizeList(msgspec.Struct):
    """How large a segment was, the newest size first."""

    items: list[SegmentSize]
    next: str | None


class UseList(msgspec.Struct):
    """What relies on a segment."""

    items: list[Use]
    next: str | None = None


def router(services: Services) -> APIRouter:
    """Return the routes of saved segments; they come after those with a word in place of an id."""
    routes = APIRouter(tags=["segments"])
    for add in (_changes, _lists, _reading):
        add(routes, services)
    return routes


def _changes(routes: APIRouter, services: Services) -> None:
    @routes.post(
        "/v1/segments",
        summary="Save a segment",
        status_code=201,
        response_model=None,
        responses=answers(
            ListedSegment, "unknown_brand", "segment_name_taken", "invalid_rule", "invalid_field",
            "database_unavailable", *_KEY, *_LIST, status=201,
        ),
    )  # fmt: skip
    async def create_segment(asked: NewSegment, once: OnceOrNot) -> Response:
        """Save a rule, or a list of players, under a name that is free within the brand."""
        brand, saved = services.brand(asked.brand), services.segments
        if asked.kind == "rule" and asked.rule is not None and asked.player_ids is None:
            return _created(await saved.create(brand, asked.name, asked.rule, once))
        if asked.kind == "list" and asked.rule is None:
            players = of_items(asked.player_ids or [])
            return _created(await saved.create_list(brand, asked.name, players, once))
        raise InvalidSegment("a segment of kind rule has a rule, one of kind list has player_ids")

    @routes.patch(
        "/v1/segments/{segment_id}",
        summary="Change a segment",
        response_model=None,
        responses=answers(
            SavedSegment, *_EDIT, *_FORM, "segment_name_taken", "segment_in_use", "invalid_rule",
            "invalid_segment",
        ),
    )  # fmt: skip
    async def edit_segment(segment_id: str, asked: SegmentEdit, once: OnceOrNot) -> Response:
        """Change the name or the rule: this makes the next version, if nobody else has made it."""
        done = await services.segments.edit(segment_id, asked.version, asked.name, asked.rule, once)
        return json(done.segment)

    @routes.delete(
        "/v1/segments/{segment_id}",
        summary="Archive a segment",
        response_model=None,
        responses=answers(SavedSegment, *_EDIT, "segment_in_use"),
    )
    async def archive_segment(
        segment_id: str, once: OnceOrNot, version: Version = None
    ) -> Response:
        """Archive a segment: nobody is in it any more, its name is free, its history stays."""
        return json((await services.segments.archive(segment_id, version, once)).segment)


def _lists(routes: APIRouter, services: Services) -> None:
    @routes.post(
        "/v1/segments/lists",
        summary="Import a list of players as a segment",
        status_code=201,
        response_model=None,
        responses=answers(
            ListedSegment, "unknown_brand", "segment_name_taken", "invalid_field",
            "database_unavailable", *_KEY, *_LIST, status=201,
        ),
        openapi_extra={"requestBody": BODY},
    )  # fmt: skip
    async def import_list(
        request: Request, name: str, once: OnceOrNot, brand: str | None = None
    ) -> Response:
        """Save the players of a CSV or JSON file; `report` tells which lines name no player.

        The column `player_id` of a CSV counts, or its first one. Players who are not known yet are
        kept, and counted as `unknown`.
        """
        players = await player_list(request)
        of_brand = services.brand(brand)
        return _created(await services.segments.create_list(of_brand, name, players, once))

    @routes.post(
        "/v1/segments/{segment_id}/players",
        summary="Add players to a list",
        response_model=None,
        responses=answers(ListedSegment, *_EDIT, *_LIST),
        openapi_extra={"requestBody": BODY},
    )
    async def add_players(
        segment_id: str, request: Request, once: OnceOrNot, version: Version = None
    ) -> Response:
        """Import a file into a list, beside whom it has; whoever is new makes a new version."""
        players = await player_list(request)
        return _listed(
            await services.segments.put_players(segment_id, version, players, "add", once)
        )

    @routes.put(
        "/v1/segments/{segment_id}/players",
        summary="Replace the players of a list",
        response_model=None,
        responses=answers(ListedSegment, *_EDIT, *_LIST),
        openapi_extra={"requestBody": BODY},
    )
    async def replace_players(
        segment_id: str, request: Request, once: OnceOrNot, version: Version = None
    ) -> Response:
        """Import a file in the place of whom a list has; whoever comes or goes makes a version."""
        players = await player_list(request)
        return _listed(
            await services.segments.put_players(segment_id, version, players, "replace", once)
        )


def _reading(routes: APIRouter, services: Services) -> None:
    @routes.get(
        "/v1/segments",
        summary="List saved segments",
        response_model=None,
        responses=answers(
            SegmentList, "unknown_brand", "invalid_field", "invalid_cursor", "database_unavailable"
        ),
    )
    async def list_segments(
        brand: str | None = None,
        *,
        archived: bool = False,
        limit: Limit = 100,
        cursor: str | None = None,
    ) -> Response:
        """Return the segments of a brand (the first brand if none is named), the newest first."""
        after = cursors.read(cursor, tuple[datetime, str])
        of_brand = services.brand(brand).id
        found = await services.segments.store.page(of_brand, after, limit + 1, archived=archived)
        return json(SegmentList(*cursors.page(found, limit, attrgetter("created_at", "id"))))

    @routes.get(
        "/v1/segments/{segment_id}",
        summary="Read a segment",
        response_model=None,
        responses=answers(SavedSegment, "segment_not_found", "database_unavailable"),
    )
    async def read_segment(segment_id: str) -> Response:
        """Return a segment, archived or not, with its newest size."""
        return json(await services.segments.store.get(segment_id))

    @routes.get(
        "/v1/segments/{segment_id}/versions",
        summary="List the versions of a segment",
        response_model=None,
        responses=answers(VersionList, *_PAGE),
    )
    async def list_versions(
        segment_id: str, limit: Limit = 100, cursor: str | None = None
    ) -> Response:
        """Return what a segment was, the newest version first; versions stand for ever."""
        store, below = services.segments.store, cursors.read(cursor, int)
        await store.get(segment_id)
        found = await store.versions(segment_id, below, limit + 1)
        return json(VersionList(*cursors.page(found, limit, attrgetter("version"))))

    @routes.get(
        "/v1/segments/{segment_id}/sizes",
        summary="Read how large a segment was",
        response_model=None,
        responses=answers(SizeList, *_PAGE),
    )
    async def list_sizes(
        segment_id: str, limit: Limit = 100, cursor: str | None = None
    ) -> Response:
        """Return sizes, the newest first: taken with every change, and once an hour."""
        store, before = services.segments.store, cursors.read(cursor, datetime)
        await store.get(segment_id)
        found = await store.sizes(segment_id, before, limit + 1)
        return json(SizeList(*cursors.page(found, limit, attrgetter("at"))))

    @routes.get(
        "/v1/segments/{segment_id}/usage",
        summary="Read what relies on a segment",
        response_model=None,
        responses=answers(UseList, "segment_not_found", "unknown_brand", "database_unavailable"),
    )
    async def read_usage(segment_id: str) -> Response:
        """Return what names this segment: while anything does, it is not renamed or archived."""
        segment = await services.segments.store.get(segment_id)
        return json(UseList(await services.segments.usage(segment)))


def _created(done: Written) -> Response:
    response = json(_answer(done), 201)
    response.headers["location"] = f"/v1/segments/{done.segment.id}"
    return response


def _listed(done: Written) -> Response:
    return json(_answer(done))


def _answer(done: Written) -> ListedSegment:
    return ListedSegment(**msgspec.structs.asdict(done.segment), report=done.report)
