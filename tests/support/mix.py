"""A seeded mix of events, as a game platform sends them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from string import ascii_lowercase
from typing import Any

from tests.support.balance import Sent

_TYPES = {  # type -> its share of a platform's traffic
    "bet.placed": 50, "bet.settled": 25, "session.started": 6, "deposit.completed": 6,
    "session.ended": 4, "deposit.failed": 3, "withdrawal.completed": 2, "bonus.granted": 2,
    "withdrawal.cancelled": 2,
}  # fmt: skip
_AMOUNTLESS = {"session.started", "session.ended"}
Body = dict[str, Any]


def now() -> datetime:
    """The real time: what a client of a real system states."""
    return datetime.now(UTC)


class Mix:
    """Bets, money and sessions of some players, from a seed; ids and players begin with `name`."""

    def __init__(
        self,
        name: str,
        seed: int = 1,
        *,
        players: Sequence[str] | int = 40,
        late: timedelta = timedelta(minutes=1),
        clock: Callable[[], datetime] = now,
        padding: int = 0,
    ) -> None:
        self.name = name
        self.rng = Random(f"{name} {seed}")
        self._players = (
            [f"{name}-p{number}" for number in range(players)]
            if isinstance(players, int)
            else players
        )
        self._late_s = int(late.total_seconds())
        self._clock = clock
        self._padding = padding
        self._made = 0

    def batch(self, size: int) -> list[Body]:
        """Return new events as JSON."""
        return [self._event() for _ in range(size)]

    def _event(self) -> Body:
        self._made += 1
        kind = self.rng.choices(list(_TYPES), list(_TYPES.values()))[0]
        # a minute old at least: a client's clock may be ahead of the service's
        age = timedelta(seconds=60 + self.rng.randint(0, self._late_s))
        properties: Body = {"product": self.rng.choice(["casino", "sports", "poker"])}
        if kind == "bet.settled":
            properties["result"] = self.rng.choice(["won", "lost"])
        if kind == "session.ended":
            properties["duration_s"] = self.rng.randint(1, 7200)
        if self._padding:
            # letters: among so many digits would be the number of a card
            properties["note"] = "".join(self.rng.choices(ascii_lowercase, k=self._padding))
        event: Body = {
            "event_id": f"{self.name}-{self._made}", "type": kind, "brand": "demo",
            "player_id": self.rng.choice(self._players), "properties": properties,
            "occurred_at": (self._clock() - age).isoformat(),
        }  # fmt: skip
        if kind not in _AMOUNTLESS:
            amount = Decimal(self.rng.randint(1, 10_000)).scaleb(-2)
            event |= {"amount": str(amount), "currency": "EUR"}
        return event


def sent(event: Body) -> Sent:
    """What the balance needs to know of an event."""
    amount = event.get("amount")
    return Sent(
        event["event_id"], event["player_id"], event["type"],
        None if amount is None else Decimal(amount),
    )  # fmt: skip
