"""What live sockets work with: made once a replica, handed in, nothing global."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from crm.domain.brands import Brand
from crm.services.live import Hub
from crm.services.live_figures import FactBoard, JobBoard
from crm.services.live_reading import Missed
from crm.services.live_tickets import TicketStore
from deployments.api.guard import Keys, KnownKeys


@dataclass(frozen=True)
class Limits:
    """Bounds of one replica; times in seconds.

    `pending` sockets may be open that have not shown a ticket yet: they never take the places of
    those that have.
    """

    sockets: int = 2_000
    pending: int = 256
    ticket_s: float = 5.0
    heartbeat_s: float = 15.0
    stall_s: float = 30.0
    start_s: float = 5.0
    reads: int = 4


@dataclass(frozen=True)
class LiveServices:
    """`keys` guards the tickets' route; `digests` tells sockets of keys that were removed."""

    brands: Mapping[str, Brand]
    keys: KnownKeys
    digests: Keys
    tickets: TicketStore
    hub: Hub
    missed: Missed
    jobs: JobBoard
    facts: FactBoard
    clock: Callable[[], datetime]
    limits: Limits = field(default_factory=Limits)
