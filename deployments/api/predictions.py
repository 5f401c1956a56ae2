"""POST /v1/predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Protocol, Self

from fastapi import APIRouter, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from crm.domain.brands import Brand, choose
from crm.services.predictions import MOST, PredictionReport, Predictions
from deployments.api.answers import answers, json

PATH = "/v1/predictions"
PROBLEMS = (
    "unknown_brand", "model_not_found", "model_unusable", "warming", "database_unavailable",
)  # fmt: skip
_EXAMPLE = [{"bet_count_30d": 12, "stake_amount_30d": "40.00", "days_since_last_bet": None}]


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a pair: JSON can write it, UTF-8 cannot
        raise ValueError("this is no Unicode text") from None
    return value


class PredictionsAsked(BaseModel):
    """Players whose live features are used, or features as GET /v1/players/{id}/features writes.

    One of the two; at most 1,000.
    """

    model_config = ConfigDict(extra="forbid")
    brand: str | None = None
    player_ids: Annotated[
        list[Annotated[str, AfterValidator(_text)]] | None,
        Field(min_length=1, max_length=MOST, examples=[["p1", "p2"]]),
    ] = None
    features: Annotated[
        list[dict[str, Any]] | None, Field(min_length=1, max_length=MOST, examples=[_EXAMPLE])
    ] = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.player_ids is None) == (self.features is None):
            raise ValueError("send either player_ids or features")
        return self


class HasPredictions(Protocol):
    """Any services that predict."""

    @property
    def brands(self) -> Mapping[str, Brand]:
        """The brands by id."""

    @property
    def predictions(self) -> Predictions:
        """The predictions."""


def router(services: HasPredictions) -> APIRouter:
    """Return the route of predictions, which the deployment of the models serves."""
    routes = APIRouter(tags=["predictions"])

    @routes.post(
        PATH,
        summary="Predict for up to 1,000 players",
        response_model=None,
        responses=answers(
            PredictionReport, "invalid_json", "invalid_field", "too_large", *PROBLEMS
        ),
    )
    async def predict(asked: PredictionsAsked) -> Response:
        """Return cluster, churn and value of players by their live features, all at one moment.

        Or of features that you send: then every feature that the models read must be there, null
        where there is none. Who is not known, and what cannot be read, is in `rejected` by index;
        the others are answered. A kind that no model serves is null, and `missing` says why; where
        no model serves at all, the answer is 404 `model_not_found`.
        """
        brand = choose(services.brands, asked.brand)
        if asked.player_ids is not None:
            return json(await services.predictions.of_players(brand, asked.player_ids))
        return json(await services.predictions.of_features(brand, asked.features or []))

    return routes
