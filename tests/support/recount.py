"""The SQL recount over the raw tables, and what is not as it says."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import asyncpg

from crm.adapters.postgres.queries import load
from crm.domain.brands import Brand
from crm.domain.features import FEATURES
from crm.domain.ports import Columns

Features = dict[str, dict[str, int]]


async def recount(dsn: str, brand: Brand, as_of: datetime) -> Features:
    """Every feature of every player that is not missing, by SQL: raw integers."""
    hour = as_of.replace(minute=0, second=0, microsecond=0) - timedelta(hours=23)
    day = as_of.astimezone(ZoneInfo(brand.time_zone)).date()
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(
            load("recount")["recount"], brand.id, as_of, day, hour, brand.time_zone
        )
    finally:
        await connection.close()
    found: Features = {}
    for row in rows:
        found.setdefault(row["player_id"], {})[row["feature"]] = row["value"]
    return found


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
    """Every player or feature that is not the same, as a line; names are the feature list's."""
    lines = [f"{player}: on one side only" for player in found.keys() ^ expected.keys()]
    return lines + [
        f"{player}.{name}: {found[player].get(name)}, not {expected[player].get(name)}"
        for player in found.keys() & expected.keys()
        for name in FEATURES
        if found[player].get(name) != expected[player].get(name)
    ]
