"""The shipped mappings on the real files: the known totals, to the last unit."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from configs.brands import load_brands
from crm.domain.event_columns import EventColumns
from crm.domain.feature_list import features_of
from crm.domain.feature_table import FeatureTable
from crm.domain.times import to_us
from pipelines.chunks import choose_brand, load_mapping, plan
from pipelines.imports import Report, import_files
from tests.support.imports import RememberingShards, in_process, stores

CLONE = Path(__file__).parents[2]
DATA = CLONE.parent / "shared" / "data"
BETS = DATA / "bustabit" / "bustabit.csv.gz"
DAMAGED = DATA / "bustabit" / "bustabit_copy_shifted_dates_latin1.csv.gz"

pytestmark = [
    pytest.mark.skipif(not DATA.is_dir(), reason="no real data at ../shared/data"),
    pytest.mark.slow,
]


def run(
    shards: RememberingShards, folder: Path, name: str, file: Path, brand: str | None = None
) -> Report:
    brands = load_brands(CLONE / "configs" / "brands")
    mapping = load_mapping(CLONE / "configs" / "mappings" / f"{name}.yaml")
    planned = plan([file], choose_brand(mapping, brands, brand))
    return import_files(planned, stores(shards, *brands.values()), folder, in_process)


def test_bustabit_comes_in_whole_and_its_damaged_copy_changes_nothing(tmp_path: Path) -> None:
    shards = RememberingShards()
    report = run(shards, tmp_path, "bustabit", BETS).as_json()
    assert (report["read"], report["accepted"], report["events"]) == (50_000, 50_000, 100_000)
    assert report["rejected"] == 0
    assert shards.total("bet.placed") == 146_762_549_00
    assert shards.total("bet.settled") == 149_049_667_27
    results = [event.result for event in shards.events.values()]
    assert (results.count("won"), results.count("lost")) == (28_734, 21_266)
    assert len({event.player_id for event in shards.events.values()}) == 4_149
    before = dict(shards.events)
    damaged = run(shards, tmp_path, "bustabit", DAMAGED).as_json()
    assert damaged["rejected_by_reason"] == {
        "conflict": 49_990, "spreadsheet_error": 8, "not_utf8": 2,
    }  # fmt: skip
    assert shards.events == before


def test_the_mean_cash_out_of_every_player_is_that_of_the_file(tmp_path: Path) -> None:
    won = (
        pl.read_csv(BETS, infer_schema=False)
        .filter(pl.col("CashedOut") != "NA")
        .group_by("Username")
        .agg((pl.col("CashedOut").str.to_decimal(scale=2).sum() * 100).cast(pl.Int64), pl.len())
    )
    expected = {player: round(total / count) for player, total, count in won.iter_rows()}
    assert (sum(won["CashedOut"]), len(won), expected["xrnath"]) == (48_462_77, 3_404, 1_08)

    shards = RememberingShards()
    run(shards, tmp_path, "bustabit", BETS)
    bustabit = load_brands(CLONE / "configs" / "brands")["bustabit"]
    features = features_of(bustabit)
    table = FeatureTable(bustabit.zone, to_us(datetime(2016, 12, 11, tzinfo=UTC)), features)
    table.apply(EventColumns.of(list(shards.events.values()), features))
    values, missing = table.column("mean_cashout_lifetime")
    assert missing is not None
    found = {
        player: int(value)
        for player, value, gone in zip(table.player_ids, values, missing, strict=True)
        if not gone
    }
    assert found == expected
    assert len(table) - len(found) == 4_149 - 3_404


def test_the_damaged_copy_comes_into_an_empty_brand_but_for_ten_rows(tmp_path: Path) -> None:
    report = run(RememberingShards(), tmp_path, "bustabit", DAMAGED, "trial")
    assert report.as_json()["accepted"] == 49_990
    assert report.as_json()["rejected_by_reason"] == {"spreadsheet_error": 8, "not_utf8": 2}
    not_utf8 = [fault.line for fault in report.tally.faults(0) if fault.code == "not_utf8"]
    assert not_utf8 == [4947, 6522]
    assert report.tally.doubtful(0) == [10_324, 21_265]
    assert report.quarantine is not None
    assert report.quarantine.read_bytes().count(b"\n") == 11


def test_every_cdnow_purchase_is_kept_and_a_second_import_is_known(tmp_path: Path) -> None:
    shards = RememberingShards()
    file = DATA / "cdnow" / "CDNOW_master.txt.gz"
    assert run(shards, tmp_path, "cdnow", file).tally.accepted == 69_659
    assert shards.total("deposit.completed") == 2_500_315_63
    again = run(shards, tmp_path, "cdnow", file)
    assert (again.tally.accepted, again.tally.duplicates) == (0, 69_659)


def test_the_cdnow_sample_has_no_header(tmp_path: Path) -> None:
    shards = RememberingShards()
    file = DATA / "cdnow" / "CDNOW_sample.txt.gz"
    assert run(shards, tmp_path, "cdnow_sample", file).tally.accepted == 6_919
    assert len({event.player_id for event in shards.events.values()}) == 2_357
