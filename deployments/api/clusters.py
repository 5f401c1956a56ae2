"""GET /v1/clusters."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Response

from crm.services.clustering import ClusterView, list_clusters
from deployments.api.answers import answers, json
from deployments.api.services import Services


class ClusterList(msgspec.Struct):
    """The player clusters of a brand, the largest first."""

    items: list[ClusterView]
    next: str | None = None


def router(services: Services) -> APIRouter:
    """Return the routes of player clusters."""
    routes = APIRouter(tags=["clusters"])

    @routes.get(
        "/v1/clusters",
        summary="List player clusters",
        response_model=None,
        responses=answers(
            ClusterList, "unknown_brand", "clusters_not_found", "database_unavailable"
        ),
    )
    async def read_clusters(brand: str | None = None) -> Response:
        """Return the player clusters of a brand (the first brand if none is named)."""
        return json(ClusterList(await list_clusters(services.clusters, services.brand(brand).id)))

    return routes
