"""The balance after a fault experiment: what was sent, what is stored, what the features say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
MEASURES = [name for pair in COUNTED.values() for name in pair if name]
Totals = Counter[str]


@dataclass(frozen=True)
class Sent:
    """One event that a client sends."""

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
    """Ids by fate; `sent` and `live` are totals by player that must be one.

    `differences` are those between all live features and their recount in SQL. Nobody knows of the
    `unknown` ids whether they are stored: their request has got no answer that says so.
    """

    acknowledged: frozenset[str]
    stored: Counter[str]
    sent: Mapping[str, Totals]
    live: Mapping[str, Totals]
    differences: Sequence[str] = ()
    unknown: frozenset[str] = frozenset()
    attempted: int = 0
    errors: int = 0
    stale_reads: int = 0  # answers that lacked what the reader knew to be acknowledged
    stale_refusals: int = 0
    recoveries_s: list[tuple[str, float]] = field(default_factory=list)  # what was hit, how long

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
        if strangers := self.stored.keys() - self.acknowledged - self.unknown:
            lines.append(f"{len(strangers)} events stored that were never acknowledged")
        wrong = [
            player
            for player in self.sent.keys() | self.live.keys()
            if +self.sent.get(player, Counter()) != +self.live.get(player, Counter())
        ]
        # what is unknown may be counted or not: there the recount alone decides
        if wrong and not self.unknown:
            lines.append(f"features of {len(wrong)} players are not what was sent")
        if self.differences:
            first = self.differences[0]
            lines.append(f"{len(self.differences)} features are not the recount's, first {first}")
        if self.stale_reads:
            lines.append(f"{self.stale_reads} answers lacked what was acknowledged before")
        return lines

    def __str__(self) -> str:
        recovered = ", ".join(f"{what} {after_s:.1f} s" for what, after_s in self.recoveries_s)
        return (
            f"attempted {self.attempted:,} · acknowledged {len(self.acknowledged):,} · "
            f"lost {self.lost} · duplicated {self.duplicated} · "
            f"refused as stale {self.stale_refusals} · failed requests tried again {self.errors} · "
            f"recovered {len(self.recoveries_s)} times: {recovered}"
        )
