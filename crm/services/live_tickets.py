"""Tickets: what opens one live socket, once, within seconds, so that no key is in any URL."""

from __future__ import annotations

import secrets
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple, Protocol

VALID_S = 30.0
_PREFIX = "live_"


class TicketStore(Protocol):
    """Where tickets are, by digest."""

    async def make(self, digest: bytes, key_sha256: bytes, valid_s: float) -> datetime:
        """Keep a ticket; return until when it is good; raises DatabaseAway."""

    async def redeem(self, digest: bytes) -> bytes | None:
        """Use a ticket up; return whose key asked for it, or None; raises DatabaseAway."""


class Issued(NamedTuple):
    """A new ticket; nobody else knows it."""

    ticket: str
    expires_at: datetime


async def issue(store: TicketStore, key: str) -> Issued:
    """Return a ticket for the holder of an API key; raises DatabaseAway."""
    ticket = _PREFIX + secrets.token_urlsafe(32)
    until = await store.make(_digest(ticket), _digest(key), VALID_S)
    return Issued(ticket, until)


async def redeem(store: TicketStore, ticket: str) -> bytes | None:
    """Use a ticket up; return the digest of the key that it stands for, None if it is not good."""
    return await store.redeem(_digest(ticket))


def _digest(secret: str) -> bytes:
    return sha256(secret.encode()).digest()
