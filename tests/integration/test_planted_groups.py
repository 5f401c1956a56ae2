"""Planted groups are found wherever the truth itself can tell them; noise is not grouped."""

from __future__ import annotations

import pytest
from sklearn.metrics import adjusted_rand_score

from pipelines.cluster_engine import Here
from pipelines.cluster_inputs import Request
from pipelines.cluster_model import Made, train
from pipelines.cluster_report import Origin
from pipelines.cluster_search import NoClearGrouping
from tests.support.planted import BRAND, END, planted

pytestmark = pytest.mark.slow
TOLD = 0.95  # by a classifier that knows the true centres and spread
FOUND = 0.9


def trained(columns: object, seed: int) -> Made:
    request = Request(BRAND, seed=seed, trials=10)
    return train(columns, request, Origin("r", END), Here(), lambda _candidate: None)  # type: ignore[arg-type]  # columns


# the other seeds with `make chaos`: each search takes seconds
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 5))]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("k", "separation"), [(2, 6.0), (3, 6.0), (4, 6.0), (6, 8.0)])
def test_what_the_truth_can_tell_apart_is_found(k: int, separation: float, seed: int) -> None:
    columns, group, truth = planted(k, separation, seed, players=600)
    assert truth >= TOLD, "else nobody could be asked to find them"
    made = trained(columns, seed)
    assert adjusted_rand_score(group, made.trained.labels) >= FOUND
    assert made.trained.model.metrics.k == k


@pytest.mark.parametrize("seed", SEEDS)
def test_groups_that_are_none_are_no_clear_grouping(seed: int) -> None:
    columns, _, truth = planted(3, 0.0, seed, players=600)
    assert truth < 0.05
    with pytest.raises(NoClearGrouping, match="no clear grouping"):
        trained(columns, seed)
