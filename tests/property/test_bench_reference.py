"""What bench/batch.py holds the batch engine against computes the same."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from bench import lake
from bench.batch_totals import columns, polars_totals
from configs.brands import load_brands
from crm.domain.shards import SHARDS
from pipelines.batch_features import features_at

BRAND = load_brands(Path(__file__).parents[2] / "configs" / "brands")["demo"]


def test_the_reference_in_polars_gives_what_the_batch_engine_gives(tmp_path: Path) -> None:
    events = 20 * SHARDS * lake.EVENTS_A_PLAYER
    files = lake.write_lake(tmp_path, BRAND, events, shards=range(2))
    paths = [str(tmp_path / file.name) for file in files]
    theirs = polars_totals(paths, BRAND, lake.AS_OF).sort("player_id")
    ours = pl.from_arrow(features_at(pl.scan_parquet(paths), BRAND, lake.AS_OF))
    assert isinstance(ours, pl.DataFrame)
    assert len(theirs) > 30
    assert {column.name for column in columns()} <= set(ours.columns)
    assert ours.select(theirs.columns).equals(theirs)
    assert all(theirs[name].sum() for name in ("bet_count_7d", "active_days_30d"))
