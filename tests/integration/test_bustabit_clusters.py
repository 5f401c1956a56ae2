"""The published clustering of bustabit, from the shipped mapping and measures to an export."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from configs.brands import load_brands
from crm.domain.brands import Brand
from crm.domain.event_columns import EventColumns
from crm.domain.feature_list import features_of
from crm.domain.feature_table import FeatureTable
from crm.domain.ports import Columns
from crm.domain.times import to_us
from pipelines.chunks import choose_brand, load_mapping, plan
from pipelines.cluster_engine import Here
from pipelines.cluster_inputs import Request, needed_features
from pipelines.cluster_model import Made, train
from pipelines.cluster_report import Origin
from pipelines.clustering import export
from pipelines.imports import import_files
from tests.support.imports import RememberingShards, in_process, stores

CLONE = Path(__file__).parents[2]
BETS = CLONE.parent / "shared" / "data" / "bustabit" / "bustabit.csv.gz"
AT = datetime(2016, 12, 11, tzinfo=UTC)
SIX = (
    "mean_exit_lifetime", "mean_stake_amount_lifetime", "profit_sum_lifetime",
    "lost_stake_sum_lifetime", "win_count_lifetime", "loss_count_lifetime",
)  # fmt: skip
BEST = 9_843.5

pytestmark = [
    pytest.mark.skipif(not BETS.exists(), reason="no real data at ../shared/data"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def brand() -> Brand:
    return load_brands(CLONE / "configs" / "brands")["bustabit"]


@pytest.fixture(scope="module")
def columns(brand: Brand, tmp_path_factory: pytest.TempPathFactory) -> Columns:
    """All players, as the shards give them."""
    shards, brands = RememberingShards(), {"bustabit": brand}
    mapping = load_mapping(CLONE / "configs" / "mappings" / "bustabit.yaml")
    planned = plan([BETS], choose_brand(mapping, brands, None))
    import_files(planned, stores(shards, brand), tmp_path_factory.mktemp("import"), in_process)
    features = features_of(brand)
    table = FeatureTable(brand.zone, to_us(AT), features)
    table.apply(EventColumns.of(list(shards.events.values()), features))
    read = {name: table.column(name) for name in needed_features(Request(brand, features=SIX))}
    return Columns(
        AT,
        list(table.player_ids),
        {name: np.array(values) for name, (values, _) in read.items()},
        {name: np.array(mask) for name, (_, mask) in read.items() if mask is not None},
    )


@pytest.fixture(scope="module")
def scaled() -> dict[str, np.ndarray]:
    """The z-scores of each player, from the file itself."""
    bets = pl.read_csv(BETS, null_values="NA", schema_overrides={"Username": pl.String})
    lost = pl.col("CashedOut").is_null()
    six = bets.group_by("Username", maintain_order=True).agg(
        pl.col("CashedOut").fill_null(pl.col("BustedAt") + 0.01).mean().alias("multiplier"),
        pl.col("Bet").mean().alias("stake"),
        pl.col("Profit").cast(pl.Float64).fill_null(0).sum().alias("profit"),
        pl.col("Bet").filter(lost).sum().alias("lost_money"),
        (~lost).sum().alias("won"),
        lost.sum().alias("lost"),
    )
    values = six.drop("Username").cast(pl.Float64).to_numpy()
    z = (values - values.mean(axis=0)) / values.std(axis=0, ddof=1)
    return dict(zip(six["Username"], z, strict=True))


def trained(columns: Columns, request: Request) -> Made:
    return train(columns, request, Origin("r", AT), Here(), lambda _candidate: None)


# three of the five seeds with `make chaos`: each takes a minute
@pytest.mark.parametrize(
    "seed", [1, 2, *(pytest.param(seed, marks=pytest.mark.long) for seed in (3, 4, 5))]
)
def test_five_groups_reach_the_best_known_sum_of_squares_from_any_seed(
    seed: int, brand: Brand, columns: Columns, scaled: dict[str, np.ndarray], tmp_path: Path
) -> None:
    request = Request(brand, algorithm="kmeans", k=5, features=SIX, seed=seed)
    made = trained(columns, request)
    path = tmp_path / "clusters.csv"
    export(made.trained, path)
    told = pl.read_csv(path, schema_overrides={"player_id": pl.String})
    assert told.height == len(scaled) == 4_149
    z = np.array([scaled[player] for player in told["player_id"]])
    labels = told["cluster"].to_numpy()
    assert len(set(labels.tolist())) == 5
    wcss = sum(
        ((z[labels == one] - z[labels == one].mean(axis=0)) ** 2).sum() for one in set(labels)
    )
    assert wcss <= BEST
    assert made.trained.model.metrics.wcss == pytest.approx(wcss, abs=0.1)
    assert sorted(np.bincount(labels)[1:].tolist())[:2] == [2, 3]


def test_the_free_search_says_what_it_chose_and_how_stable_it_is(
    brand: Brand, columns: Columns
) -> None:
    made = trained(columns, Request(brand, features=SIX, seed=1, trials=8))
    metrics = made.trained.model.metrics
    assert metrics.stability > 0.5
    assert metrics.k >= 2
    assert metrics.score is not None
    card = made.handed_over.files["card.md"].decode()
    assert "| stability |" in card
    assert "The best of 8 trials" in card
