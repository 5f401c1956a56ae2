"""When simulated players play, what they bet on, and how it ends."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from crm.domain.brands import Brand
from pipelines.simulated_players import (
    DAY_US,
    HOUR_US,
    SECOND_US,
    Flags,
    Floats,
    Ints,
    Players,
    Simulation,
)

MAX_STAKE = 20_000  # major units
_MAX_ODDS = 200.0
_LEAD_US = 15 * SECOND_US  # from a session's start to its first bet: time to deposit
_BY_WEEKDAY = np.array([0.85, 0.85, 0.9, 0.95, 1.2, 1.35, 1.25])  # Monday first
_BY_HOUR = np.array(
    [4, 3, 2, 1, 1, 1, 1, 2, 3, 3, 4, 4, 5, 5, 4, 4, 5, 6, 7, 9, 11, 12, 10, 7], dtype=float
)


@dataclass(frozen=True)
class Product:
    """The house keeps `margin` of a stake; odds are 1 + lognormal(log `odds`, `tail`)."""

    margin: float
    odds: float
    tail: float
    pace_s: float
    settles_s: float
    stake_factor: float
    games: int


PRODUCTS = {
    "casino": Product(0.045, 2.0, 0.9, 9.0, 2.0, 0.5, 40),
    "live": Product(0.025, 1.0, 0.25, 45.0, 25.0, 2.0, 12),
    "sports": Product(0.065, 1.3, 0.7, 120.0, 14_400.0, 1.5, 300),
    "poker": Product(0.050, 1.0, 0.3, 90.0, 60.0, 1.2, 6),
    "crash": Product(0.010, 0.9, 0.8, 16.0, 7.0, 0.8, 1),
}


def product_names(brand: Brand) -> tuple[str, ...]:
    """Return the brand's products; a brand that names none has casino."""
    return brand.products or ("casino",)


@dataclass(frozen=True)
class Sessions:
    """Columns over the sessions, by player and then by start; no two of a player overlap."""

    player: Ints
    start: Ints
    end: Ints


@dataclass(frozen=True)
class Bets:
    """Columns over the bets, by session and then by time; money in minor units.

    `outcome` is 0 lost, 1 won, 2 void.
    """

    session: Ints
    player: Ints
    placed: Ints
    settled: Ints
    product: Ints
    game: Ints
    stake: Ints
    payout: Ints
    outcome: Ints


def draw_play(plan: Simulation, who: Players, rng: np.random.Generator) -> tuple[Sessions, Bets]:
    """Draw every session and bet; some reach beyond the plan's end and are cut by the caller."""
    player, start = _session_starts(plan, who, rng)
    wanted = who.bets_a_session[player]
    if plan.groups:
        count = np.maximum(_rounded(wanted, rng), 1)
    else:
        count = 1 + rng.poisson(wanted * rng.lognormal(-0.2, 0.6, len(player)))
    product = _session_products(plan.brand, who, player, rng)
    table = [PRODUCTS.get(name, PRODUCTS["casino"]) for name in product_names(plan.brand)]
    pace = np.array([p.pace_s for p in table])[product]

    bet_session = np.repeat(np.arange(len(player)), count)
    gaps = pace[bet_session] * rng.lognormal(0.0, 0.5, len(bet_session)) + 1.0
    since = _cumulative_within((gaps * SECOND_US).astype(np.int64), count)
    placed = start[bet_session] + _LEAD_US + since
    last = np.cumsum(count) - 1
    end = placed[last] + (rng.exponential(90.0, len(player)) * SECOND_US).astype(np.int64) + 1

    kept = ~_overlapping(player, start, end)
    number = np.cumsum(kept) - 1
    of_kept = kept[bet_session]
    sessions = Sessions(player[kept], start[kept], end[kept])
    bet_session = number[bet_session[of_kept]]
    bet_product = np.repeat(product, count)[of_kept]
    return sessions, _settle(
        plan, who, sessions, bet_session, placed[of_kept], bet_product, table, rng
    )


