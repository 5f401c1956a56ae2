"""One player's features: read from the table, and written as the contract says."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from crm.domain.brands import Brand
from crm.domain.errors import PlayerNotFound
from crm.domain.feature_table import FeatureTable, from_us
from crm.domain.features import FEATURES
from crm.domain.ports import PlayerFeatures


def player_features(
    table: FeatureTable, brand: str, player_id: str, shard: int, epoch: int
) -> PlayerFeatures:
    """Return all features of a player as raw integers; raises PlayerNotFound."""
    row = table.row(player_id)
    if row is None:
        raise PlayerNotFound(f"brand {brand} has no such player")
    values: dict[str, int | None] = {}
    for name in FEATURES:
        column, missing = table.feature(name, slice(row, row + 1))
        values[name] = None if missing is not None and missing[0] else int(column[0])
    return PlayerFeatures(brand, player_id, shard, epoch, from_us(table.now_us), values)


def for_reading(brand: Brand, values: Mapping[str, int | None]) -> dict[str, int | str | None]:
    """Write features for people: money as decimal strings in major units, times as RFC 3339."""
    return {name: _written(brand, name, value) for name, value in values.items()}


def _written(brand: Brand, name: str, value: int | None) -> int | str | None:
    if value is None:
        return None
    unit = FEATURES[name].unit
    if unit == "money":
        return brand.currency.to_major(value)
    return rfc3339(from_us(value)) if unit == "time" else value


def rfc3339(at: datetime) -> str:
    """Return an instant as RFC 3339 in UTC, with Z."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
