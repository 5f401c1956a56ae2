"""Simulated players with planted groups, as columns, and how well the truth itself tells them."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import polars as pl
from sklearn.metrics import adjusted_rand_score

from crm.domain.brands import Brand, Currency
from crm.domain.cluster_shapes import Floats, Ints
from crm.domain.ports import Columns
from pipelines.simulate import simulate
from pipelines.simulated_players import _GROUP_CENTRE, GROUP_SPREAD, Simulation, _spread_out

END = datetime(2026, 3, 1, tzinfo=UTC)
BRAND = Brand("demo", "Demo", Currency("EUR", 2), "UTC", date(2020, 1, 1), "PT", ("casino",))
PLAY = ("session_count_lifetime", "bet_count_lifetime", "stake_amount_lifetime")


def planted(
    k: int, separation: float, seed: int, players: int = 400, days: int = 60
) -> tuple[Columns, Ints, float]:
    """Return players as the shards would give them, their groups, and the truth's Rand index.

    That is the adjusted one of a classifier that knows the centres and the spread.
    """
    plan = Simulation(BRAND, players, days, seed, END, k, separation)
    events, labels = simulate(plan)
    assert labels is not None
    kind = pl.col("type")
    totals = (
        events.group_by("player_id")
        .agg(
            (kind == "session.started").sum().alias(PLAY[0]),
            (kind == "bet.placed").sum().alias(PLAY[1]),
            (pl.col("amount").cast(pl.Decimal(30, 2)).filter(kind == "bet.placed").sum() * 100)
            .cast(pl.Int64)
            .alias(PLAY[2]),
            (
                pl.col("amount").cast(pl.Decimal(30, 2)).filter(kind == "deposit.completed").sum()
                * 100
            )
            .cast(pl.Int64)
            .alias("deposit_amount_lifetime"),
        )
        .join(labels, on="player_id")
        .sort("player_id")
    )
    group = totals["group"].to_numpy().astype(np.int64)
    names = (*PLAY, "deposit_amount_lifetime")
    values = {name: totals[name].to_numpy().astype(np.int64) for name in names}
    for name in ("ggr_amount_lifetime", "days_since_last_activity", "deposit_count_lifetime",
                 "days_since_last_deposit"):  # fmt: skip
        values[name] = np.zeros(players, np.int64)
    columns = Columns(END, totals["player_id"].to_list(), values, {})
    return columns, group, _truth(plan, columns, group)


def _truth(plan: Simulation, columns: Columns, group: Ints) -> float:
    rng = np.random.default_rng(plan.seed)
    rng.permutation(np.arange(plan.players) % plan.groups)  # as the simulation draws before
    centres = _GROUP_CENTRE + _spread_out(plan.groups, rng) * plan.separation * GROUP_SPREAD
    centres += np.log(plan.days)
    seen: Floats = np.log(np.column_stack([columns.values[name] for name in PLAY]) / [1, 1, 100])
    nearest = ((seen[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1)
    return float(adjusted_rand_score(group, nearest))
