"""A believable brand as a Parquet file of events; nobody real is in it.

The same plan gives the same events: every figure comes from one seeded generator.
"""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from string import ascii_lowercase

import numpy as np
import polars as pl

from pipelines.simulated_events import Rows
from pipelines.simulated_money import draw_bonuses, draw_deposits, draw_withdrawals
from pipelines.simulated_play import draw_play
from pipelines.simulated_players import SECOND_US, Simulation, draw_players

MAX_GROUPS = 20


class InvalidSimulation(ValueError):
    """A simulation cannot be made as asked; the message says which value and what it may be."""


def check_simulation(plan: Simulation) -> None:
    """Raise InvalidSimulation unless every value of `plan` makes sense together."""
    begins_us = int(plan.brand.begins_at.timestamp()) * SECOND_US
    at_most = max((plan.end_us - begins_us) // (86_400 * SECOND_US), 0)
    faults = {
        "--players must be at least 1": plan.players < 1,
        "--days must be at least 1": plan.days < 1,
        "--seed must be at least 0": plan.seed < 0,
        f"--days may be at most {at_most}: brand {plan.brand.id} began on {plan.brand.starts_on}": (
            plan.start_us < begins_us
        ),
        f"--groups must be between 2 and {MAX_GROUPS}": (
            plan.groups != 0 and not 2 <= plan.groups <= MAX_GROUPS
        ),
        "--groups may not exceed --players": plan.groups > plan.players,
        "--separation must be between 0 and 20": not 0 <= plan.separation <= 20,
    }
    for message, wrong in faults.items():
        if wrong:
            raise InvalidSimulation(message)


def simulate(plan: Simulation) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Return the events sorted by time, and player and group if groups were planted."""
    check_simulation(plan)
    rng = np.random.default_rng(plan.seed)
    who = draw_players(plan, rng)
    sessions, bets = draw_play(plan, who, rng)
    paid = draw_withdrawals(who, sessions, bets, rng)
    deposits = draw_deposits(plan, who, sessions, bets, paid, rng)
    bonuses = draw_bonuses(plan, who, sessions, deposits, rng)

    ids = [f"{_mark(plan)}-{n:06d}" for n in range(1, len(who) + 1)]
    names = pl.Series("player_id", ids)
    make = Rows(plan.brand, names)
    parts = [
        *make.of_players(who),
        *make.of_sessions(sessions),
        *make.of_bets(bets),
        *make.of_deposits(who, deposits),
        *make.of_withdrawals(who, paid[0]),
        *make.of_bonuses(bonuses),
    ]
    events = _finish(plan, pl.concat(parts))
    labels = pl.DataFrame({"player_id": names, "group": who.group}) if plan.groups else None
    return events, labels


def _finish(plan: Simulation, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the contract's columns, sorted by time, without what lies after the end."""
    sorted_rows = rows.filter(pl.col("at") <= plan.end_us).sort(
        "at", "order", "player_id", "properties", maintain_order=True
    )
    return sorted_rows.select(
        event_id=pl.format("sim-{}-{}", pl.lit(_mark(plan)), pl.int_range(1, pl.len() + 1)),
        type="type",
        player_id="player_id",
        brand=pl.lit(plan.brand.id),
        occurred_at=pl.col("at").cast(pl.Datetime("us", "UTC")),
        amount="amount",
        currency=pl.when(pl.col("amount").is_not_null()).then(pl.lit(plan.brand.currency.code)),
        properties="properties",
    )


def _mark(plan: Simulation) -> str:
    """Return what tells this plan's ids from another's: letters only, lest it look like a card."""
    text = repr(
        (plan.brand, plan.players, plan.days, plan.seed, plan.end_us, plan.groups, plan.separation)
    )
    digest = blake2b(text.encode(), digest_size=8).digest()
    return "".join(ascii_lowercase[byte % 26] for byte in digest)


def write_simulation(plan: Simulation, out: Path) -> int:
    """Write the events to `out`, planted labels beside it; return how many events there are."""
    events, labels = simulate(plan)
    _write(events, out)
    if labels is not None:
        _write(labels, labels_path(out))
    return events.height


def labels_path(out: Path) -> Path:
    """Return where the planted groups of `out` are written."""
    return out.with_name(f"{out.stem}.labels.parquet")


def _write(frame: pl.DataFrame, path: Path) -> None:
    """Write beside and rename, so that a full disk leaves no half file under the name."""
    part = path.with_name(f".{path.name}.part")
    try:
        frame.write_parquet(part, compression="zstd", row_group_size=100_000)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
