"""The balance after a fault experiment: what was sent, what is stored, what the features count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

COUNTED = {  # type (and result) -> the count and the sum that it moves
    "bet.placed": ("bet_count", "stake_amount"),
    "bet.settled": (None, "payout_amount"),
    "deposit.completed": ("deposit_count", "deposit_amount"),
    "deposit.failed": ("failed_deposit_count", None),
    "withdrawal.completed": ("withdrawal_count", "withdrawal_amount"),
    "withdrawal.cancelled": ("cancelled_withdrawal_count", None),
    "bonus.granted": ("bonus_count", "bonus_amount"),
    "session.started": ("session_count", None),
}
Totals = Counter[str]


@dataclass(frozen=True)
class Sent:
    """One event that the system has acknowledged."""

    event_id: str
    player_id: str
    type: str
    amount: Decimal | None


def totals_of(events: Iterable[Sent]) -> dict[str, Totals]:
    """Lifetime counts, and sums in minor units, by player."""
    totals: dict[str, Totals] = {}
    for event in events:
        of_player = totals.setdefault(event.player_id, Counter())
        count, amount = COUNTED.get(event.type, (None, None))
        if count:
            of_player[count] += 1
        if amount:
            of_player[amount] += int((event.amount or Decimal(0)) * 100)
    return totals


@dataclass(frozen=True)
class Balance:
    """Ids by fate; `sent`, `live` and `recounted` are totals by player that must be one."""

    acknowledged: frozenset[str]
    stored: Counter[str]
    sent: Mapping[str, Totals]
    live: Mapping[str, Totals]
    recounted: Mapping[str, Totals]
    attempted: int = 0
    errors: int = 0
    stale_refusals: int = 0
    recoveries_s: list[tuple[str, float]] = field(default_factory=list)  # what was killed, how long

    @property
    def lost(self) -> int:
        """Acknowledged events that are not stored."""
        return len(self.acknowledged - self.stored.keys())

    @property
    def duplicated(self) -> int:
        """Rows beyond the first of an id."""
        return sum(self.stored.values()) - len(self.stored)

    def faults(self) -> list[str]:
        """Every broken law, as a line; none is the goal."""
        lines = [f"{self.lost} acknowledged events lost"] if self.lost else []
        lines += [f"{self.duplicated} events stored twice"] if self.duplicated else []
        if unknown := self.stored.keys() - self.acknowledged:
            lines.append(f"{len(unknown)} events stored that were never acknowledged")
        for name, found in (("features", self.live), ("recount", self.recounted)):
            wrong = [
                player
                for player in self.sent.keys() | found.keys()
                if +self.sent.get(player, Counter()) != +found.get(player, Counter())
            ]
            lines += [f"{name} of {len(wrong)} players are not what was sent"] if wrong else []
        return lines

    def __str__(self) -> str:
        recovered = ", ".join(f"{what} {after_s:.1f} s" for what, after_s in self.recoveries_s)
        return (
            f"attempted {self.attempted:,} · acknowledged {len(self.acknowledged):,} · "
            f"lost {self.lost} · duplicated {self.duplicated} · "
            f"refused as stale {self.stale_refusals} · failed requests tried again {self.errors} · "
            f"recovered {len(self.recoveries_s)} times: {recovered}"
        )
