"""Player clusters without Ray: scaling, assignment, choice, names, rules, description."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import polars as pl
import pytest
from sklearn.metrics import adjusted_rand_score

from crm.adapters.memory_models import MemoryModels
from crm.domain.brands import Brand, Currency
from crm.domain.cluster_names import names_of
from crm.domain.cluster_rules import Condition, measured
from crm.domain.cluster_shapes import nearest
from crm.domain.clustering import (
    Algorithm,
    CannotCluster,
    Flags,
    Ints,
    PlayerClusters,
    Scaler,
    Scaling,
    assign,
    assign_player,
    in_units,
)
from crm.domain.errors import ClustersNotFound, ModelUnusable, PlayerNotFound
from crm.domain.features import FEATURES, Feature
from crm.domain.ports import Columns, PlayerFeatures
from crm.domain.rule_text import parse
from crm.domain.segments import compile_mask
from crm.services.clustering import ServingClusters, cluster_of, list_clusters
from pipelines.cluster_engine import Here
from pipelines.cluster_fits import Fit
from pipelines.cluster_inputs import Request, check_request, needed_features, prepare
from pipelines.cluster_model import Made, train
from pipelines.cluster_report import Origin, Trained
from pipelines.cluster_search import Candidate, NoClearGrouping, Tried, choose
from pipelines.cluster_space import Plan
from pipelines.clustering import check_export, export
from tests.support.columns import NamedColumns
from tests.support.models import serve
from tests.support.own_measures import OWN

NOW = datetime(2026, 3, 1, tzinfo=UTC)
BRAND = Brand("demo", "Demo", Currency("EUR", 2), "UTC", date(2020, 1, 1), "PT", ("casino",))
PLAY = ("session_count_lifetime", "bet_count_lifetime", "stake_amount_lifetime")


def three_kinds(players: int = 300, seed: int = 1) -> Columns:
    """Casual, regular and high-rolling players, a third each, in this order again and again."""
    rng = np.random.default_rng(seed)
    kind = np.arange(players) % 3
    centres = np.log([(3, 20, 40), (30, 600, 1_200), (10, 60, 60_000)])[kind]
    sessions, bets, staked = np.exp(centres + rng.normal(0, 0.2, (players, 3))).T
    never = kind == 0
    values = {
        "session_count_lifetime": sessions.astype(np.int64) + 1,
        "bet_count_lifetime": bets.astype(np.int64) + 1,
        "stake_amount_lifetime": (staked * 100).astype(np.int64),
        "deposit_count_lifetime": np.where(never, 0, 4),
        "deposit_amount_lifetime": np.where(never, 0, 50_000),
        "days_since_last_deposit": np.where(never, 0, 12),
        "ggr_amount_lifetime": (staked * 4).astype(np.int64),
        "days_since_last_activity": np.full(players, 5),
    }
    ids = [f"player-{n:04d}" for n in range(players)]
    return Columns(NOW, ids, values, {"days_since_last_deposit": never})


def made(columns: Columns, request: Request, before: PlayerClusters | None = None) -> Made:
    """What the pipeline does, with the trials made here instead of in Tune's workers."""
    origin = Origin("run-1", NOW, before)
    return train(columns, request, origin, Here(), lambda _candidate: None)


def trained(columns: Columns, request: Request) -> Trained:
    return made(columns, request).trained


@pytest.fixture(scope="module")
def model() -> Trained:
    return trained(three_kinds(), Request(BRAND, algorithm="kmeans", scaling="log"))


@pytest.mark.parametrize("scaling", get_args(Scaling))
def test_scaled_features_are_comparable_and_a_missing_one_counts_as_the_longest(
    scaling: Scaling,
) -> None:
    values = np.array([[1.0, 5.0], [2.0, 80.0], [300.0, np.nan], [4.0, 7.0]])
    scaler = Scaler.fit(scaling, values)
    scaled = scaler.transform(values)
    assert np.isfinite(scaled).all()
    assert scaled[2, 1] == scaled[1, 1]
    if scaling != "robust":
        assert scaled.std(axis=0, ddof=1) == pytest.approx([1.0, 1.0])


def test_planted_kinds_are_found_without_being_told_how_many(model: Trained) -> None:
    assert model.model.metrics.k == 3
    assert adjusted_rand_score(np.arange(300) % 3, model.labels) == 1.0
    assert model.model.metrics.silhouette > 0.6
    assert model.model.metrics.stability > 0.99


def test_the_same_seed_finds_the_same(model: Trained) -> None:
    again = trained(three_kinds(), Request(BRAND, algorithm="kmeans", scaling="log")).model
    assert again.centroids == model.model.centroids
    assert again.clusters == model.model.clusters


