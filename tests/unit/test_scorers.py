"""Opened score models: the same score alone or among many, reasons that add up, calibration."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from crm.adapters.scorers import Calibration, Fitted, Trees, open_scorer
from crm.domain.errors import ModelUnreadable
from crm.domain.models import ScoreModel
from crm.domain.scores import ranks_of, values_of
from tests.support.scores import FEATURES, a_score_model, of_trees, some_players, weighted

KINDS = pytest.mark.parametrize("fitted", [weighted, of_trees])
MakeFitted = Callable[[Calibration | None], Fitted]


def _log_odds(scores: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[float]:
    return [math.log(p / (1 - p)) for p in scores.tolist()]


@KINDS
def test_a_player_scores_the_same_alone_and_among_many(fitted: MakeFitted) -> None:
    scorer = open_scorer(a_score_model(fitted(None)))
    values = some_players(500, seed=7)
    together = scorer.scores(values)
    alone = [float(scorer.scores(values[i : i + 1])[0]) for i in range(len(values))]
    assert together.tolist() == alone
    assert len(set(alone)) > 20
    assert 0 < min(alone) < max(alone) < 1


@KINDS
def test_all_reasons_of_a_player_add_up_to_the_way_from_the_mean(fitted: MakeFitted) -> None:
    scorer = open_scorer(a_score_model(fitted(None)))
    values = some_players(100, seed=3)
    reasons = scorer.reasons(values, most=len(FEATURES))
    sums = [sum(one.effect for one in of_player) for of_player in reasons]
    base = np.array(_log_odds(scorer.scores(values))) - np.array(sums)
    assert np.allclose(base, base[0], atol=1e-4), "what is left over is the same for everybody"


@KINDS
def test_reasons_name_the_largest_effects_first_with_the_players_own_values(
    fitted: MakeFitted,
) -> None:
    scorer = open_scorer(a_score_model(fitted(None)))
    values = some_players(50, seed=4)
    for row, reasons in zip(values, scorer.reasons(values, most=2), strict=True):
        assert 1 <= len(reasons) <= 2
        effects = [abs(reason.effect) for reason in reasons]
        assert effects == sorted(effects, reverse=True)
        for reason in reasons:
            value = row[FEATURES.index(reason.feature)]
            assert reason.value == (None if np.isnan(value) else value)
    gone, there = scorer.reasons(np.array([[85.0, 25, 100], [2.0, 25, 100]]), most=1)
    assert (gone[0].feature, there[0].feature) == (FEATURES[0], FEATURES[0])
    assert gone[0].effect > 0 > there[0].effect


@KINDS
def test_a_model_survives_being_stored_and_opened_in_another_process(fitted: MakeFitted) -> None:
    model = a_score_model(fitted(None))
    values = some_players(20)
    stored = msgspec.json.decode(msgspec.json.encode(model), type=ScoreModel)
    assert stored == model
    assert open_scorer(stored).scores(values).tolist() == open_scorer(model).scores(values).tolist()


@KINDS
def test_no_players_have_no_scores_and_no_reasons(fitted: MakeFitted) -> None:
    scorer = open_scorer(a_score_model(fitted(None)))
    nobody = np.zeros((0, len(FEATURES)))
    assert scorer.scores(nobody).tolist() == []
    assert list(scorer.reasons(nobody)) == []


@pytest.mark.parametrize(
    ("calibration", "expected"),
    [
        (Calibration("sigmoid"), [0.0, 0.5, 1.0]),
        (Calibration("sigmoid", slope=0.0, shift=math.log(3)), [0.75] * 3),
        (Calibration("curve", at=[-1.0, 1.0], to=[0.2, 0.6]), [0.2, 0.4, 0.6]),
        (Calibration("line", slope=2.0, shift=1.0), [-1999.0, 1.0, 2001.0]),
        (Calibration("line", slope=2.0, shift=1.0, least=0.0), [0.0, 1.0, 2001.0]),
        (Calibration("exponential", slope=0.001, shift=math.log(2)), [2 / math.e, 2, 2 * math.e]),
    ],
)
def test_a_calibration_turns_margins_into_scores(
    calibration: Calibration, expected: list[float]
) -> None:
    with np.errstate(all="raise"):
        found = calibration.apply(np.array([-1000.0, 0.0, 1000.0]))
    assert found.tolist() == pytest.approx(expected, abs=1e-12)


def test_what_cannot_be_opened_is_one_clear_error_that_travels() -> None:
    good = of_trees(None)
    bad: list[tuple[ScoreModel, dict[str, Any]]] = [
        (a_score_model(), {"fitted": b"nonsense"}),
        (a_score_model(), {"fitted": Fitted(Trees(b"{"), Calibration("sigmoid")).packed()}),
        (a_score_model(), {"features": FEATURES[:2]}),
        (a_score_model(good), {"features": FEATURES[:2]}),
    ]
    for model, change in bad:
        with pytest.raises(ModelUnreadable, match=r"^model churn-1 [^\n]+$") as caught:
            open_scorer(msgspec.structs.replace(model, **change))
        again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
        assert again.message == caught.value.message


def test_raw_columns_become_what_a_scorer_takes() -> None:
    raw = {
        "days_since_last_bet": np.array([3, 0]),
        "bet_count_30d": np.array([7, 0]),
        "deposit_amount_lifetime": np.array([12_345, 0]),
    }
    values = values_of(a_score_model(), raw, {"days_since_last_bet": np.array([False, True])})
    assert values[0].tolist() == [3.0, 7.0, 123.45]
    assert np.isnan(values[1, 0])
    assert values[1, 1:].tolist() == [0.0, 0.0]


def test_a_rank_begins_at_its_bound() -> None:
    ranks = a_score_model().ranks
    found = ranks_of(ranks, np.array([0.0, 0.39, 0.4, 0.6, 0.85, 1.0]))
    assert [ranks[place].name for place in found.tolist()] == [
        "low", "low", "medium", "high", "critical", "critical",
    ]  # fmt: skip


def test_no_score_and_a_score_below_all_ranks_have_none() -> None:
    assert ranks_of(a_score_model().ranks, np.array([np.nan, -0.1])).tolist() == [-1, -1]
    assert ranks_of([], np.array([0.5, np.nan])).tolist() == [-1, -1]
