"""A clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class Clock:
    """Called, it tells the time (aware UTC); `seconds` tells it as a POSIX timestamp."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def __call__(self) -> datetime:
        return self._now

    @property
    def seconds(self) -> float:
        return self._now.timestamp()

    def set(self, now: datetime) -> None:
        """Put the hands anywhere, backwards too."""
        if now.tzinfo is None:
            raise ValueError("a clock needs a time with a zone")
        self._now = now.astimezone(UTC)

    def move(
        self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
    ) -> None:
        """Move the hands by so much."""
        self._now += timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def a_clock() -> Clock:
    """A clock at an ordinary moment: Wednesday, noon, in winter time."""
    return Clock(datetime(2026, 1, 14, 12, tzinfo=UTC))
