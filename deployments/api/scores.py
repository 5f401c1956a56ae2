"""GET /v1/players/{id}/scores."""

from __future__ import annotations

from urllib.parse import unquote

from fastapi import APIRouter, Response

from crm.services.predictions import PlayerScores
from deployments.api.answers import answers, encoded
from deployments.api.predictions import PROBLEMS
from deployments.api.services import Services


def router(services: Services) -> APIRouter:
    """Return the route of one player's scores."""
    routes = APIRouter(tags=["predictions"])

    @routes.get(
        "/v1/players/{player_id:path}/scores",
        summary="Read a player's scores",
        response_model=None,
        responses=answers(PlayerScores, "player_not_found", *PROBLEMS),
    )
    async def read_scores(player_id: str, brand: str | None = None) -> Response:
        """Return cluster, churn and value of a player, live, with the reasons in words.

        `initial` is true while no act of the player is known to the model of clusters: the cluster
        is the default one until then.
        """
        brand_id = services.brand(brand).id
        return encoded(await services.scores.of_player(brand_id, unquote(player_id)))

    return routes
