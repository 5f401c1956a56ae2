"""When something is due again: by crontab's five fields in a brand's time zone, or an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import NamedTuple

_LONGEST_DAYS = 8 * 366 + 1  # 29 February comes again within eight years
_NAMES = {
    3: ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    4: ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
}
_SHORTEST_S = 60.0


class _Field(NamedTuple):
    name: str
    least: int
    most: int


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12),
    _Field("day of the week", 0, 7),
)


@dataclass(frozen=True)
class Cron:
    """Moments by the clock on the wall; a restricted day of month or week: either will do."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # 0 is Sunday
    either: bool

    @classmethod
    def parse(cls, text: str) -> Cron:
        """Read `minute hour day month weekday`; raises ValueError, which names the field."""
        parts = text.split()
        if len(parts) != len(_FIELDS):
            raise ValueError(f"cron: five fields, such as '0 3 * * mon', not {len(parts)}")
        read = [_values(part, number) for number, part in enumerate(parts)]
        weekdays = frozenset(day % 7 for day in read[4])
        cron = cls(
            tuple(sorted(read[0])), tuple(sorted(read[1])), read[2], read[3], weekdays,
            not parts[2].startswith("*") and not parts[4].startswith("*"),
        )  # fmt: skip
        if cron.after(datetime(2024, 1, 1, tzinfo=UTC), UTC) is None:
            raise ValueError("cron: there is no such day")
        return cron

    def after(self, moment: datetime, zone: tzinfo) -> datetime | None:
        """Return the next moment after `moment`, in UTC; None if there is none.

        An hour that the clocks skip comes when they have skipped it; one that they repeat, once.
        """
        day = moment.astimezone(zone).date()
        for _ in range(_LONGEST_DAYS):
            if self._on(day):
                found = [at for at in self._of(day, zone) if at > moment]
                if found:
                    return min(found)
            day += timedelta(days=1)
        return None

    def _on(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        of_month = day.day in self.days
        of_week = day.isoweekday() % 7 in self.weekdays
        return of_month or of_week if self.either else of_month and of_week

    def _of(self, day: date, zone: tzinfo) -> list[datetime]:
        return [
            datetime.combine(day, time(hour, minute), zone).astimezone(UTC)
            for hour in self.hours
            for minute in self.minutes
        ]


def _values(text: str, number: int) -> frozenset[int]:
    field, found = _FIELDS[number], set[int]()
    for part in text.lower().split(","):
        span, slash, step = part.partition("/")
        if slash and not (step.isdecimal() and int(step) > 0):
            raise ValueError(f"cron: {field.name}: a step is a number from 1 on")
        first, dash, last = span.partition("-")
        if span == "*":
            low, high = field.least, field.most
        else:
            low = _value(first, number)
            high = _value(last, number) if dash else field.most if slash else low
        if not field.least <= low <= high <= field.most:
            raise ValueError(
                f"cron: {field.name}: {field.least} to {field.most}, in ascending order"
            )
        found.update(range(low, high + 1, int(step) if slash else 1))
    return frozenset(found)


def _value(text: str, number: int) -> int:
    names: Sequence[str] = _NAMES.get(number, ())
    if text in names:
        return names.index(text) + (1 if number == 3 else 0)  # noqa: PLR2004 - months begin with 1
    if not text.isdecimal():
        raise ValueError(f"cron: {_FIELDS[number].name}: a number, a range, a list or *")
    return int(text)


@dataclass(frozen=True)
class Schedule:
    """Either `cron` or `every_s`; raises ValueError unless it is one of them."""

    cron: str | None = None
    every_s: float | None = None

    def __post_init__(self) -> None:
        if (self.cron is None) == (self.every_s is None):
            raise ValueError("say either cron or every_s")
        if self.cron is not None:
            Cron.parse(self.cron)
        elif not self.every_s >= _SHORTEST_S:  # type: ignore[operator]  # one of the two is there
            raise ValueError(f"every_s: at least {_SHORTEST_S:.0f}")

    def after(self, moment: datetime, zone: tzinfo) -> datetime:
        """Return when it is due next, after `moment`; in UTC."""
        if self.cron is None:
            return moment + timedelta(seconds=self.every_s or 0)
        found = Cron.parse(self.cron).after(moment, zone)
        if found is None:
            raise ValueError("cron: there is no such day")
        return found
