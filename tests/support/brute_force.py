"""Features by definition, in plain Python, event by event: slow, and hard to get wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from math import floor
from typing import Any
from zoneinfo import ZoneInfo

from crm.domain.brands import Brand
from crm.domain.events import LoggedEvent
from crm.domain.own_measures import OwnMeasure
from crm.domain.times import to_us

_WINDOW_DAYS = {"7d": 7, "14d": 14, "30d": 30, "35d": 35, "90d": 90}
_SHOWN = ("24h", "7d", "30d", "90d", "lifetime")
_PRODUCTS = ("casino", "live", "sports", "poker", "crash")
_METHODS = ("card", "bank_transfer", "pix", "ewallet", "voucher", "crypto", "cash")
_COUNTS = {
    "deposit_count": "deposit.completed",
    "failed_deposit_count": "deposit.failed",
    "withdrawal_count": "withdrawal.completed",
    "cancelled_withdrawal_count": "withdrawal.cancelled",
    "bet_count": "bet.placed",
    "bonus_count": "bonus.granted",
    "session_count": "session.started",
    **{
        f"message_{what}_count": f"message.{what}"
        for what in (
            "sent", "delivered", "opened", "clicked", "bounced", "complained", "unsubscribed",
        )
    },
}  # fmt: skip
_SUMS = {
    "deposit_amount": "deposit.completed",
    "withdrawal_amount": "withdrawal.completed",
    "stake_amount": "bet.placed",
    "payout_amount": "bet.settled",
    "bonus_amount": "bonus.granted",
}
OWN_ACTS = {
    "player.registered", "session.started", "session.ended", "deposit.requested",
    "deposit.completed", "deposit.failed", "withdrawal.requested", "withdrawal.completed",
    "withdrawal.cancelled", "bet.placed", "message.opened", "message.clicked",
}  # fmt: skip
_TIMES = {
    "bet": {"bet.placed"},
    "deposit": {"deposit.completed"},
    "withdrawal": {"withdrawal.completed"},
    "session": {"session.started"},
    "registration": {"player.registered"},
    "activity": OWN_ACTS,
}
Totals = dict[str, int]
Values = dict[str, int | None]


def features_of(events: Iterable[LoggedEvent], brand: Brand, as_of: datetime) -> Values:
    """Every feature of one player, as raw integers, from all of his events."""
    past = [event for event in events if event.occurred_at <= as_of]
    totals = {
        window: _totals([e for e in past if _is_inside(e, window, brand, as_of)], brand)
        for window in (*_SHOWN, "14d", "35d")
    }
    values: Values = {}
    for window in _SHOWN:
        found = {**totals[window], **_derived(totals[window])}
        found |= _own([e for e in past if _is_inside(e, window, brand, as_of)], brand)
        if window == "24h":
            found = {
                name: value
                for name, value in found.items()
                if not name.endswith(("_days", "deposits_per_deposit_day"))
            }
        values |= {f"{name}_{window}": value for name, value in found.items()}
    return values | _trends(totals) | _times(past, as_of)


def over_days(
    events: Iterable[LoggedEvent], brand: Brand, as_of: datetime, first: date, last: date
) -> Values:
    """Every value with windows, by its name without one, over some local days of one player."""
    inside = [e for e in events if e.occurred_at <= as_of and first <= e.local_day <= last]
    totals = _totals(inside, brand)
    return {**totals, **_derived(totals), **_own(inside, brand)}


def _totals(inside: Sequence[LoggedEvent], brand: Brand) -> Totals:
    def count(which: Callable[[LoggedEvent], bool]) -> int:
        return sum(1 for event in inside if which(event))

    def days(types: set[str]) -> int:
        return len({event.local_day for event in inside if event.type in types})

    def bets(which: Callable[[LoggedEvent], bool]) -> int:
        return count(lambda e: e.type == "bet.placed" and which(e))

    found = {
        name: sum(1 for event in inside if event.type == kind) for name, kind in _COUNTS.items()
    }
    found |= {
        name: sum(event.amount_minor or 0 for event in inside if event.type == kind)
        for name, kind in _SUMS.items()
    }
    found |= {
        "event_count": len(inside),
        "win_count": count(lambda e: e.type == "bet.settled" and e.result == "won"),
        "loss_count": count(lambda e: e.type == "bet.settled" and e.result == "lost"),
        "session_seconds": sum(_seconds(e) for e in inside if e.type == "session.ended"),
        "active_days": days(OWN_ACTS),
        "deposit_days": days({"deposit.completed"}),
        "bet_days": days({"bet.placed"}),
        "night_bet_count": bets(lambda e: _at_night(e, brand)),
        "weekend_bet_count": bets(lambda e: e.local_day.weekday() >= 5),
        "night_deposit_count": count(
            lambda e: e.type == "deposit.completed" and _at_night(e, brand)
        ),
    }
    for product in (*_PRODUCTS, "other"):
        of = [e for e in inside if _named(e, "product", _PRODUCTS) == product]
        staked = sum(e.amount_minor or 0 for e in of if e.type == "bet.placed")
        paid = sum(e.amount_minor or 0 for e in of if e.type == "bet.settled")
        found[f"{product}_bet_count"] = sum(1 for e in of if e.type == "bet.placed")
        found[f"{product}_stake_amount"], found[f"{product}_payout_amount"] = staked, paid
        found[f"{product}_ggr_amount"] = staked - paid
    for method in (*_METHODS, "other"):
        by = [e for e in inside if _named(e, "method", _METHODS) == method]
        found[f"{method}_deposit_count"] = sum(1 for e in by if e.type == "deposit.completed")
    return found


def _own(inside: Sequence[LoggedEvent], brand: Brand) -> Values:
    """What the brand's own measures come to."""
    found: Values = {}
    for measure in brand.measures:
        values = [(e, _added(measure, e)) for e in inside if e.type in measure.event_types]
        counted = [(event, value) for event, value in values if value is not None]
        total = sum(value for _, value in counted)
        match measure.aggregate:
            case "count":
                found[f"{measure.name}_count"] = len(counted)
            case "sum":
                found[f"{measure.name}_sum"] = total
            case "mean":
                found[f"mean_{measure.name}"] = _ratio(total, len(counted))
            case "days":
                found[f"{measure.name}_days"] = len({event.local_day for event, _ in counted})
    return found


