"""The dashboard's numbers by definition, in plain Python, and by hand-written SQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta

import asyncpg

from crm.domain.brands import Brand
from crm.domain.events import LoggedEvent
from tests.support.brute_force import OWN_ACTS

Numbers = dict[str, int]
SUMS = {
    "deposit_amount": "deposit.completed",
    "withdrawal_amount": "withdrawal.completed",
    "stake_amount": "bet.placed",
    "payout_amount": "bet.settled",
    "bonus_amount": "bonus.granted",
}
COUNTS = {
    "deposit_count": "deposit.completed",
    "withdrawal_count": "withdrawal.completed",
    "bet_count": "bet.placed",
}
_AWAY = timedelta(days=30)
_DAY = timedelta(days=1)


def by_definition(
    events: Sequence[LoggedEvent], as_of: datetime, first: date, last: date
) -> Numbers:
    """What all players did in some days, event by event; amounts in minor units."""
    past = [event for event in events if event.occurred_at <= as_of]
    inside = [event for event in past if first <= event.local_day <= last]
    acts: dict[str, list[LoggedEvent]] = {}
    for event in past:
        if event.type in OWN_ACTS:
            acts.setdefault(event.player_id, []).append(event)
    found = {
        name: sum(event.amount_minor or 0 for event in inside if event.type == type_)
        for name, type_ in SUMS.items()
    }
    found |= {name: sum(event.type == type_ for event in inside) for name, type_ in COUNTS.items()}
    begun = [min(of, key=lambda event: event.occurred_at).local_day for of in acts.values()]
    days = [{event.local_day for event in of} for of in acts.values()]
    return found | {
        "active_players": sum(any(first <= day <= last for day in of) for of in days),
        "new_players": sum(first <= day <= last for day in begun),
        "churned_players": sum(_absences(of, first, last) for of in days),
    }


def _absences(active: set[date], first: date, last: date) -> int:
    """How often a player had been away for 30 days just on one of some days."""
    found, day = 0, first
    while day <= last:
        since = {day - timedelta(days=back) for back in range(30)}
        found += day - _AWAY in active and not since & active
        day += _DAY
    return found


_SQL = """
WITH events AS (
    SELECT player_id, type, occurred_at, local_day, coalesce(amount_minor, 0) AS amount,
           type IN ('player.registered', 'session.started', 'session.ended', 'deposit.requested',
                    'deposit.completed', 'deposit.failed', 'withdrawal.requested',
                    'withdrawal.completed', 'withdrawal.cancelled', 'bet.placed', 'message.opened',
                    'message.clicked') AS own
    FROM (SELECT * FROM user_transactions UNION ALL SELECT * FROM user_sessions) AS stored
    WHERE brand = $1::text AND occurred_at <= $2::timestamptz
), active AS (
    SELECT DISTINCT player_id, local_day AS day FROM events WHERE own
), first_acts AS (
    SELECT (min(occurred_at) AT TIME ZONE $3::text)::date AS day
    FROM events WHERE own GROUP BY player_id
), absences AS (
    SELECT day + 30 AS day
    FROM (SELECT player_id, day, lead(day) OVER (PARTITION BY player_id ORDER BY day) AS next
          FROM active) AS followed
    WHERE next IS NULL OR next > day + 30
)
SELECT coalesce(sum(amount) FILTER (WHERE type = 'deposit.completed'), 0)::bigint AS deposit_amount,
       coalesce(sum(amount) FILTER (WHERE type = 'withdrawal.completed'), 0)::bigint
           AS withdrawal_amount,
       coalesce(sum(amount) FILTER (WHERE type = 'bet.placed'), 0)::bigint AS stake_amount,
       coalesce(sum(amount) FILTER (WHERE type = 'bet.settled'), 0)::bigint AS payout_amount,
       coalesce(sum(amount) FILTER (WHERE type = 'bonus.granted'), 0)::bigint AS bonus_amount,
       count(*) FILTER (WHERE type = 'deposit.completed') AS deposit_count,
       count(*) FILTER (WHERE type = 'withdrawal.completed') AS withdrawal_count,
       count(*) FILTER (WHERE type = 'bet.placed') AS bet_count,
       (SELECT count(DISTINCT player_id) FROM active WHERE day BETWEEN $4::date AND $5::date)
           AS active_players,
       (SELECT count(*) FROM first_acts WHERE day BETWEEN $4 AND $5) AS new_players,
       (SELECT count(*) FROM absences WHERE day BETWEEN $4 AND $5) AS churned_players
FROM events WHERE local_day BETWEEN $4 AND $5
"""


async def by_sql(dsn: str, brand: Brand, as_of: datetime, first: date, last: date) -> Numbers:
    """The same by SQL over the raw tables."""
    connection = await asyncpg.connect(dsn)
    try:
        row = await connection.fetchrow(_SQL, brand.id, as_of, brand.time_zone, first, last)
        assert row is not None
        return dict(row)
    finally:
        await connection.close()


def in_minor_units(figures: dict[str, object], brand: Brand) -> Numbers:
    """A day, a week or the total of an answer, as the others give it; ggr and ngr are checked."""
    found = {}
    for name, value in figures.items():
        if name.endswith("_amount"):
            whole, _, rest = str(value).partition(".")
            assert len(rest) == brand.currency.decimals
            found[name] = int(whole + rest)
        elif name.endswith(("_count", "_players")):
            assert isinstance(value, int)
            found[name] = value
    assert found["ggr_amount"] == found["stake_amount"] - found["payout_amount"]
    assert found.pop("ngr_amount") == found.pop("ggr_amount") - found["bonus_amount"]
    return found