def test_minibatch_k_means_finds_the_kinds_too() -> None:
    labels = trained(three_kinds(), Request(BRAND, algorithm="minibatch_kmeans", k=3)).labels
    assert adjusted_rand_score(np.arange(300) % 3, labels) > 0.95


def test_assigning_the_trained_players_gives_their_clusters_again(model: Trained) -> None:
    columns = three_kinds()
    values = np.column_stack(
        [in_units(FEATURES[name], columns.values[name], None, BRAND.currency) for name in PLAY]
    )
    assert (assign(model.model, values) == model.labels).all()
    raw = {name: int(columns.values[name][2]) for name in columns.values}
    assert assign_player(model.model, raw) == model.labels[2]


def test_profiles_are_in_major_units_and_add_up(model: Trained) -> None:
    columns, clusters = three_kinds(), model.model.clusters
    assert sum(one.size for one in clusters) == 300
    assert sum(one.share for one in clusters) == pytest.approx(1)
    for one in clusters:
        inside = model.labels == one.id
        stakes = columns.values["stake_amount_lifetime"][inside]
        assert one.means["stake_amount_lifetime"] == pytest.approx(stakes.mean() / 100)
        assert {columns.player_ids.index(p) for p in one.players} <= set(np.flatnonzero(inside))


def test_a_mean_leaves_missing_values_out(model: Trained) -> None:
    described = trained(
        three_kinds(),
        Request(BRAND, k=3, features=("bet_count_lifetime", "days_since_last_deposit")),
    )
    means = [one.means["days_since_last_deposit"] for one in described.model.clusters]
    assert set(means) <= {0.0, 12.0}
    assert model.model.whole["deposit_amount_lifetime"] == pytest.approx(500 * 2 / 3)


class _Table(NamedColumns):
    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def column(self, name: str) -> tuple[Ints, Flags | None]:
        return self._columns.values[name], self._columns.missing.get(name)


def test_a_clusters_rule_selects_in_the_rule_language_what_its_precision_says(
    model: Trained,
) -> None:
    for one in model.model.clusters:
        assert one.rule is not None
        assert one.precision is not None
        assert one.recall is not None
        found = compile_mask(parse(one.rule), BRAND, _Table(three_kinds()), 300)
        inside = model.labels == one.id
        assert one.precision == pytest.approx((found & inside).sum() / found.sum())
        assert one.recall == pytest.approx((found & inside).sum() / inside.sum())
        assert min(one.precision, one.recall) > 0.95


def test_a_condition_on_a_missing_value_is_false() -> None:
    raw, missing = {"bet_count_7d": np.array([1, 1])}, {"bet_count_7d": np.array([False, True])}
    wanted = np.array([True, True])
    rule = measured([Condition("bet_count_7d", at_least=False, bound=5)], raw, missing, wanted)
    assert (rule.precision, rule.recall) == (1.0, 0.5)


def test_money_in_a_rule_is_written_in_major_units() -> None:
    condition = Condition("stake_amount_7d", at_least=True, bound=123_450)
    assert condition.text(BRAND) == "stake_amount_7d >= 1234.50"


CASHING = replace(BRAND, measures=OWN[:1])


def cashing_out() -> Columns:
    """Players who cash out at about 1.20, and at about 8; every fourth never did."""
    players = 240
    rng = np.random.default_rng(3)
    late = np.arange(players) % 2 == 0
    columns = three_kinds(players)
    mean = np.where(late, 800, 120) + rng.integers(-9, 10, players)
    never = {"mean_cashout_lifetime": np.arange(players) % 4 == 3}
    return Columns(
        NOW, columns.player_ids, {**columns.values, "mean_cashout_lifetime": mean},
        {**columns.missing, **never},
    )  # fmt: skip


def test_players_are_clustered_by_an_own_feature_in_its_units() -> None:
    request = Request(CASHING, k=2, features=("mean_cashout_lifetime",))
    model = trained(cashing_out(), request).model
    means = sorted(one.means["mean_cashout_lifetime"] for one in model.clusters)
    assert means[0] < 1.4
    assert means[1] == pytest.approx(8.0, abs=0.1)
    rules = [one.rule for one in model.clusters if one.rule is not None]
    assert rules
    for rule in rules:
        assert re.search(r"mean_cashout_lifetime (>=|<) \d+\.\d\d$", rule), rule
        parse(rule, CASHING)
    late = max(model.clusters, key=lambda one: one.means["mean_cashout_lifetime"]).id
    assert assign_player(model, {"mean_cashout_lifetime": 790}) == late
    assert assign_player(model, {"mean_cashout_lifetime": 110}) != late


