"""Hypothesis strategies for what players do: many near the edges where windows go wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from crm.domain.brands import Brand
from crm.domain.events import IncomingEvent, LoggedEvent
from tests.support.builders import a_brand, a_door

ZONES = ("UTC", "Europe/Lisbon", "America/Sao_Paulo", "America/Los_Angeles", "Australia/Lord_Howe",
         "Africa/Cairo", "America/Havana", "Asia/Kathmandu")  # fmt: skip
TYPES = (
    "bet.placed", "bet.settled", "deposit.completed", "deposit.failed", "withdrawal.completed",
    "withdrawal.cancelled", "bonus.granted", "session.started", "session.ended",
    "player.registered", "custom.spin",
)  # fmt: skip
_WITH_AMOUNT = {t for t in TYPES if t.split(".")[0] in {"bet", "deposit", "withdrawal", "bonus"}}
# now, and the days around it on which clocks change somewhere
ENDS = tuple(
    datetime(*day, 12, tzinfo=UTC)
    for day in ((2026, 3, 10), (2026, 3, 30), (2026, 4, 6), (2026, 4, 25), (2026, 11, 2))
)
_DAYS_BACK = st.one_of(
    st.sampled_from([0, 1, 5, 6, 7, 8, 28, 29, 30, 31, 32, 89, 90, 400]), st.integers(0, 60)
)
_AMOUNTS = st.integers(0, 10**9).map(lambda minor: Decimal(minor).scaleb(-2))
_EDGES = st.sampled_from([timedelta(0), timedelta(microseconds=-1), timedelta(microseconds=1)])


@st.composite
def brands(draw: st.DrawFn) -> Brand:
    """A brand somewhere in the world."""
    return a_brand(time_zone=draw(st.sampled_from(ZONES)))


@st.composite
def moments(draw: st.DrawFn, brand: Brand, end: datetime) -> datetime:
    """A moment up to five minutes after `end`, often at the edge of a local day or an hour."""
    day = end - timedelta(days=draw(_DAYS_BACK))
    kind = draw(st.sampled_from(["any", "midnight", "hour", "same time", "ahead"]))
    if kind == "ahead":
        return end + timedelta(seconds=draw(st.integers(-300, 300)))
    if kind == "same time":
        return min(day + draw(_EDGES), end)
    if kind == "midnight":
        local = day.astimezone(ZoneInfo(brand.time_zone))
        at = local.replace(hour=0, minute=0, second=0, microsecond=0).astimezone(UTC) + draw(_EDGES)
    elif kind == "hour":
        at = day.replace(hour=draw(st.integers(0, 23))) + draw(_EDGES)
    else:
        at = day - timedelta(seconds=draw(st.integers(0, 86_400)))
    return min(at, end)


@st.composite
def histories(
    draw: st.DrawFn, brand: Brand, end: datetime, max_size: int = 40
) -> list[LoggedEvent]:
    """Accepted events of a few players, each id once."""
    door = a_door(brand)
    events = []
    for number in range(draw(st.integers(0, max_size))):
        type_ = draw(st.sampled_from(TYPES))
        event = IncomingEvent(
            event_id=f"e{number}",
            type=type_,
            player_id=f"p{draw(st.integers(0, 4))}",
            brand=brand.id,
            occurred_at=draw(moments(brand, end)),
            amount=draw(_AMOUNTS) if type_ in _WITH_AMOUNT else None,
            properties={"result": draw(st.sampled_from(["won", "lost", "void"]))}
            if type_ == "bet.settled"
            else None,
        )
        events.append(door.accept(event, end))
    return events
