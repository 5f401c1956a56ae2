"""Deposits, withdrawals and bonuses of simulated players: nobody stakes money they do not have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.simulated_play import Bets, Sessions, running_maximum
from pipelines.simulated_players import HOUR_US, SECOND_US, Flags, Ints, Players, Simulation

METHODS = ("card", "bank_transfer", "ewallet")
_MAX_WELCOME = 100  # major units


@dataclass(frozen=True)
class Withdrawals:
    """Columns over the withdrawals; `cancelled` ones were taken back before they were paid."""

    player: Ints
    requested: Ints
    decided: Ints
    amount: Ints
    cancelled: Flags


@dataclass(frozen=True)
class Deposits:
    """Columns over the deposits; `failed` marks those that had one failed try just before."""

    player: Ints
    completed: Ints
    amount: Ints
    failed: Flags


@dataclass(frozen=True)
class Bonuses:
    """Columns over the bonuses; `welcome` ones come with the first deposit."""

    player: Ints
    granted: Ints
    amount: Ints
    welcome: Flags


def draw_withdrawals(
    who: Players, sessions: Sessions, bets: Bets, rng: np.random.Generator
) -> tuple[Withdrawals, Ints]:
    """Draw withdrawals of what a session has won; return them and the sessions they belong to."""
    n = len(sessions.player)
    net = np.zeros(n, np.int64)
    np.add.at(net, bets.session, bets.payout - bets.stake)
    done = sessions.end.copy()
    np.maximum.at(done, bets.session, bets.settled)
    chosen = np.flatnonzero((net > 0) & (rng.random(n) < 0.3))
    part = np.where(rng.random(len(chosen)) < 0.6, 1.0, rng.uniform(0.3, 0.9, len(chosen)))
    amount = (net[chosen] * part).astype(np.int64)
    chosen, amount = chosen[amount > 0], amount[amount > 0]
    requested = done[chosen] + rng.integers(20, 900, len(chosen)) * SECOND_US
    player = sessions.player[chosen]
    tempted = np.where(who.chases[player], 0.5, 0.1)
    waits = (rng.lognormal(1.5, 0.8, len(chosen)) * HOUR_US).astype(np.int64)
    return (
        Withdrawals(
            player=player,
            requested=requested,
            decided=requested + waits,
            amount=amount,
            cancelled=rng.random(len(chosen)) < tempted,
        ),
        chosen,
    )


def draw_deposits(
    plan: Simulation,
    who: Players,
    sessions: Sessions,
    bets: Bets,
    paid: tuple[Withdrawals, Ints],
    rng: np.random.Generator,
) -> Deposits:
    """Draw deposits at the start of sessions that cover all that is staked and withdrawn after."""
    needed = _needed_by_session(sessions, bets, *paid)
    habit = who.habit[sessions.player] * 10**plan.brand.currency.decimals
    by_now = _cumulative_by_player(sessions.player, needed)
    deposited = -(-by_now // habit) * habit
    before = np.zeros_like(deposited)
    same = sessions.player[1:] == sessions.player[:-1]
    before[1:] = np.where(same, deposited[:-1], 0)
    amount = deposited - before
    chosen = np.flatnonzero(amount > 0)
    return Deposits(
        player=sessions.player[chosen],
        completed=sessions.start[chosen] + 9 * SECOND_US,
        amount=amount[chosen],
        failed=rng.random(len(chosen)) < 0.07,
    )


def _needed_by_session(sessions: Sessions, bets: Bets, paid: Withdrawals, of: Ints) -> Ints:
    """Return by how much each session raises the money that its player must have brought."""
    player = np.concatenate([bets.player, bets.player, paid.player])
    at = np.concatenate([bets.placed, bets.settled, paid.requested])
    flow = np.concatenate([-bets.stake, bets.payout, -np.where(paid.cancelled, 0, paid.amount)])
    session = np.concatenate([bets.session, bets.session, of])
    order = np.lexsort((flow, at, player))  # stakes before payouts at the same instant
    player, session = player[order], session[order]
    missing = np.maximum(-_cumulative_by_player(player, flow[order]), 0)
    most = running_maximum(player, missing)
    rise = most.copy()
    rise[1:] -= np.where(player[1:] == player[:-1], most[:-1], 0)
    needed = np.zeros(len(sessions.player), np.int64)
    np.add.at(needed, session, rise)
    return needed


def _cumulative_by_player(player: Ints, values: Ints) -> Ints:
    """Return the running sums of `values` within each player; rows are sorted by player."""
    sums = np.cumsum(values)
    starts = np.flatnonzero(np.diff(player, prepend=-1))
    before = sums[starts] - values[starts]
    return sums - np.repeat(before, np.diff(np.append(starts, len(player))))


def draw_bonuses(
    plan: Simulation,
    who: Players,
    sessions: Sessions,
    deposits: Deposits,
    rng: np.random.Generator,
) -> Bonuses:
    """Draw welcome bonuses with first deposits, and small ones now and then."""
    unit = 10**plan.brand.currency.decimals
    first = np.flatnonzero(np.diff(deposits.player, prepend=-1))
    first = first[rng.random(len(first)) < 0.5]
    again = np.flatnonzero(rng.random(len(sessions.player)) < who.bonus_share[sessions.player])
    welcome = np.minimum(deposits.amount[first], _MAX_WELCOME * unit)
    small = who.habit[sessions.player[again]] * unit // 5
    return Bonuses(
        player=np.concatenate([deposits.player[first], sessions.player[again]]),
        granted=np.concatenate(
            [deposits.completed[first] + SECOND_US, sessions.start[again] + 10 * SECOND_US]
        ),
        amount=np.maximum(np.concatenate([welcome, small]), 1),
        welcome=np.arange(len(first) + len(again)) < len(first),
    )