async def test_clusters_by_a_measure_that_is_gone_can_still_be_read() -> None:
    request = Request(CASHING, k=2, features=("mean_cashout_lifetime",))
    model = trained(cashing_out(), request).model
    models = MemoryModels()
    await serve(models, msgspec.json.decode(msgspec.json.encode(model), type=type(model)))
    (one, *_) = await list_clusters(ServingClusters(models), BRAND.id)
    assert one.means["mean_cashout_lifetime"].unit == "number"
    assert assign_player(model, {}) == model.default_cluster
    with pytest.raises(CannotCluster, match="no such feature"):
        needed_features(replace(request, brand=BRAND))


def test_names_say_what_a_cluster_has_against_the_average() -> None:
    whole = {"stake_amount_lifetime": 100.0, "bet_count_lifetime": 50.0, "ggr_amount_lifetime": 1.0}
    high = {"stake_amount_lifetime": 1200.0, "bet_count_lifetime": 155.0, "ggr_amount_lifetime": 9}
    usual = {"stake_amount_lifetime": 101.0, "bet_count_lifetime": 49.0, "ggr_amount_lifetime": 1.0}
    low = {"stake_amount_lifetime": 10.0, "bet_count_lifetime": 5.0, "ggr_amount_lifetime": 0.1}
    small = {"stake_amount_lifetime": 4.0, "bet_count_lifetime": 52.0, "ggr_amount_lifetime": -1.0}
    assert names_of([high, usual, low, low, small], whole) == [
        "High rollers: stake 12x average, bets 3.1x",
        "Average players",
        "Casual players: stake 0.1x average, bets 0.1x",
        "Casual players: stake 0.1x average, bets 0.1x (2)",
        "Small-stakes players: stake 0.04x average",
    ]


def test_a_short_absence_makes_nobody_lapsed() -> None:
    whole = {"days_since_last_activity": 1.4}
    assert names_of([{"days_since_last_activity": 3.0}], whole) == ["Average players"]
    lapsed = names_of([{"days_since_last_activity": 42.0}], whole)
    assert lapsed == ["Lapsed players: days since last seen 30x average"]


def _candidate(k: int, score: float, smallest: float, loss: float = 0.0) -> Candidate:
    plan = Plan("kmeans", "log", "none", k, k, 1, 0, 0.02)
    tried = Tried({"k": float(k)}, k, score, smallest, 0.0, 1.0, score)
    fit = Fit([[float(n)] for n in range(k)], loss=loss)
    return Candidate(plan, tried, fit, Scaler("log", [], [], []), None, [tried])


def test_a_cluster_below_the_minimum_share_is_never_chosen() -> None:
    good, tiny = _candidate(2, 0.4, 0.5), _candidate(3, -1.5, 0.01)
    assert choose([good, tiny], None, 0.02).best.k == 2
    with pytest.raises(NoClearGrouping, match="no clear grouping"):
        choose([tiny], None, 0.02)


def test_of_a_given_k_the_least_loss_counts() -> None:
    worse, best = _candidate(2, -9.0, 0.5, loss=9.0), _candidate(2, -1.0, 0.0, loss=1.0)
    assert choose([worse, best], 2, 0.01) == best


@pytest.mark.parametrize("algorithm", ["dbscan", "hdbscan"])
def test_a_density_is_not_told_how_many_groups_there_are(algorithm: Algorithm) -> None:
    with pytest.raises(CannotCluster, match="leave out --k"):
        check_request(Request(BRAND, algorithm=algorithm, k=3))


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (Request(BRAND, features=("bet_cuont_7d",)), "no such feature"),
        (Request(BRAND, features=("first_bet_at",)), "point in time"),
        (Request(BRAND, features=("bet_count_7d", "bet_count_7d")), "only once"),
        (Request(BRAND, features=()), "at least one"),
    ],
)
def test_features_that_cannot_be_used_are_refused(request_: Request, says: str) -> None:
    with pytest.raises(CannotCluster, match=says):
        needed_features(request_)


def test_too_few_players_are_refused() -> None:
    with pytest.raises(CannotCluster, match="has 9 players"):
        prepare(three_kinds(9), Request(BRAND))
    with pytest.raises(CannotCluster, match="at least 60"):
        prepare(three_kinds(30), Request(BRAND, k=30))


def test_a_constant_feature_is_refused_when_asked_for_and_left_out_when_not() -> None:
    columns = three_kinds()
    columns.values["session_count_lifetime"][:] = 3
    with pytest.raises(CannotCluster, match="session_count_lifetime: the same for all"):
        prepare(columns, Request(BRAND, features=PLAY))
    assert prepare(columns, Request(BRAND)).features == list(PLAY[1:])


def test_a_brand_without_bets_is_clustered_by_payments() -> None:
    columns = three_kinds()
    for name in PLAY:
        columns.values[name][:] = 0
    features = prepare(columns, Request(BRAND)).features
    assert features == [
        "deposit_count_lifetime",
        "deposit_amount_lifetime",
        "days_since_last_deposit",
    ]


