"""Dated currency rates: what an amount of another currency is worth in a brand's own, exactly."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from crm.domain.brands import Currency
from crm.domain.errors import EventRefused

FINEST = Currency("", 8)  # what an amount of another currency may be written in
CODE = re.compile(r"[A-Z]{3,8}")


class Series(NamedTuple):
    """The rates of one currency in another, by day, ascending.

    From `days[i]` on, until the next day, one unit is worth `times[i] / per[i]` of the other
    (1 / 1.0921 is no decimal); where one of them is None there is no rate. Never empty.
    """

    days: Sequence[date]
    times: Sequence[Decimal | None]
    per: Sequence[Decimal | None]


@dataclass(frozen=True)
class Rates:
    """Series by (from, to); one direction says nothing of the other."""

    series: Mapping[tuple[str, str], Series] = field(default_factory=dict, repr=False)

    def on(self, day: date, of: str, to: str) -> Fraction | None:
        """Return what one unit of `of` was worth in `to`, None where no rate held that day."""
        series = self.series.get((of, to))
        if series is None or day < series.days[0]:
            return None
        at = bisect_right(series.days, day) - 1
        times, per = series.times[at], series.per[at]
        return None if times is None or per is None else Fraction(times) / Fraction(per)

    def needed(self, day: date, of: object, to: str) -> Fraction:
        """Return the same; raises EventRefused where no rate held."""
        if not isinstance(of, str) or not CODE.fullmatch(of):  # may be anything: not repeated
            message = f"a currency is 3 to 8 capital letters; this brand's is {to}"
            raise EventRefused("unknown_currency", message, "currency")
        rate = self.on(day, of, to)
        if rate is None:
            message = f"no rate from {of} to {to} held on {day}: add it to the file of rates"
            raise EventRefused("unknown_currency", message, "currency")
        return rate


def to_minor(units: int, rate: Fraction, currency: Currency) -> int:
    """Return FINEST units at `rate` in minor units: exact, then rounded once, half to even."""
    return round(Fraction(units * 10**currency.decimals, 10**FINEST.decimals) * rate)
