"""Fits of scores on invented players: better than their baselines where there is something to find,
the same again from the same seed, calibrated on players of their own, and refused for good reasons.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crm.adapters.scorers import open_scorer
from crm.domain.clustering import Floats
from crm.domain.models import Scorer
from crm.domain.scores import CannotScore
from pipelines import score_fits
from pipelines.score_fits import (
    LEAKS_FROM,
    MOST_FEATURES,
    Fit,
    Sample,
    check,
    chosen,
    fit,
    multiplied,
)
from pipelines.score_inputs import Label, folds_of, sets_of
from pipelines.score_metrics import auc, calibration_error, of_value
from tests.support.scores import a_score_model

NAMES = ["days_since_last_bet", "bet_count_30d", "deposit_count_lifetime"]


def some_rows(players: int = 1_500, seed: int = 1, label: Label = "active") -> Sample:
    """Players who leave by recency, by their bets, and by both together, as trees alone can see."""
    rng = np.random.default_rng(seed)
    values = np.column_stack(
        (rng.integers(0, 60, players), rng.integers(0, 30, players), rng.integers(0, 9, players))
    ).astype(float)
    pull = values[:, 0] / 20 - values[:, 1] / 10 + 3.0 * ((values[:, 0] > 20) == (values[:, 2] > 4))
    chance = 1 / (1 + np.exp(1.5 - pull))
    if label == "active":
        truth = (rng.random(players) < chance).astype(float)
    else:
        truth = rng.poisson(4 * (1 - chance)).astype(float)
    values[rng.random(players) < 0.1, 0] = np.nan
    ids = [f"p{number}" for number in range(players)]
    everybody = np.ones(players, bool)
    return Sample(
        NAMES, values, truth, np.ones(players), sets_of(ids, seed), folds_of(ids, seed, 5),
        everybody, label,
    )  # fmt: skip


def opened(one: Fit) -> Scorer:
    kind = "churn" if one.fitted.calibration.link in {"sigmoid", "curve"} else "value"
    return open_scorer(
        a_score_model(one.fitted, kind=kind, algorithm=one.family, features=one.features)
    )


def said(one: Fit, sample: Sample) -> Floats:
    return opened(one).scores(sample.only(one.features).values)


def test_trees_beat_a_logistic_model_and_that_beats_recency_on_players_of_another_day() -> None:
    sample, later = some_rows(4_000), some_rows(4_000, seed=2)
    found = {
        family: auc(said(fit(family, sample, 0), later), later.truth)
        for family in ("xgboost", "logistic", "recency")
    }
    assert found["xgboost"] > found["logistic"] > found["recency"] > 0.55, found


@pytest.mark.parametrize("family", ["xgboost", "logistic", "recency"])
def test_the_same_rows_and_seed_give_the_same_model_to_the_last_bit(family: str) -> None:
    sample = some_rows(800)
    once, again = (fit(family, sample, 5) for _ in range(2))  # type: ignore[arg-type]  # a family
    assert once.fitted.packed() == again.fitted.packed()
    if family == "xgboost":
        assert fit("xgboost", sample, 6).fitted.packed() != once.fitted.packed()


@pytest.mark.parametrize("curve", [False, True])
@pytest.mark.parametrize("family", ["xgboost", "logistic", "recency"])
def test_probabilities_come_true(family: str, curve: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if curve:
        monkeypatch.setattr(score_fits, "_FOR_A_CURVE", 10)
    sample, later = some_rows(3_000), some_rows(4_000, seed=2)
    one = fit(family, sample, 0)  # type: ignore[arg-type]  # a family
    assert one.fitted.calibration.link == ("curve" if curve else "sigmoid")
    assert calibration_error(said(one, later), later.truth) < 0.07


def test_calibration_looks_at_its_own_players_alone() -> None:
    sample = some_rows(600)
    turned = np.where(sample.sets["calibrate"], 1 - sample.truth, sample.truth)
    one, other = fit("xgboost", sample, 0), fit("xgboost", replace(sample, truth=turned), 0)
    assert one.fitted.margin == other.fitted.margin, "no tree has seen them"
    assert one.fitted.calibration != other.fitted.calibration


def test_nobody_is_in_two_sets_of_players_and_everybody_in_one_at_every_cut_off() -> None:
    ids = [f"player {number}" for number in range(3_000)]
    divided = sets_of(ids, 3)
    assert (np.sum([*divided.values()], axis=0) == 1).all()
    assert {which: round(float(mask.mean()), 1) for which, mask in divided.items()} == {
        "fit": 0.7, "stop": 0.1, "calibrate": 0.2,
    } or divided["fit"].mean() == pytest.approx(0.7, abs=0.03)  # fmt: skip
    part = sets_of(ids[::7], 3)
    assert all((part[which] == mask[::7]).all() for which, mask in divided.items())
    assert (sets_of(ids, 4)["fit"] != divided["fit"]).any()


def test_counts_are_right_in_all_and_less_wrong_than_their_baselines() -> None:
    sample, later = some_rows(3_000, label="deposit_days"), some_rows(seed=2, label="deposit_days")
    found = {
        family: of_value(said(fit(family, sample, 0), later), later.truth)
        for family in ("xgboost", "linear", "recency")
    }
    assert found["xgboost"]["mae"] < min(found["linear"]["mae"], found["recency"]["mae"])
    for one in found.values():
        assert one["total"] == pytest.approx(one["true_total"], rel=0.1)
    assert said(fit("linear", sample, 0), later).min() >= 0


@pytest.mark.parametrize("family", ["xgboost", "linear", "recency"])
def test_a_longer_time_is_a_factor_on_the_score(family: str) -> None:
    sample = some_rows(2_000, label="deposit_days")
    one = fit(family, sample, 0)  # type: ignore[arg-type]  # a family
    assert np.allclose(said(multiplied(one, 2.5), sample), 2.5 * said(one, sample))


def test_the_first_look_leaves_the_features_that_tell_something() -> None:
    sample = some_rows(2_000)
    noise = np.random.default_rng(9).random((2_000, 60))
    wide = replace(
        sample,
        names=[*(f"n{number}" for number in range(60)), *NAMES],
        values=np.column_stack((noise, sample.values)),
    )
    found = chosen(wide, 0)
    assert len(found) <= MOST_FEATURES
    assert found[-3:] == NAMES, "in the list's order"
    assert chosen(sample, 0) == NAMES


def test_one_class_only_is_refused_with_what_there_is() -> None:
    sample = some_rows(600)
    with pytest.raises(CannotScore, match=r"one class only: of \d+ players to fit .* 0 stayed"):
        check(replace(sample, truth=np.ones(600)), "now")
    few = np.zeros(600)
    few[np.flatnonzero(sample.sets["stop"])[:19]] = 1
    few[np.flatnonzero(sample.sets["fit"])[:40]] = 1
    with pytest.raises(CannotScore, match=r"players to stop .* 19 left; at least 20 of each"):
        check(replace(sample, truth=few), "now")
    with pytest.raises(CannotScore, match=r"0 have a deposit_days that is not 0"):
        check(replace(sample, truth=np.zeros(600), label="deposit_days"), "now")
    check(sample, "now")


def test_no_feature_that_differs_is_refused() -> None:
    with pytest.raises(CannotScore, match="no feature tells the players apart now"):
        check(some_rows(600).only([]), "now")


@pytest.mark.parametrize("label", ["active", "deposit_days"])
def test_a_feature_that_knows_what_comes_is_refused_by_name(label: Label) -> None:
    sample = some_rows(2_000, label=label)
    rng = np.random.default_rng(4)
    knows = sample.truth * 100 + rng.random(2_000)
    if label == "deposit_days":
        knows = sample.truth * 1.0
    for column in (knows, -knows, np.where(sample.truth > 0, np.nan, knows)):
        if label == "deposit_days" and np.isnan(column).any():
            continue
        leaking = replace(sample, values=np.column_stack((sample.values[:, :2], column)))
        with pytest.raises(CannotScore, match=r"\(--without deposit_count_lifetime\)"):
            check(leaking, "now")
    unsure = np.where(rng.random(2_000) < 0.02, 1 - sample.truth.clip(0, 1), sample.truth)
    check(replace(sample, values=np.column_stack((sample.values[:, :2], unsure))), "now")
    assert LEAKS_FROM < 1
