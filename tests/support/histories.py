"""Hypothesis strategies for what players do: many near the edges where windows go wrong."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from crm.domain.brands import Brand
from crm.domain.events import IncomingEvent, LoggedEvent
from tests.support.builders import a_brand, a_door
from tests.support.own_measures import OWN, TAGS, VALUES

ZONES = ("UTC", "Europe/Lisbon", "America/Sao_Paulo", "America/Los_Angeles", "Australia/Lord_Howe",
         "Africa/Cairo", "America/Havana", "Asia/Kathmandu")  # fmt: skip
TYPES = (
    "bet.placed", "bet.placed", "bet.settled", "deposit.completed", "deposit.completed",
    "deposit.requested", "deposit.failed", "withdrawal.requested", "withdrawal.completed",
    "withdrawal.cancelled", "bonus.granted", "session.started", "session.ended",
    "player.registered", "player.updated", "transaction.suspicious", "custom.spin",
    *(f"message.{what}" for what in ("sent", "delivered", "opened", "clicked", "bounced",
                                     "complained", "unsubscribed")),
)  # fmt: skip
_COUNTED = {event_type for measure in OWN for event_type in measure.event_types}
_WITH_AMOUNT = {t for t in TYPES if t.split(".")[0] in {"bet", "deposit", "withdrawal", "bonus"}}
# now, near the days on which clocks change somewhere; at some hours the local day is another
ENDS = tuple(
    datetime(*day, hour, tzinfo=UTC)
    for day in ((2026, 3, 10), (2026, 3, 30), (2026, 4, 6), (2026, 4, 25), (2026, 11, 2))
    for hour in (2, 12, 23)
)
_DAYS_BACK = st.one_of(
    st.sampled_from([0, 1, 5, 6, 7, 8, 12, 13, 14, 15, 28, 29, 30, 31, 33, 34, 35, 36]),
    st.sampled_from([88, 89, 90, 91, 400]),
    st.integers(0, 60),
)
_PRODUCTS = st.sampled_from(["casino", "live", "sports", "poker", "crash", "Casino", 5, None, ...])
_METHODS = st.sampled_from(["card", "pix", "ewallet", "bank_transfer", "cheque", ["card"], ...])
_SECONDS = st.sampled_from([0, 59, 3_600, 7_200.0, 12.5, -1, 604_800, 604_801, "60", True, ...])
_AMOUNTS = st.one_of(st.integers(0, 10**6), st.integers(0, 10**13)).map(
    lambda minor: Decimal(minor).scaleb(-2)
)
_EDGES = st.sampled_from([timedelta(0), timedelta(microseconds=-1), timedelta(microseconds=1)])


@st.composite
def brands(draw: st.DrawFn) -> Brand:
    """A brand somewhere in the world, with or without measures of its own."""
    return a_brand(
        time_zone=draw(st.sampled_from(ZONES)), measures=draw(st.sampled_from([(), OWN[:1], OWN]))
    )


@cache
def _clock_changes(zone: str, end: date) -> list[date]:
    """The days of the last four months on which the clock changes; without any, the last day."""
    days = [end - timedelta(days=back) for back in range(120)]
    offsets = [datetime.combine(day, time(12), ZoneInfo(zone)).utcoffset() for day in days]
    changes = [
        day for day, now, before in zip(days, offsets, offsets[1:], strict=False) if now != before
    ]
    return changes or days[:1]


@st.composite
def moments(draw: st.DrawFn, brand: Brand, end: datetime) -> datetime:
    """A moment up to five minutes after `end`, often at the edge of a local day or an hour."""
    day = end - timedelta(days=draw(_DAYS_BACK))
    kind = draw(
        st.sampled_from(["any", "midnight", "six", "clock change", "hour", "same time", "ahead"])
    )
    if kind == "ahead":
        return end + timedelta(seconds=draw(st.integers(-300, 300)))
    if kind == "same time":
        return min(day + draw(_EDGES), end)
    if kind in {"midnight", "six"}:
        local = day.astimezone(ZoneInfo(brand.time_zone))
        hour = 0 if kind == "midnight" else 6
        local = local.replace(hour=hour, minute=0, second=0, microsecond=0)
        at = local.astimezone(UTC) + draw(_EDGES)
    elif kind == "clock change":
        changed = draw(st.sampled_from(_clock_changes(brand.time_zone, end.date())))
        six = datetime.combine(changed, time(6), ZoneInfo(brand.time_zone)).astimezone(UTC)
        at = six + timedelta(minutes=draw(st.sampled_from([-61, -60, -59, -31, -1, 0, 1, 30, 60])))
    elif kind == "hour":
        at = day.replace(hour=draw(st.integers(0, 23))) + draw(_EDGES)
    else:
        at = day - timedelta(seconds=draw(st.integers(0, 86_400)))
    return min(at, end)


@st.composite
def _properties(draw: st.DrawFn, type_: str) -> dict[str, object]:
    """What the features read of an event, well-formed or not; `...` leaves it out."""
    found: dict[str, object] = {}
    if type_ == "bet.settled":
        found["result"] = draw(st.sampled_from(["won", "lost", "void"]))
    if type_ == "bet.placed":
        found["result"] = draw(st.sampled_from([..., "won"]))  # means nothing there
    if type_.startswith("bet."):
        found["product"] = draw(_PRODUCTS)
    if type_.startswith("deposit."):
        found["method"] = draw(_METHODS)
    if type_.startswith("session."):
        found["duration_s"] = draw(_SECONDS)
    if type_ in _COUNTED:
        found |= {"x": draw(st.sampled_from(VALUES)), "tag": draw(st.sampled_from(TAGS))}
    return {name: value for name, value in found.items() if value is not ...}


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
            properties=draw(_properties(type_)),
        )
        events.append(door.accept(event, end))
    return events
