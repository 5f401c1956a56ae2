"""Seeded events as the lake holds them, written file by file without PostgreSQL.

Players are active on some days, a few more often than most; on such a day there is a session, some
bets of one product with their results, and now and then a deposit or a withdrawal.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crm.adapters.lake_events import SCHEMA, VERSION, to_parquet
from crm.domain.brands import Brand
from crm.domain.features import METHODS, PRODUCTS
from crm.domain.lake_files import LakeFile
from crm.domain.shards import SHARDS

AS_OF = datetime(2026, 3, 10, 15, 30, tzinfo=UTC)
EVENTS_A_PLAYER = 50
DAYS = 180
_DAY_US = 86_400_000_000
_BETS = 4  # pairs of a bet and its settlement on an active day
_TYPES = ("session.started", *["bet.placed", "bet.settled"] * _BETS, "session.ended",
          "deposit.completed", "withdrawal.completed")  # fmt: skip
Ints = NDArray[np.int64]


def write_lake(
    folder: Path, brand: Brand, events: int, shards: Iterable[int] = range(SHARDS)
) -> list[LakeFile]:
    """Write about `events` events under `folder`, a file a shard; returns the files.

    `shards` are those that are written, each with its share of the events.
    """
    players = events // EVENTS_A_PLAYER
    files = []
    for shard in shards:
        rng = np.random.default_rng((1, shard))
        of_shard = players // SHARDS + (shard < players % SHARDS)
        if of_shard:
            files.append(_write(folder, shard, _rows(rng, brand, shard, of_shard)))
    return files


def _write(folder: Path, shard: int, rows: pl.DataFrame) -> LakeFile:
    name = f"events/{shard:03d}/{1:012d}-{len(rows):012d}.{shard:08x}.parquet"
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data = to_parquet(rows)
    path.write_bytes(data)
    return LakeFile(shard, 1, len(rows), name, len(data), VERSION)


def _rows(rng: np.random.Generator, brand: Brand, shard: int, players: int) -> pl.DataFrame:
    """Return a shard's events in the order of their time."""
    days = players * EVENTS_A_PLAYER // len(_TYPES)
    player = np.minimum((rng.random(days) ** 1.5 * players).astype(np.int64), players - 1)
    starts = _us(AS_OF) - (rng.random(days) * DAYS * _DAY_US).astype(np.int64)
    product = rng.integers(0, len(PRODUCTS), days)
    method = rng.integers(0, len(METHODS), days)
    kinds = np.tile(np.arange(len(_TYPES)), days)
    of_day = np.repeat(np.arange(days), len(_TYPES))
    at = np.minimum(starts[of_day] + kinds * 180_000_000, _us(AS_OF))
    order = np.argsort(at, kind="stable")
    frame = pl.DataFrame(
        {
            "kind": kinds[order],
            "player": player[of_day][order],
            "at": at[order],
            "product_at": product[of_day][order],
            "method_at": method[of_day][order],
            "amount": rng.integers(0, 20_000, len(order)),
            "won": rng.random(len(order)) < 0.4,
        }
    )
    return _as_the_lake_has_them(frame, brand, shard)


def _as_the_lake_has_them(frame: pl.DataFrame, brand: Brand, shard: int) -> pl.DataFrame:
    kind = pl.lit(pl.Series(_TYPES)).gather(pl.col("kind"))
    at = pl.from_epoch("at", "us").dt.replace_time_zone("UTC")
    settled, session_ends = kind == "bet.settled", kind == "session.ended"
    money = ~kind.str.starts_with("session")
    bet, won = kind.str.starts_with("bet"), pl.col("won")
    seq = pl.int_range(1, pl.len() + 1)
    none = pl.lit(None)
    columns = {
        "shard": pl.lit(shard),
        "seq": seq,
        "brand": pl.lit(brand.id),
        "player_id": pl.format(f"p{shard:03d}-{{}}", pl.col("player")),
        "event_id": pl.format(f"e{shard:03d}-{{}}", seq),
        "type": kind,
        "occurred_at": at,
        "received_at": at,
        "known_at": at,
        "local_day": at.dt.convert_time_zone(brand.time_zone).dt.date(),
        "amount_minor": pl.when(money).then(pl.when(settled & ~won).then(0).otherwise("amount")),
        "currency": pl.when(money).then(pl.lit(brand.currency.code)),
        "backfill": pl.lit(value=False),
        "result": pl.when(settled).then(pl.when(won).then(pl.lit("won")).otherwise(pl.lit("lost"))),
        "product": pl.when(bet).then(pl.lit(pl.Series(PRODUCTS)).gather(pl.col("product_at"))),
        "method": pl.when(kind == "deposit.completed").then(
            pl.lit(pl.Series(METHODS)).gather(pl.col("method_at"))
        ),
        "session_seconds": pl.when(session_ends).then(pl.lit((len(_TYPES) - 3) * 180)),
        "properties": pl.lit("{}"),
    }
    return frame.select(
        columns.get(name, none).cast(type_).alias(name) for name, type_ in SCHEMA.items()
    )


def _us(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
