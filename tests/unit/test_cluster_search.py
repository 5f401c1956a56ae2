"""The search without Ray: every algorithm, the objective, the order of trials, noise."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from crm.domain.cluster_shapes import Cores, Floats, Ints, Mixture
from crm.domain.clustering import ALGORITHMS, Algorithm, Scaler
from pipelines.cluster_fits import fit, settle, thinned
from pipelines.cluster_quality import dbcv, silhouette, stability, stand_apart
from pipelines.cluster_search import (
    NoClearGrouping,
    Sample,
    check_clear,
    choose,
    search_here,
    try_plan,
)
from pipelines.cluster_space import Plan, Proposals, Space

NOW = datetime(2026, 3, 1, tzinfo=UTC)
EVERY = Space(ALGORITHMS, ("log", "zscore", "robust", "quantile"), ("none", "pca"), None, 0, 0.01)


def clouds(separation: float, n: int = 600, k: int = 3, seed: int = 0) -> tuple[Floats, Ints]:
    """Players in `k` log-normal clouds at the corners of a simplex, and whose each is."""
    rng = np.random.default_rng(seed)
    group = np.arange(n) % k
    centres = np.eye(3)[:k] / np.sqrt(2) * separation * 0.15
    return np.exp(3 + centres[group] + rng.normal(0, 0.15, (n, 3))), group


def sample(values: Floats) -> Sample:
    return Sample(values, {one: Scaler.fit(one, values) for one in EVERY.scalings}, "log")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_finds_groups_that_are_far_apart(algorithm: Algorithm) -> None:
    values, group = clouds(12.0)
    space = Space((algorithm,), ("log",), ("none",), None, 0, 0.05)
    found = try_plan(sample(values), space.plan(space.points()[0]))
    assert found.best.k == 3
    labels = found.groups(values)
    assert adjusted_rand_score(group, labels) > 0.95
    assert found.best.stability is not None
    assert found.best.stability > 0.9
    assert found.score > 0.4


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_same_plan_finds_the_same(algorithm: Algorithm) -> None:
    values, _ = clouds(8.0)
    plan = EVERY.plan(
        {"algorithm": algorithm, "scaling": "quantile", "reduction": "pca", "part": 0}
    )
    assert try_plan(sample(values), plan) == try_plan(sample(values), plan)


@pytest.mark.parametrize(("seed", "k"), [(0, 2), (1, 4)])
def test_noise_without_groups_is_no_clear_grouping(seed: int, k: int) -> None:
    values, _ = clouds(0.0, n=800, seed=seed)
    values[:, 2] *= values[:, 0] ** k  # a long cloud too, and one that is not round
    some = sample(values)
    found = search_here(some, EVERY, 8, 4)
    with pytest.raises(NoClearGrouping, match="no clear grouping"):
        check_clear(some, choose(found, None, 0.01))


def test_groups_that_touch_stand_apart_and_halves_of_one_cloud_do_not() -> None:
    values, group = clouds(4.5, n=900)
    points = np.log(values)
    assert stand_apart(points, group) == 3
    assert stand_apart(points, np.where(group == 2, -1, group)) == 2
    cloud = np.random.default_rng(1).normal(size=(900, 3)) * (5, 1, 1)
    halves = fit(cloud, "kmeans", {"k": 4.0}, 0, 5).groups(cloud)
    assert stand_apart(cloud, halves) == 1


# --- the order of trials -------------------------------------------------------------------------


def proposed(order: list[int], lag: int) -> list[str]:
    """The plans of a search whose trials end in the order of `order`, those under way."""
    proposals, plans = Proposals(EVERY, 20, lag), list[str]()
    running: list[tuple[int, Plan]] = []
    while not proposals.over or running:
        while not proposals.over and (one := proposals.next()) is not None:
            running.append(one)
            plans.append(one[1].digest)
        number, plan = running.pop(order[len(plans) % len(order)] % len(running))
        proposals.done(number, (int(plan.digest, 16) % 1000) / 1000)
    return plans


def test_the_trials_do_not_depend_on_which_of_them_ends_first() -> None:
    first = proposed([0], 4)
    assert len(set(first)) == 20, "no trial twice"
    assert proposed([3, 1, 2], 4) == first
    assert proposed([-1], 4) == first
    assert [one.digest for one in _alone()] == first, "one at a time too"
    assert proposed([0], 1) != first, "another lag may choose otherwise"


def _alone() -> list[Plan]:
    proposals, plans = Proposals(EVERY, 20, 4), list[Plan]()
    while not proposals.over:
        found = proposals.next()
        assert found is not None
        plans.append(found[1])
        proposals.done(found[0], (int(found[1].digest, 16) % 1000) / 1000)
    return plans


def test_optuna_goes_where_the_scores_are_high() -> None:
    proposals, liked = Proposals(EVERY, 25, 1), []
    while not proposals.over:
        found = proposals.next()
        assert found is not None
        liked.append(found[1].scaling == "robust")
        proposals.done(found[0], float(liked[-1]))
    assert sum(liked[5:]) >= 6, "there are ten such points of forty"


def test_a_budget_lets_no_new_trial_begin_and_the_first_always() -> None:
    values, _ = clouds(8.0, n=200)
    space = Space(("kmeans",), ("log", "zscore"), ("none",), None, 0, 0.01)
    assert len(search_here(sample(values), space, 5, 4, budget_s=1e-9)) == 1
    assert len(search_here(sample(values), space, 5, 4)) == 2


# --- parts ---------------------------------------------------------------------------------------


def test_a_mixture_recognises_what_scikit_learn_does() -> None:
    from sklearn.mixture import GaussianMixture

    values, _ = clouds(5.0)
    points = np.log(values)
    model = GaussianMixture(3, random_state=0).fit(points)
    mixture = Mixture(
        model.weights_.tolist(), model.means_.tolist(), model.precisions_cholesky_.tolist()
    )
    assert (mixture.likeliest(points) == model.predict(points)).all()


def test_cores_hold_whom_they_reach() -> None:
    cores = Cores([[0.0], [10.0]], [0, 1], [1.0, 3.0])
    assert cores.nearest(np.array([[0.9], [2.0], [7.5], [13.5]])).tolist() == [0, -1, 1, -1]


def test_thinned_points_are_near_all_the_others() -> None:
    points = np.random.default_rng(0).normal(size=(500, 2))
    rows, gap = thinned(points, 60)
    away = np.linalg.norm(points[:, None] - points[rows][None], axis=2).min(axis=1)
    assert len(set(rows.tolist())) == 60
    assert away.max() == pytest.approx(gap)


@pytest.mark.parametrize("algorithm", ["kmeans", "minibatch_kmeans", "gmm"])
def test_a_fit_settles_on_more_points_without_changing_who_is_who(algorithm: Algorithm) -> None:
    values, group = clouds(8.0, n=3_000)
    points = np.log(values)
    first = fit(points[:300], algorithm, {"k": 3.0}, 0, 3)
    settled = settle(points, algorithm, first, 0)
    assert adjusted_rand_score(group, settled.groups(points)) > 0.98
    assert adjusted_rand_score(first.groups(points), settled.groups(points)) > 0.95
    assert np.allclose(first.centroids, settled.centroids, atol=0.1)


def test_dbcv_is_high_for_dense_groups_and_low_for_a_cut_cloud() -> None:
    values, group = clouds(14.0)
    assert dbcv(np.log(values), group, 0) > 0.5
    cloud = np.random.default_rng(0).normal(size=(600, 3))
    assert dbcv(cloud, (cloud[:, 0] > 0).astype(np.int64), 0) < 0
    assert dbcv(cloud, np.full(600, -1), 0) == 0


def test_quality_bears_players_who_are_all_alike() -> None:
    points = np.repeat(np.array([[0.0, 0.0], [1.0, 1.0]]), 50, axis=0)
    labels = np.repeat([0, 1], 50)
    assert silhouette(points, labels, 0) == 1.0
    assert np.isfinite(dbcv(points, labels, 0))


def test_stability_is_low_for_groups_that_are_not_there() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(600, 3))
    values, _ = clouds(8.0)

    def rated(points: Floats, k: int) -> float:
        labels = fit(points, "kmeans", {"k": float(k)}, 0, 3).groups(points)
        again = lambda some: fit(some, "kmeans", {"k": float(k)}, 0, 3).groups  # noqa: E731 - short
        return stability(points, labels, again, 0)

    assert rated(np.log(values), 3) > 0.95
    assert rated(noise, 6) < 0.8
