"""The SQL recount over the raw tables, and what is not as it says."""

from __future__ import annotations

from datetime import datetime

from crm.adapters.postgres.pool import Pool
from crm.adapters.postgres.recount import PostgresRecount
from crm.domain.brands import Brand
from crm.domain.ports import Columns
from crm.domain.shards import SHARDS

Features = dict[str, dict[str, int]]


async def recount(dsn: str, brand: Brand, as_of: datetime) -> Features:
    """Every feature of every player that is not missing, by SQL: raw integers."""
    pool = Pool(dsn)
    try:
        return await PostgresRecount(pool).up_to(brand, dict.fromkeys(range(SHARDS), 2**62), as_of)
    finally:
        await pool.close()


def by_player(columns: Columns) -> Features:
    """The same of what the owners answered."""
    found: Features = {player: {} for player in columns.player_ids}
    assert len(found) == len(columns.player_ids), "a player is counted by two owners"
    for name, values in columns.values.items():
        missing = columns.missing.get(name)
        for row, player in enumerate(columns.player_ids):
            if missing is None or not missing[row]:
                found[player][name] = int(values[row])
    return found


def differences(found: Features, expected: Features) -> list[str]:
    """Every player or feature that is not the same, as a line."""
    lines = [f"{player}: on one side only" for player in found.keys() ^ expected.keys()]
    return lines + [
        f"{player}.{name}: {found[player].get(name)}, not {expected[player].get(name)}"
        for player in found.keys() & expected.keys()
        for name in sorted(found[player].keys() | expected[player].keys())
        if found[player].get(name) != expected[player].get(name)
    ]