def test_wcss_is_on_z_scores_unless_a_scaling_is_asked_for() -> None:
    searched = trained(three_kinds(), Request(BRAND, trials=1)).model
    assert (searched.scaler.method, searched.metrics.wcss_scaling) == ("log", "zscore")
    asked = trained(three_kinds(), Request(BRAND, scaling="log", k=3)).model
    assert asked.metrics.wcss_scaling == "log"
    fixed = trained(three_kinds(), Request(BRAND, k=3, features=PLAY)).model
    columns = three_kinds()
    values = np.column_stack([columns.values[name] for name in PLAY]).astype(float)
    z = (values - values.mean(axis=0)) / values.std(axis=0, ddof=1)
    centroids = np.array(fixed.centroids)
    expected = ((z - centroids[nearest(centroids, z)]) ** 2).sum()
    assert fixed.metrics.wcss == pytest.approx(expected)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_export_keeps_ids_as_they_are(tmp_path: Path, model: Trained, ending: str) -> None:
    awkward = ["-Dash", "007", "=1+1", 'quo"te', "a,b"]
    some = replace(model, player_ids=awkward, labels=model.labels[:5])
    path = tmp_path / f"clusters.{ending}"
    check_export(path)
    export(some, path)
    types = {"player_id": pl.String}
    back = (
        pl.read_parquet(path) if ending == "parquet" else pl.read_csv(path, schema_overrides=types)
    )
    assert back["player_id"].to_list() == awkward
    assert back["cluster"].to_list() == some.labels.tolist()


@pytest.mark.parametrize("path", ["clusters.txt", "missing-folder/clusters.csv"])
def test_an_export_that_cannot_be_written_is_refused_before_the_work(path: str) -> None:
    with pytest.raises(CannotCluster, match=path):
        check_export(Path(path))


class _OnePlayer:
    """Live features of one player."""

    def __init__(self, **values: int | None) -> None:
        self._values = dict.fromkeys(FEATURES) | values

    async def features(self, brand: str, player_id: str) -> PlayerFeatures:
        if player_id != "known":
            raise PlayerNotFound(f"brand {brand} has no such player")
        return PlayerFeatures(brand, player_id, 0, 1, NOW, dict(self._values))


async def test_clusters_are_listed_with_means_against_the_whole(model: Trained) -> None:
    models = MemoryModels()
    await serve(models, model.model)
    views = await list_clusters(ServingClusters(models), "demo")
    assert [one.size for one in views] == [100, 100, 100]
    stake = views[0].means["stake_amount_lifetime"]
    assert stake.unit == "EUR"
    assert stake.value == f"{model.model.clusters[0].means['stake_amount_lifetime']:.2f}"
    assert stake.whole == f"{model.model.whole['stake_amount_lifetime']:.2f}"
    assert views[0].sample_players


async def test_a_player_is_assigned_by_live_features(model: Trained) -> None:
    models = MemoryModels()
    await serve(models, model.model)
    roller = _OnePlayer(
        session_count_lifetime=10, bet_count_lifetime=60, stake_amount_lifetime=6_000_000
    )
    found = await cluster_of(ServingClusters(models), roller, "demo", "known")
    assert found.cluster == model.labels[2]
    assert found.model == model.model.id


async def test_a_player_without_history_is_in_the_default_cluster(model: Trained) -> None:
    models = MemoryModels()
    await serve(models, model.model)
    found = await cluster_of(
        ServingClusters(models), _OnePlayer(bet_count_lifetime=0), "demo", "known"
    )
    assert found.cluster == model.model.default_cluster == model.labels[0]


async def test_what_is_not_there_is_named(model: Trained) -> None:
    models = MemoryModels()
    with pytest.raises(ClustersNotFound, match="crm train clusters --brand demo"):
        await list_clusters(ServingClusters(models), "demo")
    with pytest.raises(ClustersNotFound):
        await cluster_of(ServingClusters(models), _OnePlayer(), "demo", "known")
    await serve(models, model.model)
    with pytest.raises(PlayerNotFound):
        await cluster_of(ServingClusters(models), _OnePlayer(), "demo", "nobody")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ids": [7, 8, 9]}, "assigns a player to cluster"),
        ({"default_cluster": 9}, "to cluster 9, which it does not describe"),
        ({"features": ["cashout"], "own": [Feature("cashout", "number", "")]}, "crm apply"),
    ],
)
async def test_a_model_that_cannot_place_a_player_says_so(
    model: Trained, changes: dict[str, Any], says: str
) -> None:
    models = MemoryModels()
    await serve(models, msgspec.structs.replace(model.model, **changes))
    values = {} if "default_cluster" in changes else {"bet_count_lifetime": 60}
    with pytest.raises(ModelUnusable, match=says):
        await cluster_of(ServingClusters(models), _OnePlayer(**values), "demo", "known")