def _added(measure: OwnMeasure, event: LoggedEvent) -> int | None:
    """What one event adds: exact fractions, rounded half away from zero."""
    properties = _fractions(event.properties)
    for name, allowed in measure.where:
        stated = properties.get(name)
        wanted = [_fractions(value) for value in allowed]
        if not any(type(one) is type(stated) and one == stated for one in wanted):
            return None
    if measure.property_name is None:
        return 1
    value = properties.get(measure.property_name)
    if not isinstance(value, Fraction):
        return None
    size = floor(abs(value) * 10**measure.decimals + Fraction(1, 2))
    return None if size > 10**15 else size if value > 0 else -size


def _fractions(text: str) -> Any:
    """JSON with exact numbers."""
    return json.loads(text, parse_float=Fraction, parse_int=Fraction)


def _derived(of: Totals) -> Values:
    """What is made of the totals of one window."""
    ggr = of["stake_amount"] - of["payout_amount"]
    return {
        "ggr_amount": ggr,
        "ngr_amount": ggr - of["bonus_amount"],
        "net_deposit_amount": of["deposit_amount"] - of["withdrawal_amount"],
        "mean_deposit_amount": _ratio(of["deposit_amount"], of["deposit_count"]),
        "mean_stake_amount": _ratio(of["stake_amount"], of["bet_count"]),
        "mean_session_seconds": _ratio(of["session_seconds"], of["session_count"]),
        "win_share": _share(of["win_count"], of["win_count"] + of["loss_count"]),
        "weekend_bet_share": _share(of["weekend_bet_count"], of["bet_count"]),
        "bonus_share": _share(of["bonus_amount"], of["deposit_amount"]),
        "message_open_share": _share(of["message_opened_count"], of["message_delivered_count"]),
        "message_click_share": _share(of["message_clicked_count"], of["message_delivered_count"]),
        "night_bet_share": _share(of["night_bet_count"], of["bet_count"]),
        "failed_deposit_share": _share(
            of["failed_deposit_count"], of["deposit_count"] + of["failed_deposit_count"]
        ),
        "cancelled_withdrawal_share": _share(
            of["cancelled_withdrawal_count"],
            of["withdrawal_count"] + of["cancelled_withdrawal_count"],
        ),
        "deposits_per_deposit_day": _share(of["deposit_count"], of["deposit_days"]),
        "payment_method_count": sum(
            of[f"{method}_deposit_count"] > 0 for method in (*_METHODS, "other")
        ),
        "product_count": sum(of[f"{product}_bet_count"] > 0 for product in (*_PRODUCTS, "other")),
    }


def _trends(totals: dict[str, Totals]) -> Values:
    week, two, five = totals["7d"], totals["14d"], totals["35d"]
    found: Values = {}
    for name in ("deposit_amount", "stake_amount", "bet_count", "session_count"):
        found[f"{name}_trend_7d"] = _share(week[name], two[name] - week[name])
    for name in (
        "deposit_count", "deposit_amount", "stake_amount", "session_count", "night_bet_count",
    ):  # fmt: skip
        found[f"{name}_rise_7d"] = _share(4 * week[name], five[name] - week[name])
    return found


def _times(past: Sequence[LoggedEvent], as_of: datetime) -> Values:
    values: Values = {}
    for name, types in _TIMES.items():
        times = [e.occurred_at for e in past if e.type in types]
        values[f"first_{name}_at"] = to_us(min(times)) if times else None
        values[f"last_{name}_at"] = to_us(max(times)) if times else None
        start = (min if name == "registration" else max)(times) if times else None
        since = "days_since_registration" if name == "registration" else f"days_since_last_{name}"
        values[since] = None if start is None else (as_of - start) // timedelta(days=1)
    return values


def _ratio(top: int, bottom: int, scale: int = 1) -> int | None:
    return None if bottom == 0 else round(min(float(top) / float(bottom) * scale, 1e15))


def _share(top: int, bottom: int) -> int | None:
    return _ratio(top, bottom, 1_000_000)


def _is_inside(event: LoggedEvent, window: str, brand: Brand, as_of: datetime) -> bool:
    if window == "lifetime":
        return True
    if window == "24h":
        hour = as_of.replace(minute=0, second=0, microsecond=0)
        return event.occurred_at >= hour - timedelta(hours=23)
    days = brand.local_day(as_of) - event.local_day
    return days < timedelta(days=_WINDOW_DAYS[window])


def _at_night(event: LoggedEvent, brand: Brand) -> bool:
    ends = datetime.combine(event.local_day, time(6), ZoneInfo(brand.time_zone))
    return event.occurred_at < ends.astimezone(UTC)


def _named(event: LoggedEvent, name: str, known: Sequence[str]) -> str:
    value = json.loads(event.properties).get(name)
    return value if value in known else "other"


def _seconds(event: LoggedEvent) -> int:
    value = json.loads(event.properties).get("duration_s", 0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 <= value <= 604_800 and value == int(value) else 0
