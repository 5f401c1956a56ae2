"""Figures of merit: those that scikit-learn has too are the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from pipelines.score_metrics import (
    auc,
    bins,
    calibration_error,
    gains,
    of_churn,
    of_value,
    realised,
    spearman,
    top_lift,
)

_ROWS = st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.booleans()), min_size=2)


@given(_ROWS)
def test_auc_log_loss_and_brier_are_those_of_scikit_learn(rows: list[tuple[float, bool]]) -> None:
    scores = np.array([score for score, _ in rows])
    truth = np.array([float(true) for _, true in rows])
    found = of_churn(scores, truth)
    if 0 < truth.sum() < len(truth):
        assert found["auc"] == pytest.approx(roc_auc_score(truth, scores))
    else:
        assert found["auc"] == 0.5
    assert found["log_loss"] == pytest.approx(log_loss(truth, scores, labels=[0, 1]))
    assert found["brier"] == pytest.approx(brier_score_loss(truth, scores, labels=[0, 1]))


def test_the_rank_correlation_is_that_of_scipy() -> None:
    rng = np.random.default_rng(1)
    one = rng.integers(0, 9, 200).astype(float)
    other = one + rng.integers(0, 9, 200).astype(float)
    assert spearman(one, other) == pytest.approx(spearmanr(one, other).statistic)
    assert spearman(np.ones(5), np.arange(5.0)) == 0.0


def test_the_calibration_error_is_the_mean_distance_in_tenths_of_the_players() -> None:
    scores = np.repeat([0.2, 0.8], 50)
    truth = np.concatenate([np.arange(50) % 5 == 0, np.arange(50) % 2 == 0]).astype(float)
    assert calibration_error(scores, truth) == pytest.approx((0.0 + 0.3) / 2)
    assert [one.players for one in bins(scores, truth)] == [10] * 10


def test_gain_shares_what_equal_scores_hold_and_chance_has_a_lift_of_one() -> None:
    truth = np.array([1.0, 1, 1, 0, 0, 0, 0, 0, 0, 0])
    same = gains(np.ones(10), truth)
    assert [one.lift for one in same] == pytest.approx([1.0] * 10)
    perfect = gains(np.arange(10.0)[::-1], truth)
    assert [one.gain for one in perfect] == pytest.approx([1 / 3, 2 / 3] + [1.0] * 8)
    assert top_lift(np.arange(10.0)[::-1], truth) == pytest.approx(10 / 3)
    assert top_lift(np.ones(10), np.zeros(10)) == 0.0
    assert auc(np.arange(10.0)[::-1], truth) == 1.0


def test_ranks_say_what_came_true_in_each() -> None:
    scores = np.array([0.1, 0.39, 0.4, 0.85, 0.99])
    ranks, sizes = realised(scores, np.array([0.0, 1, 0, 1, 1]))
    assert sizes == [2, 1, 0, 2]
    assert [(rank.name, rank.realised) for rank in ranks] == [
        ("low", 0.5), ("medium", 0.0), ("high", None), ("critical", 1.0),
    ]  # fmt: skip


def test_amounts_have_their_error_and_their_totals() -> None:
    found = of_value(np.array([1.0, 2.0, 0.0]), np.array([0.0, 4.0, 0.0]))
    assert found["mae"] == pytest.approx(1.0)
    assert (found["total"], found["true_total"]) == (3.0, 4.0)
