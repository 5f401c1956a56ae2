"""GET /v1/players/{id}, its features and its cluster."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import unquote

import msgspec
from fastapi import APIRouter, Response

from crm.domain.feature_list import features_of
from crm.domain.features import Feature
from crm.domain.score_columns import LISTED
from crm.services import clustering
from crm.services.clustering import PlayerCluster
from crm.services.player_features import Written, for_reading
from deployments.api.answers import answers, json
from deployments.api.services import Services

_PROFILE = ("first_registration_at", "first_activity_at", "last_activity_at")
_ASKED = ("unknown_brand", "player_not_found", "warming", "database_unavailable")


class Player(msgspec.Struct):
    """When a player was registered and first and last seen; times are RFC 3339."""

    player_id: str
    brand: str
    as_of: datetime
    registered_at: Written
    first_seen_at: Written
    last_seen_at: Written


class FeaturesOfPlayer(msgspec.Struct):
    """All features: counts as integers, money as decimal strings, shares and numbers as numbers.

    Missing ones are null.
    """

    player_id: str
    brand: str
    as_of: datetime
    features: dict[str, Written]


class FeatureList(msgspec.Struct):
    """Every feature that a brand has; those of its own measures come last."""

    items: list[Feature]
    next: str | None = None


def router(services: Services) -> APIRouter:
    """Return the routes of players, the longer paths first: an id may hold slashes.

    Paths come still encoded (guard.py), so an id that ends in /features is written with %2F.
    """
    routes = APIRouter()

    @routes.get(
        "/v1/players/{player_id:path}/features",
        summary="Read a player's features",
        tags=["players"],
        response_model=None,
        responses=answers(FeaturesOfPlayer, *_ASKED),
    )
    async def read_features(player_id: str, brand: str | None = None) -> Response:
        """Return all features of a player, live: every event that was acknowledged counts."""
        of_brand = services.brand(brand)
        found = await services.shards.features(of_brand.id, unquote(player_id))
        features = for_reading(of_brand, found.values)
        return json(FeaturesOfPlayer(found.player_id, found.brand, found.as_of, features))

    @routes.get(
        "/v1/players/{player_id:path}/cluster",
        summary="Read a player's cluster",
        tags=["players"],
        response_model=None,
        responses=answers(PlayerCluster, *_ASKED, "clusters_not_found", "model_unusable"),
    )
    async def read_cluster(player_id: str, brand: str | None = None) -> Response:
        """Return the player cluster that the player's live features belong to."""
        brand_id = services.brand(brand).id
        return json(
            await clustering.cluster_of(
                services.clusters, services.shards, brand_id, unquote(player_id)
            )
        )

    @routes.get(
        "/v1/players/{player_id:path}",
        summary="Read a player",
        tags=["players"],
        response_model=None,
        responses=answers(Player, *_ASKED),
    )
    async def read_player(player_id: str, brand: str | None = None) -> Response:
        """Return when a player was registered and first and last seen."""
        of_brand = services.brand(brand)
        found = await services.shards.features(of_brand.id, unquote(player_id))
        times = for_reading(of_brand, {name: found.values[name] for name in _PROFILE})
        return json(Player(found.player_id, found.brand, found.as_of, *times.values()))

    @routes.get(
        "/v1/features",
        summary="List features",
        tags=["features"],
        response_model=None,
        responses=answers(FeatureList, "unknown_brand"),
    )
    async def list_features(brand: str | None = None) -> Response:
        """Return every feature with its unit and meaning; rules and clusters use these names.

        The last ones are what serving models say of a player: for rules, and for no model.
        """
        features = features_of(services.brand(brand)).features.values()
        return json(FeatureList([*features, *LISTED]))

    return routes
