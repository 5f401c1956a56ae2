"""POST /v1/segments/replay."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from crm.domain.rule_text import to_text
from crm.domain.rules import from_tree
from crm.services import replays
from crm.services.replays import SegmentReplay
from deployments.api.answers import answers, json
from deployments.api.services import Services


class ReplayAsked(BaseModel):
    """A rule as text, or as a tree of the same meaning, and past days, `from` and `to` included."""

    model_config = ConfigDict(extra="forbid")
    brand: str | None = None
    rule: Annotated[
        str | dict[str, Any],
        Field(examples=["bet_count_30d >= 10 and days_since_last_bet > 7"]),
    ]
    first: Annotated[datetime.date, Field(alias="from", examples=["2026-10-01"])]
    last: Annotated[datetime.date, Field(alias="to", examples=["2026-10-31"])]
    known_by: Annotated[
        Literal["now"] | AwareDatetime | None,
        Field(description="Null: each day as it was known at its end. `now`: all known today."),
    ] = None


def router(services: Services) -> APIRouter:
    """Return the route of what-if questions."""
    routes = APIRouter(tags=["segments"])

    @routes.post(
        "/v1/segments/replay",
        summary="Replay a segment over past days",
        response_model=None,
        responses=answers(
            SegmentReplay, "invalid_json", "unknown_brand", "too_large", "invalid_rule",
            "invalid_field", "too_much_work", "warming", "database_unavailable",
        ),
    )  # fmt: skip
    async def replay(asked: ReplayAsked) -> Response:
        """Return who would have been in the segment at the end of each day, who entered, who left.

        From the events in the lake, at local midnights of the brand. A day counts what had
        occurred and was known by its end, as the live segment would have; with `known_by`, what
        is known by that moment. Who comes and goes within a day is not seen. The work is bounded:
        at most 366 days, over at most 2,000,000 events of all brands and 200,000 players of lists;
        beyond that, `crm segments replay` does it with progress. Segments that the rule names, and
        lists, are as they are now: the `rule` of the answer is the rule with these written out.
        """
        brand, now = services.brand(asked.brand), services.now()
        rule = asked.rule
        text = rule if isinstance(rule, str) else to_text(from_tree(rule, brand))
        known_by = now if asked.known_by == "now" else asked.known_by
        request = replays.request(brand, text, asked.first, asked.last, known_by, now)
        store = services.segments.store
        request = await replays.written_out(request, store, replays.LISTED_OVER_HTTP)
        return json(replays.told(request, await services.replays.run(request)))

    return routes
