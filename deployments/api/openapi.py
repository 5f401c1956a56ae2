"""The OpenAPI document: what the routes say of themselves, the types they name, and who may ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from crm.domain.drift import Drift
from crm.domain.models import RegisteredModel
from crm.domain.retrains import Retrain
from crm.domain.saved_segments import SavedSegment
from crm.services.clustering import ClusterMoves, PlayerCluster
from crm.services.ingest import IngestReport
from crm.services.overview import Overview
from crm.services.predictions import PlayerScores, PredictionReport
from crm.services.replays import SegmentReplay
from crm.services.saved_segments import WhyAnswer
from deployments.api import predictions
from deployments.api.answers import REF, problems
from deployments.api.clusters import ClusterList
from deployments.api.events import event_schema
from deployments.api.guard import OPEN
from deployments.api.health import Health, Readiness
from deployments.api.models import ModelChangeList, ModelList
from deployments.api.players import FeatureList, FeaturesOfPlayer, Player
from deployments.api.problems import Problem
from deployments.api.retrains import RetrainList
from deployments.api.saved_segments import (
    ListedSegment,
    SegmentList,
    SizeList,
    UseList,
    VersionList,
)
from deployments.api.segment_members import MemberList
from deployments.api.segments import RuleSchema, SegmentPreview
from deployments.live import tickets

_TYPES = (
    ClusterList,
    Drift,
    ClusterMoves,
    FeatureList,
    FeaturesOfPlayer,
    Health,
    IngestReport,
    ListedSegment,
    MemberList,
    ModelChangeList,
    ModelList,
    tickets.LiveTicket,
    Overview,
    Player,
    PlayerCluster,
    PlayerScores,
    PredictionReport,
    Problem,
    Readiness,
    Retrain,
    RetrainList,
    RegisteredModel,
    SavedSegment,
    SegmentList,
    RuleSchema,
    SegmentPreview,
    SizeList,
    UseList,
    VersionList,
    WhyAnswer,
    SegmentReplay,
)
_TAGS = [
    {"name": "events", "description": "What players did, as it happens."},
    {"name": "players", "description": "One player, live."},
    {"name": "features", "description": "What is known of every player."},
    {"name": "segments", "description": "Players by rule, or on a list."},
    {"name": "clusters", "description": "Players by likeness."},
    {"name": "models", "description": "What was trained, what serves, and training anew."},
    {"name": "predictions", "description": "Cluster, churn and value of players, live."},
    {"name": "live", "description": "What happens, as it happens: a WebSocket, see docs/live.md."},
    {"name": "analytics", "description": "All players of a brand together."},
    {"name": "health", "description": "The state of the service; no key is needed."},
]
_BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key. The first one is in var/bootstrap-key.",
}
_OF_FASTAPI = ("HTTPValidationError", "ValidationError")  # our own problems stand in their place


def describe(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of `app`."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=[*app.routes, *_elsewhere()],
        tags=_TAGS,
    )
    components = document.setdefault("components", {})
    components["securitySchemes"] = {"Bearer": _BEARER}
    schemas = components.setdefault("schemas", {})
    for name in _OF_FASTAPI:
        schemas.pop(name, None)
    _, types = msgspec.json.schema_components(_TYPES, ref_template=REF)
    schemas.update(types)
    schemas["IncomingEvent"] = event_schema()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _complete(path, operation)
    return document


def _elsewhere() -> Sequence[BaseRoute]:
    """Return the routes that another deployment serves under the same address."""
    return [
        *predictions.router(cast("predictions.HasPredictions", None)).routes,
        *tickets.router(cast("tickets.HasTickets", None)).routes,
    ]


def _complete(path: str, operation: dict[str, Any]) -> None:
    """Say what holds for every route: who may ask, and how anything else that fails is told."""
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422", "")):  # FastAPI's own guess
        del responses["422"]
    if path not in OPEN:
        operation["security"] = [{"Bearer": []}]
        responses["401"] = problems("unauthorized")
        responses.setdefault("503", problems("database_unavailable"))  # while keys are looked up
    responses["default"] = problems("internal")
    operation["responses"] = dict(sorted(responses.items()))
