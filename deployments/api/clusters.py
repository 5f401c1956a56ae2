"""GET /v1/clusters, who moved, and POST /v1/clusters/{id}/segment."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict

from crm.domain.saved_segments import SavedSegment
from crm.services.clustering import (
    ClusterMoves,
    ClusterView,
    list_clusters,
    moves_of,
    save_as_segment,
)
from deployments.api.answers import answers, json
from deployments.api.idempotency import OnceOrNot
from deployments.api.services import Services

_ASKED = ("unknown_brand", "clusters_not_found", "model_unusable", "database_unavailable")


class ClusterList(msgspec.Struct):
    """The player clusters of a brand, the largest first."""

    items: list[ClusterView]
    next: str | None = None


class ClusterSegment(BaseModel):
    """Whose cluster, and the segment's name: by default that of the cluster."""

    model_config = ConfigDict(extra="forbid")
    brand: str | None = None
    name: str | None = None


def router(services: Services) -> APIRouter:
    """Return the routes of player clusters."""
    routes = APIRouter(tags=["clusters"])

    @routes.get(
        "/v1/clusters",
        summary="List player clusters",
        response_model=None,
        responses=answers(ClusterList, *_ASKED),
    )
    async def read_clusters(brand: str | None = None) -> Response:
        """Return the player clusters of a brand (the first brand if none is named)."""
        return json(ClusterList(await list_clusters(services.clusters, services.brand(brand).id)))

    @routes.get(
        "/v1/clusters/moves",
        summary="Read who moved where with the newest model",
        response_model=None,
        responses=answers(ClusterMoves, *_ASKED),
    )
    async def read_moves(brand: str | None = None) -> Response:
        """Return how many players each cluster had of each cluster of the model before."""
        return json(await moves_of(services.clusters, services.brand(brand).id))

    @routes.post(
        "/v1/clusters/{cluster_id}/segment",
        summary="Save the rule of a cluster as a segment",
        status_code=201,
        response_model=None,
        responses=answers(
            SavedSegment, *_ASKED, "cluster_not_found", "cluster_has_no_rule",
            "segment_name_taken", "invalid_rule", "invalid_field", "invalid_segment",
            "invalid_json", "too_large", "invalid_idempotency_key", "idempotency_key_reused",
            "warming", status=201,
        ),
    )  # fmt: skip
    async def save_segment(cluster_id: int, asked: ClusterSegment, once: OnceOrNot) -> Response:
        """Save the short rule that stands for a cluster; the segment lives on its own then."""
        brand = services.brand(asked.brand)
        model = await services.clusters.of(brand.id)
        done = await save_as_segment(model, cluster_id, services.segments, brand, asked.name, once)
        response = json(done.segment, 201)
        response.headers["location"] = f"/v1/segments/{done.segment.id}"
        return response

    return routes
