"""CDNOW: a count that beats BG/NBD and adds up, and churn beside its baselines at two cut-offs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from configs.brands import load_brands
from crm.adapters.scorers import open_scorer
from crm.domain.brands import Brand
from crm.domain.models import ScoreModel
from pipelines.bgnbd import fit_bgnbd
from pipelines.chunks import choose_brand, load_mapping, plan
from pipelines.imports import import_files
from pipelines.score_inputs import history_of, rows_at
from pipelines.score_plan import plan_for
from pipelines.score_report import files_of
from pipelines.score_training import Request, TrainedScore, train_score
from pipelines.score_training import Tested as Shown  # pytest takes it for a test otherwise
from tests.support.imports import RememberingShards, in_process, stores
from tests.support.lake import lake_rows

CLONE = Path(__file__).parents[2]
CDNOW = CLONE.parent / "shared" / "data" / "cdnow"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOLDOUT_DAYS = 273  # 39 weeks from 1997-09-30 on

pytestmark = [
    pytest.mark.skipif(not CDNOW.is_dir(), reason="no real data at ../shared/data"),
    pytest.mark.slow,
]


def purchases(folder: Path, name: str, file: str) -> tuple[pl.LazyFrame, Brand]:
    """Import a file with its shipped mapping; return the lake's rows."""
    brands, shards = load_brands(CLONE / "configs" / "brands"), RememberingShards()
    mapping = load_mapping(CLONE / "configs" / "mappings" / f"{name}.yaml")
    planned = plan([CDNOW / file], choose_brand(mapping, brands, None))
    import_files(planned, stores(shards, *brands.values()), folder, in_process)
    return lake_rows(list(shards.events.values())).lazy(), brands["cdnow"]


def trained(events: pl.LazyFrame, request: Request) -> TrainedScore:
    history = history_of(events, request.brand, NOW)
    planned = plan_for(request.brand.id, request.kind, request.horizon_days, history)
    rows = {cut: rows_at(events, request.brand, cut) for cut in planned.cuts}
    return train_score(request, planned, history, rows, NOW, "model")


def by_model(tested: list[Shown]) -> dict[str, dict[str, float]]:
    return {one.model: one.metrics for one in tested}


def test_counts_of_the_sample_beat_bg_nbd_and_add_up_from_five_seeds(tmp_path: Path) -> None:
    events, brand = purchases(tmp_path, "cdnow_sample", "CDNOW_sample.txt.gz")
    for seed in range(5):
        found = trained(events, Request(brand, "value", HOLDOUT_DAYS, "count", seed=seed))
        test = found.plan.trials[0].test
        assert (test.as_of, test.days) == (datetime(1997, 9, 30, tzinfo=UTC), HOLDOUT_DAYS)
        assert all(
            cut.as_of.timestamp() + 86_400 * cut.days <= test.as_of.timestamp()
            for cut in found.plan.trials[0].fit
        ), "no label of a fit is from the holdout"
        # by hand: from the rows of the holdout, and what the stored model says of them
        rows = rows_at(events, brand, test)
        truth = rows.label("deposit_days", brand)
        assert (len(truth), truth.sum()) == (2_357, 1_882)
        stored = msgspec.json.decode(msgspec.json.encode(found.model), type=ScoreModel)
        said = open_scorer(stored).scores(rows.values(stored.features, brand))
        reference = fit_bgnbd(rows.purchases("deposit_days"))
        assert [round(one, 3) for one in (reference.r, reference.alpha)] == [0.243, 4.414]
        assert (round(reference.a, 2), round(reference.b, 2)) == (0.79, 2.43)
        assert round(reference.log_likelihood, 1) == -9582.4
        expected = reference.expected(rows.purchases("deposit_days"), HOLDOUT_DAYS / 7)
        assert np.abs(said - truth).mean() < np.abs(expected - truth).mean()
        assert said.sum() == pytest.approx(1_882, rel=0.1)
        figures = by_model(found.of_newest())
        assert figures["xgboost"]["mae"] == pytest.approx(float(np.abs(said - truth).mean()))
        assert figures["bgnbd"]["mae"] == pytest.approx(float(np.abs(expected - truth).mean()))
        assert found.beats_baseline


def test_churn_of_the_master_file_stands_beside_its_baselines_at_two_cut_offs(
    tmp_path: Path,
) -> None:
    events, brand = purchases(tmp_path, "cdnow", "CDNOW_master.txt.gz")
    found = trained(events, Request(brand, "churn", 30))
    tests = sorted({one.as_of for one in found.tested})
    assert [f"{at:%Y-%m-%d}" for at in tests] == ["1998-05-01", "1998-05-31"]
    for at in tests:
        for group in ("all", "at risk"):
            shown = [one for one in found.tested if (one.as_of, one.group) == (at, group)]
            assert len({one.players for one in shown}) == 1, "the same rows"
            figures = by_model(shown)
            assert figures.keys() == {"xgboost", "logistic", "recency"}
            assert figures["xgboost"]["log_loss"] < figures["logistic"]["log_loss"]
            assert figures["logistic"]["log_loss"] < figures["recency"]["log_loss"]
            assert figures["xgboost"]["auc"] > figures["recency"]["auc"] + 0.01
        everybody = by_model([o for o in found.tested if (o.as_of, o.group) == (at, "all")])
        assert everybody["xgboost"]["auc"] > 0.84
        assert everybody["xgboost"]["calibration_error"] < 0.02
    realised = [rank.realised for rank in found.model.ranks]
    assert None not in realised
    assert realised == sorted(realised, key=float)  # type: ignore[arg-type]  # none is None
    files = files_of(found)
    assert files["calibration.png"].startswith(b"\x89PNG")
    card = files["card.md"].decode()
    assert "| 1998-05-31 | at risk |" in card
    assert "xgboost beats every baseline" in card