def _session_starts(plan: Simulation, who: Players, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Return player and start of sessions: one soon after joining, others by weekday and hour."""
    playing = np.flatnonzero(~who.bounced)
    wanted = who.sessions_a_day * (who.left - who.registered) / DAY_US
    count = _rounded(wanted - 1, rng) if plan.groups else rng.poisson(wanted)
    count[who.bounced] = 0
    player = np.repeat(np.arange(len(who)), count)
    share = rng.random(len(player))
    start = np.empty(len(player), np.int64)
    for at_night in (False, True):
        hours, weight = _calendar(plan, at_night=at_night)
        chosen = who.night[player] == at_night
        low = np.interp(who.registered[player[chosen]], hours, weight)
        high = np.interp(who.left[player[chosen]], hours, weight)
        at = np.interp(low + share[chosen] * (high - low), weight, hours)
        start[chosen] = at.astype(np.int64)
    soon = who.registered[playing] + (
        rng.lognormal(1.5, 1.2, len(playing)) * 60 * SECOND_US
    ).astype(np.int64)
    player, start = np.concatenate([playing, player]), np.concatenate([soon, start])
    start = np.maximum(start, who.registered[player] + SECOND_US)
    order = np.lexsort((start, player))
    return player[order], start[order]


def _rounded(values: Floats, rng: np.random.Generator) -> Ints:
    """Return whole numbers with these means: planted groups may not blur by chance alone."""
    return np.floor(np.maximum(values, 0) + rng.random(len(values))).astype(np.int64)


def _calendar(plan: Simulation, *, at_night: bool) -> tuple[Floats, Floats]:
    """Return UTC hours over the plan and how much play is usual up to each, in the brand's zone."""
    first = plan.start_us // HOUR_US
    hours = np.arange(first, plan.end_us // HOUR_US + 2)
    zero = datetime(1970, 1, 1, tzinfo=UTC)
    by_hour = np.roll(_BY_HOUR, 6) if at_night else _BY_HOUR
    locals_ = [(zero + timedelta(hours=int(h))).astimezone(plan.brand.zone) for h in hours]
    weights = np.array([by_hour[at.hour] * _BY_WEEKDAY[at.weekday()] for at in locals_])
    at: Floats = hours.astype(np.float64) * HOUR_US
    return at, np.concatenate([[0.0], np.cumsum(weights[:-1])])


def _session_products(brand: Brand, who: Players, player: Ints, rng: np.random.Generator) -> Ints:
    """Return a session's product: mostly the player's own, sometimes another."""
    other = rng.integers(0, len(product_names(brand)), len(player))
    return np.where(rng.random(len(player)) < 0.75, who.product[player], other)


def _cumulative_within(values: Ints, count: Ints) -> Ints:
    """Return the running sums of `values` within consecutive runs of `count` each."""
    sums = np.cumsum(values)
    before = np.concatenate([[0], sums[np.cumsum(count)[:-1] - 1]]) if len(count) else sums[:0]
    within: Ints = sums - np.repeat(before, count)
    return within


def running_maximum(player: Ints, values: Ints) -> Ints:
    """Return the running maximum within each player; rows are sorted by player."""
    if not len(values):
        return values
    floor = values.min()
    lift = player * (values.max() - floor + 1)
    highest: Ints = np.maximum.accumulate(values - floor + lift) - lift + floor
    return highest


def _overlapping(player: Ints, start: Ints, end: Ints) -> Flags:
    """Tell which sessions begin before an earlier one of the same player has ended."""
    ended = running_maximum(player, end)
    overlaps = np.zeros(len(player), bool)
    overlaps[1:] = (player[1:] == player[:-1]) & (start[1:] <= ended[:-1])
    return overlaps


def _settle(  # noqa: PLR0913, PLR0917 - the columns that become one table
    plan: Simulation,
    who: Players,
    sessions: Sessions,
    session: Ints,
    placed: Ints,
    product: Ints,
    table: list[Product],
    rng: np.random.Generator,
) -> Bets:
    """Draw stakes and outcomes: a bet at odds o wins with (1 - margin) / o, so margins come out."""
    n = len(session)
    player = sessions.player[session]
    median = np.array([p.odds for p in table])[product]
    tail = np.array([p.tail for p in table])[product]
    odds = np.clip(1 + median * np.exp(tail * rng.standard_normal(n)), 1.06, _MAX_ODDS)
    margin = np.array([p.margin for p in table])[product]
    won = rng.random(n) < (1 - margin) / odds
    is_sport = np.array([name == "sports" for name in product_names(plan.brand)])[product]
    void = is_sport & (rng.random(n) < 0.004)
    stake = _stakes(plan, who, session, player, placed, won, product, table, rng)
    payout = np.where(void, stake, np.where(won, np.rint(stake * odds).astype(np.int64), 0))
    wait_s = np.array([p.settles_s for p in table])[product] * rng.lognormal(0.0, 0.3, n) + 0.1
    games = np.array([p.games for p in table])[product]
    return Bets(
        session=session,
        player=player,
        placed=placed,
        settled=placed + (wait_s * SECOND_US).astype(np.int64),
        product=product,
        game=(rng.random(n) ** 2 * games).astype(np.int64) + 1,
        stake=stake,
        payout=payout,
        outcome=np.where(void, 2, won.astype(np.int64)),
    )


def _stakes(  # noqa: PLR0913, PLR0917 - as above
    plan: Simulation,
    who: Players,
    session: Ints,
    player: Ints,
    placed: Ints,
    won: Flags,
    product: Ints,
    table: list[Product],
    rng: np.random.Generator,
) -> Ints:
    """Return stakes in minor units: round figures about the player's usual stake."""
    major = who.stake[player] * rng.lognormal(0.0, 0.5, len(player))
    if not plan.groups:
        major = major * np.array([p.stake_factor for p in table])[product]
    lost_in_a_row = _losing_run(session, won)
    major = major * np.where(who.chases[player], 1.35 ** np.minimum(lost_in_a_row, 8), 1.0)
    tenure = (placed - who.registered[player]) / (plan.end_us - plan.start_us)
    major = major * np.where(who.escalates[player], 1 + 4 * tenure, 1.0)
    unit = 10**plan.brand.currency.decimals
    minor = np.minimum(major, MAX_STAKE) * unit
    least = max(unit // 10, 1)
    step = 10.0 ** np.maximum(np.floor(np.log10(np.maximum(minor, 1))) - 1, 0)
    rounded: Ints = np.maximum(np.rint(minor / step) * step, least).astype(np.int64)
    return rounded


def _losing_run(session: Ints, won: Flags) -> Ints:
    """Return how many bets in a row were lost just before each bet of its session."""
    n = np.arange(len(session))
    starts = np.ones(len(session), bool)
    starts[1:] = (session[1:] != session[:-1]) | won[:-1]
    run: Ints = n - np.maximum.accumulate(np.where(starts, n, 0))
    return run
