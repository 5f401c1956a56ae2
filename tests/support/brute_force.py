"""Features by definition, in plain Python, event by event: slow, and hard to get wrong."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from crm.domain.brands import Brand
from crm.domain.events import LoggedEvent
from crm.domain.feature_table import to_us

_WINDOW_DAYS = {"7d": 7, "30d": 30}
_ONES = {
    "deposit_count": ("deposit.completed", None),
    "failed_deposit_count": ("deposit.failed", None),
    "withdrawal_count": ("withdrawal.completed", None),
    "cancelled_withdrawal_count": ("withdrawal.cancelled", None),
    "bet_count": ("bet.placed", None),
    "win_count": ("bet.settled", "won"),
    "loss_count": ("bet.settled", "lost"),
    "bonus_count": ("bonus.granted", None),
    "session_count": ("session.started", None),
}
_SUMS = {
    "deposit_amount": "deposit.completed",
    "withdrawal_amount": "withdrawal.completed",
    "stake_amount": "bet.placed",
    "payout_amount": "bet.settled",
    "bonus_amount": "bonus.granted",
}
_TIMES = {
    "bet": "bet.placed",
    "deposit": "deposit.completed",
    "withdrawal": "withdrawal.completed",
    "session": "session.started",
    "registration": "player.registered",
    "activity": None,
}


def features_of(
    events: Iterable[LoggedEvent], brand: Brand, as_of: datetime
) -> dict[str, int | None]:
    """Every feature of one player, as raw integers, from all of his events."""
    past = [event for event in events if event.occurred_at <= as_of]
    values: dict[str, int | None] = {}
    for window in ("24h", "7d", "30d", "lifetime"):
        inside = [event for event in past if _is_inside(event, window, brand, as_of)]
        for name, (kind, result) in _ONES.items():
            values[f"{name}_{window}"] = sum(
                1 for e in inside if e.type == kind and result in (None, e.result)
            )
        for name, kind in _SUMS.items():
            values[f"{name}_{window}"] = sum(e.amount_minor or 0 for e in inside if e.type == kind)
        ggr = sum(_ggr(event) for event in inside)
        values[f"ggr_amount_{window}"] = ggr
        values[f"ngr_amount_{window}"] = ggr - (values[f"bonus_amount_{window}"] or 0)
    for name, kind_or_all in _TIMES.items():
        times = [e.occurred_at for e in past if kind_or_all in (None, e.type)]
        values[f"first_{name}_at"] = to_us(min(times)) if times else None
        values[f"last_{name}_at"] = to_us(max(times)) if times else None
        start = (min if name == "registration" else max)(times) if times else None
        since = "days_since_registration" if name == "registration" else f"days_since_last_{name}"
        values[since] = None if start is None else (as_of - start) // timedelta(days=1)
    return values


def _is_inside(event: LoggedEvent, window: str, brand: Brand, as_of: datetime) -> bool:
    if window == "lifetime":
        return True
    if window == "24h":
        hour = as_of.replace(minute=0, second=0, microsecond=0)
        return event.occurred_at >= hour - timedelta(hours=23)
    days = brand.local_day(as_of) - event.local_day
    return days < timedelta(days=_WINDOW_DAYS[window])


def _ggr(event: LoggedEvent) -> int:
    amount = event.amount_minor or 0
    return amount if event.type == "bet.placed" else -amount if event.type == "bet.settled" else 0
