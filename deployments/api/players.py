"""GET /v1/players/{id}, its features and its cluster."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Response

from crm.domain.features import FEATURES
from crm.services import clustering
from crm.services.player_features import for_reading, rfc3339
from deployments.api.services import Services

_PROFILE = ("first_registration_at", "first_activity_at", "last_activity_at")


def router(services: Services) -> APIRouter:
    """Return the routes of players. An id may hold slashes: the longer paths come first."""
    routes = APIRouter(tags=["players"])

    @routes.get("/v1/players/{player_id:path}/features", response_model=None)
    async def read_features(player_id: str, brand: str | None = None) -> Response:
        """Return all features of a player, live: counts as integers, money as decimal strings."""
        of_brand = services.brand(brand)
        found = await services.shards.features(of_brand.id, player_id)
        return _json(
            {
                "player_id": player_id,
                "brand": of_brand.id,
                "as_of": rfc3339(found.as_of),
                "features": for_reading(of_brand, found.values),
            }
        )

    @routes.get("/v1/players/{player_id:path}/cluster", response_model=None)
    async def read_cluster(player_id: str, brand: str | None = None) -> Response:
        """Return the player cluster that the player's live features belong to."""
        brand_id = services.brand(brand).id
        return _json(
            await clustering.cluster_of(services.clusters, services.shards, brand_id, player_id)
        )

    @routes.get("/v1/players/{player_id:path}", response_model=None)
    async def read_player(player_id: str, brand: str | None = None) -> Response:
        """Return when a player was registered and first and last seen."""
        of_brand = services.brand(brand)
        found = await services.shards.features(of_brand.id, player_id)
        times = for_reading(of_brand, {name: found.values[name] for name in _PROFILE})
        return _json(
            {
                "player_id": player_id,
                "brand": of_brand.id,
                "as_of": rfc3339(found.as_of),
                "registered_at": times["first_registration_at"],
                "first_seen_at": times["first_activity_at"],
                "last_seen_at": times["last_activity_at"],
            }
        )

    @routes.get("/v1/features", response_model=None, tags=["features"])
    async def list_features() -> Response:
        """Return every feature with its unit and meaning."""
        return _json({"items": list(FEATURES.values()), "next": None})

    return routes


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
