"""Who the simulated players are: when they join and leave, how often and how high they play."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from crm.domain.brands import Brand

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US
DAY_US = 24 * HOUR_US

# of players in general: share, sessions a day, bets a session, stake, days until they leave
_KINDS = np.array(
    [
        (0.55, 0.10, 7.0, 1.0, 30.0),  # casual
        (0.30, 0.30, 14.0, 2.0, 110.0),  # regular
        (0.11, 0.75, 26.0, 3.0, 220.0),  # devoted
        (0.04, 0.60, 24.0, 25.0, 300.0),  # high roller
    ]
)
_SPREAD = 0.45  # of players within a kind, in natural logarithms
GROUP_SPREAD = 0.15  # of players within a planted group, in natural logarithms
_GROUP_CENTRE = np.log([0.5, 5.0, 10.0])  # sessions, bets and money staked a day
_HABITS = np.array([10, 20, 25, 50, 100, 200, 500])


@dataclass(frozen=True)
class Simulation:
    """What is simulated; the same values give the same events. `separation`: see `_planted`."""

    brand: Brand
    players: int
    days: int
    seed: int
    end: datetime
    groups: int = 0
    separation: float = 0.0

    @property
    def end_us(self) -> int:
        """The last instant of the simulation in microseconds since 1970."""
        return (self.end - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)

    @property
    def start_us(self) -> int:
        """The first instant of the simulation in microseconds since 1970."""
        return self.end_us - self.days * DAY_US


@dataclass(frozen=True)
class Players:
    """Columns over the players, in the order of their numbers; times in microseconds since 1970.

    `habit` is what a player's deposits are multiples of, `stake` the usual stake, both in major
    units; `group` the planted group, 0 without.
    """

    registered: Ints
    left: Ints
    sessions_a_day: Floats
    bets_a_session: Floats
    stake: Floats
    habit: Ints
    product: Ints
    method: Ints
    bonus_share: Floats
    night: Flags
    chases: Flags
    escalates: Flags
    bounced: Flags
    group: Ints

    def __len__(self) -> int:
        return len(self.registered)


def draw_players(plan: Simulation, rng: np.random.Generator) -> Players:
    """Draw the players of a brand: planted groups if the plan has them, else a usual mixture."""
    n = plan.players
    group, levels, lifetime_days, joining = (
        _planted(plan, rng) if plan.groups else _mixed(plan, rng)
    )
    stake = levels[:, 2]
    registered = plan.start_us + (joining * plan.days * DAY_US).astype(np.int64)
    left = np.minimum(registered + (lifetime_days * DAY_US).astype(np.int64), plan.end_us)
    wanted = stake * levels[:, 1] * rng.lognormal(0.0, 0.0 if plan.groups else 0.4, n)
    harm = not plan.groups  # planted groups differ in what was planted, and in nothing else
    return Players(
        registered=registered,
        left=left,
        sessions_a_day=levels[:, 0],
        bets_a_session=levels[:, 1],
        stake=stake,
        habit=_HABITS[np.searchsorted(_HABITS, wanted).clip(0, len(_HABITS) - 1)].astype(np.int64),
        product=rng.integers(0, max(len(plan.brand.products), 1), n),
        method=rng.choice(3, n, p=[0.55, 0.3, 0.15]),
        bonus_share=rng.beta(1.2, 8.0, n) if harm else np.zeros(n),
        night=(rng.random(n) < 0.06) & harm,
        chases=(rng.random(n) < 0.05) & harm,
        escalates=(rng.random(n) < 0.03) & harm,
        bounced=(rng.random(n) < 0.12) & harm,
        group=group,
    )


def _mixed(plan: Simulation, rng: np.random.Generator) -> tuple[Ints, Floats, Floats, Floats]:
    """Return group, levels (sessions a day, bets a session, stake), days to stay, joining."""
    n = plan.players
    kind = rng.choice(len(_KINDS), n, p=_KINDS[:, 0])
    levels = _KINDS[kind, 1:4] * np.exp(rng.normal(0.0, _SPREAD, (n, 3)))
    levels[:, 2] *= 1 + 0.3 * rng.pareto(2.5, n)  # the tail that pays for the house
    joining = rng.random(n) ** 0.8  # a growing brand
    return np.zeros(n, np.int64), levels, rng.exponential(_KINDS[kind, 4]), joining


def _planted(plan: Simulation, rng: np.random.Generator) -> tuple[Ints, Floats, Floats, Floats]:
    """Return the same for planted groups of about one size.

    In the logarithms of sessions, bets and stakes in all, a group is a normal cloud with standard
    deviation GROUP_SPREAD, and the two nearest centres are `separation` such deviations apart.
    """
    n, k = plan.players, plan.groups
    group = rng.permutation(np.arange(n) % k).astype(np.int64)
    centres = _spread_out(k, rng) * plan.separation * GROUP_SPREAD
    logs = _GROUP_CENTRE + centres[group] + rng.normal(0.0, GROUP_SPREAD, (n, 3))
    sessions, bets, staked = (np.exp(logs) * plan.days).T
    sessions = np.maximum(sessions, 1.0)
    bets = np.maximum(bets, sessions)
    levels = np.column_stack([sessions / plan.days, bets / sessions, staked / bets])
    return group, levels, np.full(n, float(plan.days)), rng.random(n) * 0.02


def _spread_out(k: int, rng: np.random.Generator) -> Floats:
    """Return `k` points about the origin whose two nearest are 1 apart: the tightest of some."""
    best, best_radius = np.zeros((k, 3)), np.inf
    for _ in range(400):
        points = rng.normal(size=(k, 3))
        gaps = np.linalg.norm(points[:, None] - points[None, :], axis=2)
        points = (points - points.mean(axis=0)) / gaps[~np.eye(k, dtype=bool)].min()
        radius = float(np.abs(points).max())
        if radius < best_radius:
            best, best_radius = points, radius
    return best
