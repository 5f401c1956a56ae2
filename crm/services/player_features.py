"""Features read from the table, of one player or of many, and written as the contract says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from crm.domain.brands import Brand
from crm.domain.errors import FeatureNotFound, PlayerNotFound
from crm.domain.feature_list import features_of
from crm.domain.feature_table import FeatureTable
from crm.domain.features import SHARE, Feature
from crm.domain.ports import PlayerFeatures, ShardFeatures, SomePlayers
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


def columns_of(
    table: FeatureTable, names: Iterable[str], rows: NDArray[np.int64] | None = None
) -> tuple[dict[str, NDArray[np.int64]], dict[str, NDArray[np.bool_]]]:
    """Return copies of features (the table goes on changing), and masks of where one is missing.

    Raises FeatureNotFound.
    """
    values, missing = {}, {}
    for name in names:
        if name not in table.features.defined:
            raise FeatureNotFound(f"the running service has no feature {name!r}: run `crm apply`")
        column, mask = table.column(name, rows)
        values[name] = column.copy()
        if mask is not None:
            missing[name] = mask
    return values, missing


Part = tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.bool_]]


def some_players(table: FeatureTable, player_ids: Sequence[str], names: Sequence[str]) -> Part:
    """Return who of `player_ids` is known; of these in order, values and what is missing.

    The two are of names x known players. Raises FeatureNotFound.
    """
    found = [table.row(player) for player in player_ids]
    known = np.array([row is not None for row in found], bool)
    rows = np.array([row for row in found if row is not None], np.int64)
    values, missing = columns_of(table, names, rows)
    nothing = np.zeros(len(rows), bool)
    shape = (len(names), len(rows))
    return (
        known,
        np.array([values[name] for name in names], np.int64).reshape(shape),
        np.array([missing.get(name, nothing) for name in names], bool).reshape(shape),
    )


def in_order(
    as_of: datetime,
    count: int,
    names: Sequence[str],
    parts: Sequence[tuple[Sequence[int], Part]],
) -> SomePlayers:
    """Return what `some_players` found of parts of `count` players, each player in its place."""
    everybody = np.zeros(count, bool)
    values = np.zeros((len(names), count), np.int64)
    missing = np.zeros((len(names), count), bool)
    for places, (known, found, lacking) in parts:
        here = np.array(places, np.int64)[known]
        everybody[here] = True
        values[:, here], missing[:, here] = found, lacking
    by_name = dict(zip(names, values, strict=True)), dict(zip(names, missing, strict=True))
    return SomePlayers(as_of, everybody, *by_name)


def shard_features(table: FeatureTable, shard: int, epoch: int, seq: int) -> ShardFeatures:
    """Return all that `table` says of the players of a shard, whose events it has up to `seq`."""
    rows = table.rows_of(shard)
    columns = columns_of(table, table.features.features, rows)
    return ShardFeatures(shard, epoch, seq, from_us(table.now_us), table.ids_of(rows), *columns)


Written = int | float | str | None


def for_reading(brand: Brand, values: Mapping[str, int | None]) -> dict[str, Written]:
    """Write features for people: money as decimal strings in major units, times as RFC 3339."""
    write = _writers(brand)
    # an owner may know a new measure before this process does
    return {
        name: value if value is None else write[name](value)
        for name, value in values.items()
        if name in write
    }


def written(brand: Brand, feature: Feature, value: int | None) -> Written:
    """Write one value of a feature, as `for_reading` does; None is missing."""
    return None if value is None else _writer(brand, feature)(value)


@lru_cache(maxsize=1_024)
def _writers(brand: Brand) -> Mapping[str, Callable[[int], Written]]:
    features = features_of(brand).features.items()
    return {name: _writer(brand, feature) for name, feature in features}


def _writer(brand: Brand, feature: Feature) -> Callable[[int], Written]:
    match feature.unit:
        case "money":
            return brand.currency.to_major
        case "time":
            return lambda value: rfc3339(from_us(value))
        case "share":
            return lambda value: value / SHARE
        case "number" if decimals := feature.decimals:
            return lambda value: value / 10.0**decimals
        case _:
            return int


def rfc3339(at: datetime) -> str:
    """Return an instant as RFC 3339 in UTC, with Z."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
