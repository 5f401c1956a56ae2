"""One player's features: read from the table, and written as the contract says."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from crm.domain.brands import Brand
from crm.domain.errors import PlayerNotFound
from crm.domain.feature_table import FeatureTable
from crm.domain.features import FEATURES, SHARE
from crm.domain.ports import PlayerFeatures
from crm.domain.times import from_us


def player_features(
    table: FeatureTable, brand: str, player_id: str, shard: int, epoch: int
) -> PlayerFeatures:
    """Return all features of a player as raw integers; raises PlayerNotFound."""
    row = table.row(player_id)
    if row is None:
        raise PlayerNotFound(f"brand {brand} has no such player")
    now = from_us(table.now_us)
    return PlayerFeatures(brand, player_id, shard, epoch, now, table.values(row))


Written = int | float | str | None


def for_reading(brand: Brand, values: Mapping[str, int | None]) -> dict[str, Written]:
    """Write features for people: money as decimal strings in major units, times as RFC 3339."""
    return {name: _written(brand, name, value) for name, value in values.items()}


def _written(brand: Brand, name: str, value: int | None) -> Written:
    if value is None:
        return None
    match FEATURES[name].unit:
        case "money":
            return brand.currency.to_major(value)
        case "time":
            return rfc3339(from_us(value))
        case "share":
            return value / SHARE
        case _:
            return value


def rfc3339(at: datetime) -> str:
    """Return an instant as RFC 3339 in UTC, with Z."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
