"""POST /v1/live/tickets."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

import msgspec
from fastapi import APIRouter, Request, Response

from crm.services.live_tickets import TicketStore, issue
from deployments.api.answers import answers, json
from deployments.api.guard import bearer
from deployments.api.problems import problem

PATH = "/v1/live"


class LiveTicket(msgspec.Struct):
    """What the first message of a live socket carries; good once, until `expires_at`."""

    ticket: str
    expires_at: datetime


class HasTickets(Protocol):
    """Any services that keep tickets."""

    @property
    def tickets(self) -> TicketStore:
        """The tickets."""


def router(services: HasTickets) -> APIRouter:
    """Return the route of tickets, and the answer to whoever asks for the socket without one."""
    routes = APIRouter(tags=["live"])

    @routes.post(
        f"{PATH}/tickets",
        summary="Get a ticket for the live socket",
        response_model=None,
        responses=answers(LiveTicket, "database_unavailable"),
    )
    async def make_live_ticket(request: Request) -> Response:
        """Return a ticket for one WebSocket at /v1/live: it goes into the first message there."""
        issued = await issue(services.tickets, bearer(request.scope) or "")
        return json(LiveTicket(issued.ticket, issued.expires_at))

    @routes.get(PATH, include_in_schema=False)
    async def not_a_socket() -> Response:
        """Say that this is a WebSocket."""
        return problem("upgrade_required", "open a WebSocket here; docs/live.md says how")

    return routes
