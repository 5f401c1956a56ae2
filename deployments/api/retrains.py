"""/v1/retrains: asking for a retrain, and what became of those that were asked for."""

from __future__ import annotations

from datetime import datetime
from operator import attrgetter
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from crm.domain.drift import Drift, NoReference
from crm.domain.models import ModelKind
from crm.domain.retrains import Retrain, RetrainOptions
from crm.services.retraining import ask
from deployments.api import cursors
from deployments.api.answers import answers, json
from deployments.api.idempotency import OnceOrNot
from deployments.api.services import Services

_KEY = ("invalid_idempotency_key", "idempotency_key_reused")
Limit = Annotated[int, Query(ge=1, le=1_000)]


class RetrainAsked(BaseModel):
    """What to train anew; `promote` never leaves the new model a candidate."""

    model_config = ConfigDict(extra="forbid")
    brand: str | None = None
    kind: ModelKind
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    budget_s: Annotated[float | None, Field(gt=0, le=86_400)] = None
    promote: Literal["rule", "never"] = "rule"


class RetrainList(msgspec.Struct):
    """Retrains of a brand, the newest first."""

    items: list[Retrain]
    next: str | None


def router(services: Services) -> APIRouter:
    """Return the routes of retrains, and of what brings them about."""
    routes = APIRouter(tags=["models"])

    @routes.post(
        "/v1/retrains",
        summary="Train a model anew",
        status_code=201,
        response_model=None,
        responses=answers(
            Retrain, "unknown_brand", "retrain_running", "invalid_field", "invalid_json",
            "too_large", "database_unavailable", *_KEY, status=201,
        ),
    )  # fmt: skip
    async def ask_retrain(asked: RetrainAsked, once: OnceOrNot) -> Response:
        """Ask for a retrain; it runs as a Ray job, once, however often the same key is sent.

        The serving model stays until the new one has been registered and judged: see `note`. One
        retrain of a brand and kind runs at a time. A key that is sent again brings its retrain as
        it stands then.
        """
        options = RetrainOptions(asked.seed, asked.budget_s, asked.promote)
        brand = services.brand(asked.brand)
        found = await ask(services.retrains, brand, asked.kind, options, once, services.now())
        response = json(found, 201)
        response.headers["location"] = f"/v1/retrains/{found.id}"
        return response

    @routes.get(
        "/v1/retrains",
        summary="List retrains",
        response_model=None,
        responses=answers(
            RetrainList, "unknown_brand", "invalid_field", "invalid_cursor", "database_unavailable"
        ),
    )
    async def list_retrains(
        brand: str | None = None,
        kind: ModelKind | None = None,
        limit: Limit = 100,
        cursor: str | None = None,
    ) -> Response:
        """Return the retrains of a brand (the first brand if none is named), the newest first."""
        after = cursors.read(cursor, tuple[datetime, str])
        of_brand = services.brand(brand).id
        found = await services.retrains.page(of_brand, kind, after, limit + 1)
        return json(RetrainList(*cursors.page(found, limit, attrgetter("asked_at", "id"))))

    @routes.get(
        "/v1/retrains/{retrain_id}",
        summary="Read a retrain",
        response_model=None,
        responses=answers(Retrain, "retrain_not_found", "database_unavailable"),
    )
    async def read_retrain(retrain_id: str) -> Response:
        """Return a retrain: its state, why it failed, its model, and whether that serves."""
        return json(await services.retrains.get(retrain_id))

    @routes.get(
        "/v1/models/{model_id}/drift",
        summary="Read a model's drift",
        response_model=None,
        responses=answers(Drift, "model_not_found", "no_reference", "database_unavailable"),
    )
    async def read_drift(model_id: str) -> Response:
        """Return the newest look at how far today's players are from the model's training set.

        The population stability index of each feature and of the score, and what chance explains
        of it. Serving models are looked at every so often; one that never served has no look.
        """
        found = await services.retrains.drift(model_id)
        if found is None:
            await services.models.get(model_id)
            raise NoReference(
                "nobody has looked at this model: it does not serve, or not long enough"
            )
        return json(found)

    return routes
