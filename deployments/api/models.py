"""/v1/models: what was trained, its card and files, who serves, and the record of the changes."""

from __future__ import annotations

import asyncio
from datetime import datetime
from operator import attrgetter
from pathlib import PurePath
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from crm.domain.model_changes import CARD, MAX_REASON_CHARS, ModelChange
from crm.domain.models import ModelKind, RegisteredModel
from crm.services.model_registry import read_file
from deployments.api import cursors
from deployments.api.answers import answers, json
from deployments.api.guard import bearer
from deployments.api.idempotency import OnceOrNot
from deployments.api.services import Services

_KEY = ("invalid_idempotency_key", "idempotency_key_reused")
_LISTED = ("unknown_brand", "invalid_field", "invalid_cursor", "database_unavailable")
_ONE = ("model_not_found", "database_unavailable")
_FILE = (*_ONE, "model_file_not_found", "model_file_lost")
_CHANGE = ("invalid_json", "invalid_field", "invalid_reason", "database_unavailable", *_KEY)
_TYPES = {
    ".md": "text/markdown; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
}
_BYTES = "application/octet-stream"

Limit = Annotated[int, Query(ge=1, le=1_000)]
Why = Annotated[str, Field(max_length=MAX_REASON_CHARS, description="For the record.")]


class Promotion(BaseModel):
    """Why the model shall serve; `force`, with a reason, if it does not beat its baseline."""

    model_config = ConfigDict(extra="forbid")
    why: Why = ""
    force: bool = False


class Rollback(BaseModel):
    """Which kind of model goes back by one; `seen`: only if this one serves now."""

    model_config = ConfigDict(extra="forbid")
    brand: str | None = None
    kind: ModelKind
    why: Why = ""
    seen: str | None = None


class ModelList(msgspec.Struct):
    """Registered models of a brand, the newest first."""

    items: list[RegisteredModel]
    next: str | None


class ModelChangeList(msgspec.Struct):
    """Who changed what of a brand's models, the newest first."""

    items: list[ModelChange]
    next: str | None


def router(services: Services) -> APIRouter:
    """Return the routes of models."""
    routes = APIRouter(tags=["models"])
    for add in (_changes, _reading, _files):
        add(routes, services)
    return routes


def _changes(routes: APIRouter, services: Services) -> None:
    @routes.post(
        "/v1/models/rollback",
        summary="Go back to the model before",
        response_model=None,
        responses=answers(
            RegisteredModel, "unknown_brand", "no_former_model", "serving_changed", *_CHANGE
        ),
    )
    async def roll_back(asked: Rollback, request: Request, once: OnceOrNot) -> Response:
        """Have the model serve that served before, and return it; again goes further back."""
        brand = services.brand(asked.brand).id
        by = await _caller(services, request)
        return json(
            await services.models.rollback(
                brand, asked.kind, by, why=asked.why, seen=asked.seen, once=once
            )
        )

    @routes.post(
        "/v1/models/{model_id}/promote",
        summary="Have a model serve",
        response_model=None,
        responses=answers(RegisteredModel, "model_not_found", "model_not_better", *_CHANGE),
    )
    async def promote(
        model_id: str, request: Request, once: OnceOrNot, asked: Promotion | None = None
    ) -> Response:
        """Have a model serve in the place of the one of its kind; replicas follow by themselves."""
        asked = asked or Promotion()
        by = await _caller(services, request)
        return json(
            await services.models.promote(model_id, by, why=asked.why, force=asked.force, once=once)
        )


def _reading(routes: APIRouter, services: Services) -> None:
    @routes.get(
        "/v1/models",
        summary="List models",
        response_model=None,
        responses=answers(ModelList, *_LISTED),
    )
    async def list_models(
        brand: str | None = None,
        kind: ModelKind | None = None,
        limit: Limit = 100,
        cursor: str | None = None,
    ) -> Response:
        """Return the models of a brand (the first brand if none is named), the newest first."""
        after = cursors.read(cursor, tuple[datetime, str])
        found = await services.models.listed(services.brand(brand).id, kind, after, limit + 1)
        return json(ModelList(*cursors.page(found, limit, attrgetter("created_at", "id"))))

    @routes.get(
        "/v1/models/changes",
        summary="Read who changed what",
        response_model=None,
        responses=answers(ModelChangeList, *_LISTED),
    )
    async def list_changes(
        brand: str | None = None, limit: Limit = 100, cursor: str | None = None
    ) -> Response:
        """Return registrations, promotions and rollbacks of a brand, the newest first."""
        before = cursors.read(cursor, int)
        found = await services.models.changes(services.brand(brand).id, before, limit + 1)
        return json(ModelChangeList(*cursors.page(found, limit, attrgetter("id"))))

    @routes.get(
        "/v1/models/{model_id}",
        summary="Read a model",
        response_model=None,
        responses=answers(RegisteredModel, *_ONE),
    )
    async def read_model(model_id: str) -> Response:
        """Return a model: its state, data, features, parameters, metrics and files."""
        return json(await services.models.get(model_id))


def _files(routes: APIRouter, services: Services) -> None:
    async def file(model_id: str, name: str) -> Response:
        where = services.models, services.model_files
        data = await read_file(*where, model_id, name, asyncio.to_thread)
        media_type = _TYPES.get(PurePath(name).suffix, _BYTES)
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(data, media_type=media_type, headers=headers)

    @routes.get(
        "/v1/models/{model_id}/card",
        summary="Read a model's card",
        response_model=None,
        response_class=Response,
        responses=_file_answers("text/markdown", *_FILE),
    )
    async def read_card(model_id: str) -> Response:
        """Return the model's card: Markdown, with all that a person asks about it."""
        return await file(model_id, CARD)

    @routes.get(
        "/v1/models/{model_id}/files/{name}",
        summary="Read a file of a model",
        response_model=None,
        response_class=Response,
        responses=_file_answers(_BYTES, *_FILE),
    )
    async def read_model_file(model_id: str, name: str) -> Response:
        """Return a plot, a table or the card, byte for byte as the training has left it."""
        return await file(model_id, name)


async def _caller(services: Services, request: Request) -> str:
    """Return the name of the key that asks, for the record: the guard has let it in."""
    key = bearer(request.scope)
    return (await services.keys.name(key or "")) or "unknown"


def _file_answers(media_type: str, *codes: str) -> dict[int | str, dict[str, Any]]:
    responses = answers(ModelList, *codes)
    schema = {"type": "string", "format": "binary"}
    responses[200]["content"] = {media_type: {"schema": schema}}
    return responses
