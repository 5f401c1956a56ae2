"""The one list of features: measures (what an event adds), windows, and values derived on read.

Every stored aggregate is an exact integer and independent of the order of events (design.md 5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal["count", "money", "days", "time"]
WINDOWS = ("24h", "7d", "30d", "lifetime")
DAYS_OF_WINDOW = {"7d": 7, "30d": 30}
HOURS_OF_24H = 24


@dataclass(frozen=True)
class Measure:
    """`adds` is what one event of `event_type` (and `result`, if given) adds: 1, or its amount."""

    name: str
    event_type: str
    adds: Literal["one", "amount"]
    meaning: str
    result: str | None = None

    @property
    def unit(self) -> Unit:
        """Counts are numbers, amounts are money in minor units of the brand's currency."""
        return "count" if self.adds == "one" else "money"


MEASURES: tuple[Measure, ...] = (
    Measure("deposit_count", "deposit.completed", "one", "completed deposits"),
    Measure("deposit_amount", "deposit.completed", "amount", "money deposited"),
    Measure("failed_deposit_count", "deposit.failed", "one", "deposits that failed"),
    Measure("withdrawal_count", "withdrawal.completed", "one", "completed withdrawals"),
    Measure("withdrawal_amount", "withdrawal.completed", "amount", "money withdrawn"),
    Measure("cancelled_withdrawal_count", "withdrawal.cancelled", "one", "withdrawals cancelled"),
    Measure("bet_count", "bet.placed", "one", "bets placed"),
    Measure("stake_amount", "bet.placed", "amount", "money staked"),
    Measure("payout_amount", "bet.settled", "amount", "money paid out on settled bets"),
    Measure("win_count", "bet.settled", "one", "bets settled as won", result="won"),
    Measure("loss_count", "bet.settled", "one", "bets settled as lost", result="lost"),
    Measure("bonus_count", "bonus.granted", "one", "bonuses granted"),
    Measure("bonus_amount", "bonus.granted", "amount", "bonus money granted"),
    Measure("session_count", "session.started", "one", "sessions started"),
)
MEASURE_INDEX = {measure.name: index for index, measure in enumerate(MEASURES)}


@dataclass(frozen=True)
class Moment:
    """The first and the last time of any of `event_types` ("" stands for every type)."""

    name: str
    event_types: tuple[str, ...]


MOMENTS: tuple[Moment, ...] = (
    Moment("bet", ("bet.placed",)),
    Moment("deposit", ("deposit.completed",)),
    Moment("withdrawal", ("withdrawal.completed",)),
    Moment("session", ("session.started",)),
    Moment("registration", ("player.registered",)),
    Moment("activity", ("",)),
)


@dataclass(frozen=True)
class Difference:
    """A money feature that is one measure less others, in the same window."""

    name: str
    plus: str
    minus: tuple[str, ...]
    meaning: str


DIFFERENCES: tuple[Difference, ...] = (
    Difference("ggr_amount", "stake_amount", ("payout_amount",), "gross gaming revenue"),
    Difference(
        "ngr_amount", "stake_amount", ("payout_amount", "bonus_amount"), "net gaming revenue"
    ),
)


@dataclass(frozen=True)
class Feature:
    """One named value of a player; money is in minor units inside and a decimal string outside."""

    name: str
    unit: Unit
    meaning: str


def _features() -> dict[str, Feature]:
    """Expand the declarations above to every feature by name."""
    found: list[Feature] = []
    for window in WINDOWS:
        over = "in all" if window == "lifetime" else f"in the last {window}"
        found += [Feature(f"{m.name}_{window}", m.unit, f"{m.meaning} {over}") for m in MEASURES]
        found += [
            Feature(f"{d.name}_{window}", "money", f"{d.meaning} {over}") for d in DIFFERENCES
        ]
    for moment in MOMENTS:
        found.append(Feature(f"first_{moment.name}_at", "time", f"time of the first {moment.name}"))
        found.append(Feature(f"last_{moment.name}_at", "time", f"time of the last {moment.name}"))
        since = (
            "days_since_registration"
            if moment.name == "registration"
            else f"days_since_last_{moment.name}"
        )
        which = "first" if moment.name == "registration" else "last"
        found.append(Feature(since, "days", f"whole days since the {which} {moment.name}"))
    return {feature.name: feature for feature in found}


FEATURES: dict[str, Feature] = _features()
