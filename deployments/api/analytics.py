"""GET /v1/analytics/overview."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Query, Response

from crm.services.overview import Overview
from deployments.api.answers import answers, encoded
from deployments.api.services import Services

_FROM = "The first day, in the brand's time zone; default: 30 days with the last. At most 89 back."
_TO = "The last day, in the brand's time zone; default: today."


def router(services: Services) -> APIRouter:
    """Return the routes of the dashboard's numbers."""
    routes = APIRouter(tags=["analytics"])

    @routes.get(
        "/v1/analytics/overview",
        summary="Read a brand's numbers by day and week",
        response_model=None,
        responses=answers(
            Overview, "unknown_brand", "invalid_field", "warming", "database_unavailable"
        ),
    )
    async def read_overview(
        brand: str | None = None,
        first: Annotated[date | None, Query(alias="from", description=_FROM)] = None,
        last: Annotated[date | None, Query(alias="to", description=_TO)] = None,
    ) -> Response:
        """Return players and money of a brand by local day, by week, and in all.

        Exact: the sums of all players' live features at one moment, `as_of`, which may be 15
        seconds ago. Active players act themselves at least once (register, start or end a
        session, ask for, complete or fail a deposit, ask for, complete or cancel a withdrawal,
        place a bet, open or click a message); of a week each is counted once. New players act for
        the first time ever, by their first registration or first activity. Players churn on the
        day on which they have been away for 30 days: their last day with an act, up to and with
        that day, is the one 30 days before. So each churns at most once an absence, and a late
        event may take it back. ggr is stakes less payouts, ngr is ggr less bonuses. Late events
        change the numbers of their own day. Days before the last 90 are refused.
        """
        return encoded(await services.overviews.read(services.brand(brand), first, last))

    return routes
