"""All features of a shard's players as of a moment, from the lake's rows: the batch engine.

One pass of Polars brings the events down to groups (player, local day, kind of event); numpy makes
the windows of these. It shares with the online engine the list, what a kind of event adds, and what
is derived on read; there is no ledger, no running window and no clock.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from crm.domain.brands import Brand
from crm.domain.event_columns import (
    KIND_INDEX,
    KINDS,
    OF_MOMENT,
    Kind,
    added,
    at_weekend,
    night_end,
)
from crm.domain.events import RESULTS
from crm.domain.feature_list import FeatureList, features_of
from crm.domain.feature_values import value_of
from crm.domain.features import (
    DAYS_OF_WINDOW,
    HIDDEN_DAYS,
    HOURS_OF_24H,
    METHODS,
    MOMENT_INDEX,
    MOMENTS,
    OTHER,
    PRODUCTS,
    Edge,
    Moment,
)
from crm.domain.ledger import Cells, Ints, joined
from crm.domain.times import to_us

Mask = NDArray[np.bool_]

_DAY_US = 86_400_000_000
_EPOCH = date(1970, 1, 1).toordinal()
_NEVER_FIRST, _NEVER_LAST = np.iinfo(np.int64).max, np.iinfo(np.int64).min
# Windows of days lie inside each other: a day's class is the shortest that holds it, the last is
# older than all of them.
_LENGTHS = dict(sorted({**DAYS_OF_WINDOW, **HIDDEN_DAYS}.items(), key=lambda item: item[1]))
_CLASS_OF = {**{name: index for index, name in enumerate(_LENGTHS)}, "lifetime": len(_LENGTHS)}
_NONE = 255  # of a code: none of those listed
_TYPES = tuple(sorted({kind.event_type for kind in KINDS} - {""}))
_CODES = {"type": _TYPES, "result": RESULTS, "product": PRODUCTS, "method": METHODS}
_WITH_PRODUCT = {kind.event_type for kind in KINDS if kind.product}
_WITH_METHOD = {kind.event_type for kind in KINDS if kind.method}


def features_at(
    events: pl.LazyFrame, brand: Brand, as_of: datetime, known_by: datetime | None = None
) -> pa.Table:
    """Return every feature of every player with an event that occurred by `as_of`.

    `events` has the lake's columns and holds all events of these players; those that were not
    known by `known_by` do not count (None: all do). One row a player, by id; raw integers, null
    where a value is missing.
    """
    as_of = as_of.astimezone(UTC)  # hours are those of UTC
    if known_by is not None:
        events = events.filter(pl.col("known_at") <= known_by)
    events = events.filter(pl.col("brand") == brand.id, pl.col("occurred_at") <= as_of)
    groups = _groups(events, brand, as_of).collect(engine="streaming")
    own = _own(events, features_of(brand))
    return _Batch(groups, own, brand, as_of).table()


def labels_after(
    events: pl.LazyFrame, brand: Brand, as_of: datetime, days: int, features: pa.Table
) -> pa.Table:
    """Return `features` with what the same players did in the `days` x 24 hours after `as_of`.

    `label_active` is 1 for who bet or deposited; amounts are in minor units, NGR as the features
    have it; days are local days with a bet, or with a deposit. Only labels look beyond `as_of`,
    whenever it was known.
    """
    at, as_of = pl.col("occurred_at"), as_of.astimezone(UTC)
    after = events.filter(
        pl.col("brand") == brand.id, at > as_of, at <= as_of + timedelta(days=days)
    )
    stake, payout, bonus = map(_amount, ("bet.placed", "bet.settled", "bonus.granted"))
    labels = after.group_by("player_id").agg(
        (pl.col("type") == "bet.placed").sum().alias("label_bet_count"),
        stake.alias("label_stake_amount"),
        (pl.col("type") == "deposit.completed").sum().alias("label_deposit_count"),
        _amount("deposit.completed").alias("label_deposit_amount"),
        (stake - payout - bonus).alias("label_ngr_amount"),
        _days("bet.placed").alias("label_bet_days"),
        _days("deposit.completed").alias("label_deposit_days"),
    )
    players = pl.LazyFrame({"player_id": pl.Series(features["player_id"])})
    joined = players.join(labels, on="player_id", how="left", maintain_order="left").fill_null(0)
    active = (pl.col("label_bet_count") > 0) | (pl.col("label_deposit_count") > 0)
    found = joined.select(active.cast(pl.Int64).alias("label_active"), pl.exclude("player_id"))
    for name, column in zip(found.collect_schema().names(), found.collect(), strict=True):
        features = features.append_column(name, column.cast(pl.Int64).to_arrow())
    return features


def _amount(event_type: str) -> pl.Expr:
    return pl.col("amount_minor").filter(pl.col("type") == event_type).sum()


def _days(event_type: str) -> pl.Expr:
    return pl.col("local_day").filter(pl.col("type") == event_type).n_unique()


def _groups(events: pl.LazyFrame, brand: Brand, as_of: datetime) -> pl.LazyFrame:
    """Return (player_id, key) with counts, sums and times; the key packs day, night and kind."""
    hour = _hour_before(as_of)
    first_day, ends = _night_ends(events, brand, as_of)
    at, day = pl.col("occurred_at"), pl.col("local_day").cast(pl.Int32)
    night = at < pl.lit(ends).gather(day - first_day)
    key = day.cast(pl.Int64) * 4 + (at >= hour).cast(pl.Int64) * 2 + night.cast(pl.Int64)
    for name, listed in _CODES.items():
        code = pl.col(name).cast(pl.Enum(listed), strict=False).to_physical().cast(pl.Int64)
        key = key * 256 + code.fill_null(_NONE)
    return (
        events.select("player_id", key.alias("key"), "amount_minor", "session_seconds", at)
        .group_by("player_id", "key")
        .agg(
            pl.len().cast(pl.Int64).alias("count"),
            pl.sum("amount_minor", "session_seconds"),
            at.min().alias("first"),
            at.max().alias("last"),
        )
    )


def _hour_before(as_of: datetime) -> datetime:
    """Return when the last 24 hours begin."""
    return as_of.replace(minute=0, second=0, microsecond=0) - timedelta(hours=HOURS_OF_24H - 1)


_OWN = ("player_id", "local_day", "occurred_at", "type", "properties")
_OWN_CELLS = pl.Schema(
    {
        "player_id": pl.String(),
        "local_day": pl.Date(),
        "occurred_at": pl.Datetime("us", "UTC"),
        "measure": pl.Int64(),
        "value": pl.Int64(),
    }
)


def _own(events: pl.LazyFrame, features: FeatureList) -> pl.DataFrame:
    """Return what single events add to the brand's own measures, by the domain's own rule."""
    if not features.own:
        return pl.DataFrame(schema=_OWN_CELLS)
    types = sorted({event_type for own in features.own for event_type in own.event_types})
    counted = events.filter(pl.col("type").is_in(types)).select(_OWN).collect(engine="streaming")
    cells = [
        (player, day, at, measure, value)
        for player, day, at, event_type, properties in counted.iter_rows()
        for measure, value in features.adds(event_type, properties)
    ]
    return pl.DataFrame(cells, schema=_OWN_CELLS, orient="row")


def _night_ends(events: pl.LazyFrame, brand: Brand, as_of: datetime) -> tuple[int, pl.Series]:
    """Return when the night of each local day ends, from the first day with an event on."""
    earliest = events.select(pl.col("local_day").min()).collect().item()
    first = (earliest or brand.local_day(as_of)).toordinal()
    days = range(first, brand.local_day(as_of).toordinal() + 2)
    ends = pl.Series([night_end(day, brand.zone) for day in days], dtype=pl.Int64)
    return first - _EPOCH, ends.cast(pl.Datetime("us", "UTC"))


class _Batch:
    """The groups of one shard as arrays, and what is made of them."""

    def __init__(
        self, groups: pl.DataFrame, own: pl.DataFrame, brand: Brand, as_of: datetime
    ) -> None:
        self._features = features_of(brand)
        self._now_us = to_us(as_of)
        ids = groups["player_id"].unique().sort()
        places = pl.DataFrame({"player_id": ids}).with_row_index("row")
        self._ids = ids
        self._rows, own_rows = [
            _ints(frame.join(places, on="player_id", how="left", maintain_order="left")["row"])
            for frame in (groups, own)
        ]
        day, recent, self._variants = _unpacked(_ints(groups["key"]))
        self._moments: dict[tuple[str, str], Ints] = {}
        for moment in MOMENTS:
            first, last = self._times_of(moment, groups)
            self._moments |= {(moment.name, "first"): first, (moment.name, "last"): last}
        numbers = [_ints(groups[n]) for n in ("count", "amount_minor", "session_seconds")]
        cells, group = added(self._variants, self._rows, *numbers)
        cells = joined([cells, Cells(own_rows, _ints(own["measure"]), _ints(own["value"]))])
        days = np.concatenate((day[group], _ints(own["local_day"]) + _EPOCH))
        since = own["occurred_at"] >= _hour_before(as_of)
        late: Mask = np.concatenate((recent[group], since.to_numpy()))
        age = brand.local_day(as_of).toordinal() - days
        classes = np.searchsorted(list(_LENGTHS.values()), age, side="right")
        once = self._features.once_a_day[cells.measures]
        self._recent = self._sums(cells.take(late & ~once), np.zeros(0, np.int64), 1)[0]
        summed = self._sums(cells.take(~once), classes[~once], len(_LENGTHS) + 1)
        summed += self._days(cells.take(once), days[once], classes[once])
        self._totals = np.cumsum(summed, axis=0)  # a window holds the shorter ones

    def table(self) -> pa.Table:
        """Return the features as columns."""
        columns = {"player_id": self._ids.to_arrow()}
        for name, defined in self._features.defined.items():
            if isinstance(defined.definition, Edge):
                values, missing = self._edge(defined.definition)
            else:
                values, missing = value_of(defined, self._total)
            columns[name] = pa.array(values, mask=missing)
        return pa.table(columns)

    def _sums(self, cells: Cells, classes: Ints, count: int) -> Ints:
        """Return the sums of cells by class, measure and player."""
        total = len(self._features.measures)
        sums = np.zeros((count, total, len(self._ids)), dtype=np.int64)
        place = cells.measures * len(self._ids) + cells.rows
        if len(classes):
            place = place + classes * (total * len(self._ids))
        np.add.at(sums.reshape(-1), place, cells.values)
        return sums

    def _days(self, cells: Cells, days: Ints, classes: Ints) -> Ints:
        """Return how many different days there are, by class, measure and player."""
        keys = (cells.measures * len(self._ids) + cells.rows) * 2**22 + days
        _, first = np.unique(keys, return_index=True)
        ones = np.ones(len(first), dtype=np.int64)
        distinct = Cells(cells.rows[first], cells.measures[first], ones)
        return self._sums(distinct, classes[first], len(_LENGTHS) + 1)

    def _total(self, measure: str, window: str) -> Ints:
        index = self._features.index[measure]
        found: Ints = (
            self._recent[index] if window == "24h" else self._totals[_CLASS_OF[window], index]
        )
        return found

    def _edge(self, edge: Edge) -> tuple[Ints, Mask]:
        never = _NEVER_FIRST if edge.which == "first" else _NEVER_LAST
        times = self._moments[edge.moment, edge.which]
        missing = times == never
        if edge.days_since:
            return (self._now_us - np.where(missing, 0, times)) // _DAY_US, missing
        return times, missing

    def _times_of(self, moment: Moment, groups: pl.DataFrame) -> tuple[Ints, Ints]:
        """Return each player's first and last time of a moment."""
        of_moment = OF_MOMENT[MOMENT_INDEX[moment.name]][self._variants // 4]
        rows = self._rows[of_moment]
        first = np.full(len(self._ids), _NEVER_FIRST, dtype=np.int64)
        last = np.full(len(self._ids), _NEVER_LAST, dtype=np.int64)
        np.minimum.at(first, rows, _ints(groups["first"])[of_moment])
        np.maximum.at(last, rows, _ints(groups["last"])[of_moment])
        return first, last


def _unpacked(keys: Ints) -> tuple[Ints, Ints, Ints]:
    """Return the ordinal day, whether it is in the last 24 hours, and the variant, of each key."""
    kinds, place = np.unique(keys & 0xFFFFFFFF, return_inverse=True)
    kind = np.array([_kind_of(packed) for packed in kinds.tolist()], dtype=np.int64)[place]
    when = keys >> 32
    day = (when >> 2) + _EPOCH
    return day, (when >> 1) & 1 == 1, 4 * kind + 2 * (when & 1) + at_weekend(day)


def _kind_of(packed: int) -> int:
    """Return the index of the kind that the four codes stand for."""
    codes = [(packed >> shift) & 255 for shift in (24, 16, 8, 0)]
    event_type, result, product, method = (
        None if code == _NONE else listed[code]
        for listed, code in zip(_CODES.values(), codes, strict=True)
    )
    return KIND_INDEX.get(
        Kind(
            event_type or "",
            result,
            product or OTHER if event_type in _WITH_PRODUCT else None,
            method or OTHER if event_type in _WITH_METHOD else None,
        ),
        0,
    )


def _ints(column: pl.Series) -> Ints:
    """Return a column as int64, times as microseconds since 1970."""
    found: Ints = column.cast(pl.Int64).to_numpy()
    return found
