"""Ids of clusters stay with their players from training to training."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from crm.adapters.memory_models import MemoryModels
from crm.adapters.scorers import open_scorer
from crm.domain.clustering import NOISE, PlayerClusters, assign, assign_player
from crm.domain.ports import Columns
from crm.services.clustering import view
from crm.services.served_models import ServedModels
from pipelines.cluster_engine import Here
from pipelines.cluster_inputs import Request, matrix, prepare
from pipelines.cluster_matching import matched, moves_of
from pipelines.cluster_model import Made, train
from pipelines.cluster_report import Origin, describe
from pipelines.cluster_search import try_plan
from tests.support.planted import BRAND, END, PLAY, planted
from tests.support.predictions import as_trained


def made(columns: Columns, before: PlayerClusters | None = None, **asked: object) -> Made:
    request = Request(BRAND, **({"algorithm": "kmeans", "k": 3, "scaling": "log"} | asked))  # type: ignore[arg-type]  # options
    return train(columns, request, Origin("run-1", END, before), Here(), lambda _candidate: None)


@pytest.fixture(scope="module")
def columns() -> Columns:
    return planted(3, 8.0, 1, players=240)[0]


@pytest.fixture(scope="module")
def first(columns: Columns) -> PlayerClusters:
    return made(columns).trained.model


def test_another_algorithm_and_order_keep_the_ids(columns: Columns, first: PlayerClusters) -> None:
    ids = [5, 9, 7]
    clusters = [msgspec.structs.replace(c, id=i) for c, i in zip(first.clusters, ids, strict=True)]
    before = msgspec.structs.replace(first, ids=ids, clusters=clusters, last_id=12, id="m0")
    again = made(columns, before, algorithm="gmm", seed=4).trained
    former = assign(before, matrix(columns, before.features, BRAND))
    assert (again.labels == former).mean() > 0.98
    assert {one.id for one in again.model.clusters} == {5, 7, 9}
    assert again.model.before == "m0"
    assert sum(one.players for one in again.model.moves if one.before == one.after) > 235
    more = made(columns, before, k=4).trained.model
    assert max(one.id for one in more.clusters) == 13, "a new group, and never an old id"
    assert more.highest_id == 13


def test_without_the_match_ids_would_be_by_size(columns: Columns, first: PlayerClusters) -> None:
    assert [one.id for one in first.clusters] == [1, 2, 3]
    assert first.moves == []


def test_the_pairing_is_best_as_a_whole_and_little_in_common_is_no_match() -> None:
    former = np.repeat([1, 2], [60, 40])
    groups = np.repeat([0, 1, 0], [55, 5, 40])  # group 0 is most of both; 1 is a bit of cluster 1
    assert matched(groups, 2, former, [1, 2], 2) == [1, 3]
    assert matched(np.repeat([1, 0], [60, 40]), 2, former, [1, 2], 2) == [2, 1]
    assert matched(np.zeros(100, np.int64), 1, np.full(100, NOISE), [NOISE], 2) == [3]


def test_moves_add_up_to_the_players() -> None:
    moves = moves_of(np.array([1, 1, 2, 0]), np.array([1, 2, 2, 0]))
    assert [(one.before, one.after, one.players) for one in moves] == [
        (0, 0, 1), (1, 1, 1), (1, 2, 1), (2, 2, 1)
    ]  # fmt: skip


@pytest.mark.parametrize("algorithm", ["gmm", "dbscan", "hdbscan"])
def test_a_document_assigns_what_the_training_did(algorithm: str) -> None:
    columns, group, _ = planted(3, 12.0, 2, players=300)
    done = made(columns, k=3 if algorithm == "gmm" else None, algorithm=algorithm, min_share=0.05)
    model = msgspec.json.decode(done.handed_over.document, type=PlayerClusters)
    values = matrix(columns, PLAY, BRAND)
    assert (assign(model, values) == done.trained.labels).all()
    assert adjusted_rand_score(group, done.trained.labels) > 0.9
    assert model.default_cluster != NOISE
    params = done.handed_over.params
    assert params["asked.algorithm"] == params["algorithm"] == algorithm
    assert ("k" in params, params.get("asked.k")) == (True, "3" if algorithm == "gmm" else None)
    noise = [one for one in model.clusters if one.noise]
    assert [one.id for one in noise] == ([] if model.cores is None else [NOISE])
    far = np.array([[1e9, 1e9, 1e12]])
    assert bool(assign(model, far)[0] == NOISE) == (model.cores is not None)


async def test_a_density_that_left_nobody_out_serves_and_takes_an_outlier_for_noise() -> None:
    columns, _, _ = planted(2, 12.0, 2, players=200)
    request = Request(BRAND, algorithm="hdbscan", scaling="log")
    prepared = prepare(columns, request)
    space = request.space(len(prepared.features))
    chosen = try_plan(prepared.sample, space.plan(space.points()[0]))
    everybody = np.maximum(chosen.groups(prepared.values), 0)
    described = describe(columns, request, prepared, chosen, everybody, Origin("run-1", END)).model
    (noise,) = [one for one in described.clusters if one.noise]
    assert (noise.id, noise.size, noise.share, noise.players) == (NOISE, 0, 0.0, [])
    assert (noise.rule, noise.means, noise.differences) == (None, {}, [])
    models = MemoryModels()
    await models.add(as_trained(described))
    await models.promote(described.id, "a key")
    served = ServedModels(models, {BRAND.id: BRAND}, open_scorer, lambda: 0.0)
    await served.refresh()
    assert served.state.state == "ok"
    shown = described.cluster(assign_player(described, dict.fromkeys(PLAY, 10**11)))
    assert view(described, shown).noise


def test_the_card_and_every_picture_are_there(columns: Columns, first: PlayerClusters) -> None:
    done = made(columns, first)
    files = done.handed_over.files
    for name in ("sizes", "profiles", "projection", "silhouette"):
        assert files[f"{name}.png"].startswith(b"\x89PNG"), name
        assert files[f"{name}.csv"].count(b"\n") > 3, name
    card = files["card.md"].decode()
    for said in ("# Player clusters of demo", "Rule: `", "## Who moved where", "stability"):
        assert said in card
    assert b"run-1" not in files["projection.csv"]
    assert not any(player in files["projection.csv"].decode() for player in columns.player_ids)
    assert made(columns, first).handed_over.files == files, "the same bytes each time"
