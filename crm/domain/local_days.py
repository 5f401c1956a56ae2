"""Local days as ordinals: when each of them begins."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from functools import lru_cache
from zoneinfo import ZoneInfo

from crm.domain.times import to_us


@lru_cache(maxsize=8192)
def start_us(day: int, zone: ZoneInfo) -> int:
    """Return the first instant of a local day, in microseconds since 1970.

    Where the clocks skip midnight it is when they do; where midnight comes twice, the first time.
    """
    return to_us(datetime.combine(date.fromordinal(day), time(), zone).astimezone(UTC))


def end_us(day: int, zone: ZoneInfo) -> int:
    """Return the last microsecond of a local day."""
    return start_us(day + 1, zone) - 1
