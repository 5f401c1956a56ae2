"""What a score is trained on: players at moments of the past, by what was known then, and what
they did afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b, sha256
from typing import Literal, TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from crm.domain.brands import Brand
from crm.domain.clustering import Flags, Floats, Ints, in_units
from crm.domain.feature_list import features_of
from crm.domain.features import Feature
from crm.domain.models import TrainedOn
from crm.domain.scores import CannotScore
from pipelines.batch_features import features_at, labels_after
from pipelines.bgnbd import Purchases
from pipelines.score_plan import Cut, History, Kind, Target

_DAY_US = 86_400_000_000.0
# days since any of these moments is recency; without a moment of the kind there is no such player
RECENCY = ("days_since_last_bet", "days_since_last_deposit")
_OURS = ("event_count", "message_")
_FIRST = ("days_since_", "deposit_", "bet_", "stake_", "ggr_", "ngr_")
_FIT, _STOP = 0.7, 0.85  # shares of the players; the rest calibrates
SET = Literal["fit", "stop", "calibrate"]
Label: TypeAlias = Literal["active", "ngr_amount", "deposit_amount", "bet_days", "deposit_days"]


@dataclass(frozen=True)
class Rows:
    """The players known at a cut-off, by id: raw features as of then, and the labels from after.

    What is the same for all of them is in `constants`: most brands do little of what there is.
    """

    cut: Cut
    features: pa.Table
    constants: Mapping[str, int | None]

    @property
    def players(self) -> list[str]:
        """Return the ids."""
        found: list[str] = self.features["player_id"].to_pylist()
        return found

    def values(self, names: Sequence[str], brand: Brand) -> Floats:
        """Return features in units (players x names), NaN where missing."""
        known = features_of(brand).features
        if not names:
            return np.zeros((self.features.num_rows, 0))
        return np.column_stack([self._in_units(known[name], brand) for name in names])

    def label(self, label: Label, brand: Brand) -> Floats:
        """Return what is to be foreseen: 1 for who left, money in major units, or days."""
        raw = self._raw(f"label_{label}")[0].astype(np.float64)
        if label == "active":
            return 1 - raw
        return raw / 10**brand.currency.decimals if label.endswith("_amount") else raw

    def at_risk(self, days: int) -> Flags:
        """Return who has bet or deposited in the last `days`: nobody else can leave any more."""
        found: Flags = np.zeros(self.features.num_rows, dtype=bool)
        for name in RECENCY:
            since, missing = self._raw(name)
            found |= ~missing & (since < days)
        return found

    def purchases(self, label: Label) -> Purchases:
        """Return what BG/NBD reads: days with a deposit (or a bet) as purchases, in weeks."""
        moment = label.removesuffix("_days")
        days, _ = self._raw(f"{moment}_days_lifetime")
        first, never = self._raw(f"first_{moment}_at")
        last, _ = self._raw(f"last_{moment}_at")
        week, now = 7 * _DAY_US, self.cut.as_of.timestamp() * 1e6
        return Purchases(
            np.maximum(days - 1, 0).astype(np.float64),
            np.where(never, 0, last - first) / week,
            np.where(never, 0, now - first) / week,
        )

    def _in_units(self, feature: Feature, brand: Brand) -> Floats:
        return in_units(feature, *self._raw(feature.name), brand.currency)

    def _raw(self, name: str) -> tuple[Ints, Flags]:
        if name in self.constants:
            value, players = self.constants[name], self.features.num_rows
            return np.full(players, value or 0, np.int64), np.full(players, value is None)
        column = self.features[name]
        missing: Flags = column.is_null().to_numpy()
        values: Ints = column.fill_null(0).to_numpy()
        return values, missing


def history_of(events: pl.LazyFrame, brand: Brand, until: datetime) -> History:
    """Return what there is of a brand until a moment."""
    of_brand = events.filter(pl.col("brand") == brand.id, pl.col("occurred_at") <= until)
    kind, at = pl.col("type"), pl.col("occurred_at")
    found = of_brand.select(
        at.min().alias("first"),
        at.max().alias("last"),
        pl.col("player_id").n_unique().alias("players"),
        (kind == "bet.placed").sum().alias("bets"),
        (kind == "deposit.completed").sum().alias("deposits"),
    ).collect(engine="streaming")
    return History(**found.row(0, named=True))


def rows_at(events: pl.LazyFrame, brand: Brand, cut: Cut) -> Rows:
    """Return the players of a cut-off: what was known by then, and nothing else, are its features.

    `events` holds all events of these players.
    """
    at = cut.as_of.astimezone(UTC)
    found = features_at(events, brand, at, known_by=at)
    return _compact(cut, labels_after(events, brand, at, cut.days, found))


def joined(parts: Sequence[Rows]) -> Rows:
    """Return the players of several parts of one cut-off, by id whatever the parts were."""
    names = dict.fromkeys(name for part in parts for name in part.features.column_names)
    first = parts[0].constants
    names |= dict.fromkeys(
        name for part in parts for name, value in part.constants.items()
        if name not in first or first[name] != value
    )  # fmt: skip
    whole = pa.concat_tables([_with(part, list(names)) for part in parts]).sort_by("player_id")
    return Rows(parts[0].cut, whole, {n: value for n, value in first.items() if n not in names})


def _compact(cut: Cut, table: pa.Table) -> Rows:
    constants: dict[str, int | None] = {}
    for name in table.column_names[1:]:
        column = table[name]
        if column.null_count == table.num_rows:
            constants[name] = None
        elif not column.null_count and (ends := pc.min_max(column).as_py())["min"] == ends["max"]:
            constants[name] = ends["min"]
    return Rows(cut, table.drop_columns(list(constants)), constants)


def _with(part: Rows, names: Sequence[str]) -> pa.Table:
    """Return the columns of a part, those too that are the same for all of it."""
    table = part.features
    for name in names:
        if name in part.constants:
            column = pa.repeat(pa.scalar(part.constants[name], pa.int64()), table.num_rows)
            table = table.append_column(name, column)
    return table.select(list(names))


def label_of(kind: Kind, target: Target, history: History) -> Label:
    """Return what is foreseen; a shop without bets is worth what is deposited.

    Raises CannotScore for a brand with neither bets nor deposits.
    """
    if not history.bets and not history.deposits:
        raise CannotScore("there are neither bets nor deposits: nothing tells who is still there")
    if kind == "churn":
        return "active"
    if target == "money":
        return "ngr_amount" if history.bets else "deposit_amount"
    return "deposit_days" if history.deposits else "bet_days"


def candidates(brand: Brand, label: Label = "active") -> list[str]:
    """Return the features that a score may be made of, those first that people speak of.

    A moment since 1970 would tell the model the date; what happened this very hour says little
    about months, and makes scores nervous; what we send is not what a player does. How often
    somebody will come is foreseen from how often and how lately they came, and nothing else.
    """
    if label.endswith("_days"):
        act = label.removesuffix("_days")
        counted = [f"{act}_days_{window}" for window in ("7d", "30d", "90d", "lifetime")]
        return [f"days_since_last_{act}", *counted, "days_since_registration"]
    names = [
        name
        for name, one in features_of(brand).features.items()
        if one.unit != "time" and not name.endswith("_24h") and not name.startswith(_OURS)
    ]
    return sorted(names, key=lambda name: not name.startswith(_FIRST))


def telling(rows: Sequence[Rows], names: Sequence[str], brand: Brand) -> list[str]:
    """Return the features that differ among players, and from those before them in the list."""
    found: dict[bytes, str] = {}
    for name in names:
        column = np.concatenate([part.values([name], brand)[:, 0] for part in rows])
        present = column[~np.isnan(column)]
        if len(present) and present.min() < present.max():
            found.setdefault(sha256(column.tobytes()).digest(), name)
    return list(found.values())


def sets_of(players: Sequence[str], seed: int) -> dict[SET, Flags]:
    """Divide players for fitting, for stopping and for calibrating; each stays where they are at
    every cut-off, so that nobody is in two of them.
    """
    place = _places(players, seed, b"sets")
    return {"fit": place < _FIT, "stop": (place >= _FIT) & (place < _STOP),
            "calibrate": place >= _STOP}  # fmt: skip


def folds_of(players: Sequence[str], seed: int, folds: int) -> Ints:
    """Divide players into equal folds; each is in one at every cut-off."""
    found: Ints = (_places(players, seed, b"folds") * folds).astype(np.int64)
    return found


def _places(players: Sequence[str], seed: int, purpose: bytes) -> Floats:
    """Return a number from 0 to 1 of each player, the same on every machine."""
    key = purpose + seed.to_bytes(8, "little")
    digests = [blake2b(one.encode(), key=key, digest_size=4).digest() for one in players]
    return np.array([int.from_bytes(one) for one in digests], dtype=np.float64) / 2**32


def trained_on(rows: Sequence[Rows], names: Sequence[str], label: Label, brand: Brand) -> TrainedOn:
    """Return the fingerprint of all rows of a training: ids, features and labels, in order."""
    digest, players = sha256(), set[str]()
    for part in rows:
        digest.update(part.cut.as_of.isoformat().encode() + b"\n")
        digest.update("\n".join(part.players).encode() + b"\n")
        digest.update(part.values(names, brand).tobytes())
        digest.update(part.label(label, brand).tobytes())
        players.update(part.players)
    total = sum(part.features.num_rows for part in rows)
    return TrainedOn(len(players), total, max(p.cut.as_of for p in rows), digest.hexdigest())
