"""GET /v1/clusters."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Response

from crm.services.clustering import list_clusters
from deployments.api.services import Services


def router(services: Services) -> APIRouter:
    """Return the routes of player clusters."""
    routes = APIRouter(tags=["clusters"])

    @routes.get("/v1/clusters", response_model=None)
    async def read_clusters(brand: str | None = None) -> Response:
        """Return the player clusters of a brand, the largest first."""
        items = await list_clusters(services.clusters, services.brand(brand).id)
        return Response(
            msgspec.json.encode({"items": items, "next": None}), media_type="application/json"
        )

    return routes
