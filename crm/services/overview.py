"""The dashboard's numbers: what all players of a brand did, by day and by week."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import msgspec

from crm.domain.brands import Brand
from crm.domain.day_totals import Days, DayTotals, check
from crm.domain.feature_table import days_held
from crm.domain.ports import AnswerCache, FeatureShards

KEEP_S = 15.0  # an answer may be so old
USUAL_DAYS = 30


class Figures(msgspec.Struct, kw_only=True):
    """What all players did together; amounts are decimal strings in the brand's currency.

    `active_players` acted themselves at least once (registered, began or ended a session, asked
    for, made or lost a deposit or withdrawal, placed a bet, opened or clicked a message): each is
    counted once, over a week too. `new_players` acted for the first time ever. `churned_players`
    have been away for 30 days: they acted 30 days before the day, and on no day since, the day
    itself included, so that each churns once an absence. ggr = stakes - payouts; ngr = ggr -
    bonuses.
    """

    active_players: int
    new_players: int
    churned_players: int
    deposit_count: int
    deposit_amount: str
    withdrawal_count: int
    withdrawal_amount: str
    bet_count: int
    stake_amount: str
    payout_amount: str
    bonus_amount: str
    ggr_amount: str
    ngr_amount: str


class Day(Figures, kw_only=True):
    """One local day of the brand; today's is as far as it has come."""

    date: date


class Period(Figures, kw_only=True):
    """The days `from` to `to`, both among them."""

    first: date = msgspec.field(name="from")
    last: date = msgspec.field(name="to")


class Overview(msgspec.Struct):
    """The numbers of a brand's days `from` to `to`, exact at `as_of`, which may be 15 s ago.

    By day, by week (Monday to Sunday, cut where the range is), and of all days (`total`).
    """

    brand: str
    currency: str
    time_zone: str
    as_of: datetime
    first: date = msgspec.field(name="from")
    last: date = msgspec.field(name="to")
    days: list[Day]
    weeks: list[Period]
    total: Period


class Overviews:
    """Answers from the owners, or from the cache if it has an answer that is new enough."""

    def __init__(
        self, shards: FeatureShards, cache: AnswerCache, now: Callable[[], datetime]
    ) -> None:
        self._shards = shards
        self._cache = cache
        self._now = now

    async def read(self, brand: Brand, first: date | None, last: date | None) -> bytes:
        """Return an Overview as JSON; without days, of the last 30, today included.

        Raises InvalidRange, ShardsWarming.
        """
        today = brand.local_day(self._now())
        last = last or today
        first = first or last - timedelta(days=min(USUAL_DAYS, last.toordinal()) - 1)
        check(Days(first.toordinal(), last.toordinal()), days_held(today.toordinal()))
        key = f"overview:1:{brand.id}:{first}:{last}"
        found = await self._cache.get(key)
        if found is None:
            found = msgspec.json.encode(await overview(self._shards, brand, first, last))
            await self._cache.put(key, found, KEEP_S)
        return found


async def overview(shards: FeatureShards, brand: Brand, first: date, last: date) -> Overview:
    """Return the numbers of some days, live; raises InvalidRange, ShardsWarming."""
    asked = Days(first.toordinal(), last.toordinal())
    days, weeks = [Days(day, day) for day in asked.days], _weeks(asked)
    spans = [*days, *weeks, asked]
    as_of, totals = await shards.day_totals(brand.id, asked, spans)
    figures = [
        _figures(brand, totals, slice(span.first - asked.first, span.end - asked.first), active)
        for span, active in zip(spans, totals.active, strict=True)
    ]
    periods = [
        Period(first=date.fromordinal(span.first), last=date.fromordinal(span.last), **of_span)
        for span, of_span in zip(spans, figures, strict=True)
    ]
    return Overview(
        brand=brand.id,
        currency=brand.currency.code,
        time_zone=brand.time_zone,
        as_of=as_of,
        first=first,
        last=last,
        days=[
            Day(date=date.fromordinal(span.first), **of_day)
            for span, of_day in zip(days, figures, strict=False)
        ],
        weeks=periods[len(days) : -1],
        total=periods[-1],
    )


def _figures(brand: Brand, totals: DayTotals, days: slice, active: int) -> dict[str, Any]:
    sums = {name: sum(by_day[days]) for name, by_day in totals.sums.items()}
    ggr = sums["stake_amount"] - sums["payout_amount"]
    amounts = {name: minor for name, minor in sums.items() if name.endswith("_amount")}
    amounts |= {"ggr_amount": ggr, "ngr_amount": ggr - sums["bonus_amount"]}
    return {
        "active_players": active,
        "new_players": sum(totals.new[days]),
        "churned_players": sum(totals.churned[days]),
        **{name: count for name, count in sums.items() if name not in amounts},
        **{name: brand.currency.to_major(minor) for name, minor in amounts.items()},
    }


def _weeks(asked: Days) -> list[Days]:
    """Return the weeks that a range touches, cut where it is."""
    monday = asked.first - (asked.first - 1) % 7  # ordinal 1 is a Monday
    return [
        Days(max(start, asked.first), min(start + 6, asked.last))
        for start in range(monday, asked.last + 1, 7)
    ]
