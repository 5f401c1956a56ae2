"""What several benchmarks load: an instance of its own, and events for it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import msgspec

from bench.load import Server
from tests.support.instance import Instance, a_place

BRAND = "demo"
Event = dict[str, object]


@contextmanager
def a_service(**settings: str) -> Iterator[tuple[Instance, Server]]:
    """An instance on embedded parts and free ports, with these variables over the defaults."""
    with a_place() as instance:
        started = instance.crm("up", CRM_RAY__OBJECT_STORE_MB="512", **settings)
        if started.returncode:
            raise SystemExit(started.stderr)
        yield instance, server_of(instance)


def server_of(instance: Instance) -> Server:
    """Where its API listens."""
    return Server(int(instance.state()["url"].rpartition(":")[2]), instance.key())


def some_events(count: int, players: int = 20_000) -> list[Event]:
    """Bets and deposits of many players in the last minutes, with ids never used before."""
    tag, now = secrets.token_hex(4), datetime.now(UTC)
    return [
        {
            "event_id": f"{tag}-{n}",
            "type": "deposit.completed" if n % 20 == 0 else "bet.placed",
            "player_id": f"player-{n * 7919 % players}",
            "brand": BRAND,
            "occurred_at": (now - timedelta(milliseconds=n % 60_000)).isoformat(),
            "amount": f"{n % 500}.{n % 100:02d}",
            "currency": "EUR",
            "properties": {"bet_id": f"b{n}", "product": "casino", "game": "starburst"},
        }
        for n in range(count)
    ]


def posts(
    server: Server, events: Sequence[Event], size: int, path: str = "/v1/events"
) -> list[bytes]:
    """Ready requests of `size` events each."""
    parts = [events[start : start + size] for start in range(0, len(events), size)]
    return [server.post(path, msgspec.json.encode({"events": part})) for part in parts]
