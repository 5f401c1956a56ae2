"""Where scores are trained and tested: no label is seen before its time, and no is a clear no."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm.domain.scores import CannotScore
from pipelines.score_plan import Cut, History, Kind, Plan, plan_for, span_of

LAST = datetime(2026, 3, 1, 12, tzinfo=UTC)


def a_history(days: float = 400, players: int = 1_000) -> History:
    return History(LAST - timedelta(days=days), LAST, players, bets=10_000, deposits=500)


def a_plan(days: float, kind: Kind = "churn", horizon: int = 30, tests: int = 2) -> Plan:
    return plan_for("demo", kind, horizon, a_history(days), tests)


@given(
    st.integers(1, 120), st.floats(0, 900), st.sampled_from(["churn", "value"]), st.integers(1, 3)
)
def test_every_label_of_a_fit_ends_before_its_test_begins_and_features_have_a_past(
    horizon: int, days: float, kind: Kind, tests: int
) -> None:
    try:
        plan = a_plan(days, kind, horizon, tests)
    except CannotScore:
        assert days < 3 * horizon
        return
    assert 1 <= len(plan.trials) <= tests
    begins = LAST - timedelta(days=days)
    for trial in plan.trials:
        assert trial.test.as_of + timedelta(days=trial.test.days) <= LAST
        assert trial.test.days == horizon
        assert 1 <= len(trial.fit) <= 4
        assert len(set(trial.fit)) == len(trial.fit)
        for cut in trial.fit:
            assert cut.as_of + timedelta(days=cut.days) <= trial.test.as_of
            assert cut.as_of - timedelta(days=plan.label_days) >= begins
            assert cut.days == horizon or kind == "value"
        if trial.shortest is not None:
            assert trial.shortest.as_of == trial.fit[-1].as_of
            assert trial.shortest.days <= trial.fit[-1].days


def test_a_long_history_has_two_tests_and_four_cut_offs_to_fit_for_each() -> None:
    plan = a_plan(400)
    assert plan.trials[0].test == Cut(LAST - timedelta(days=30), 30)
    assert [LAST - cut.as_of for cut in plan.trials[0].fit] == [
        timedelta(days=days) for days in (60, 90, 120, 150)
    ]
    assert plan.trials[1].test == Cut(LAST - timedelta(days=60), 30)
    assert plan.label_days == 30
    assert len(plan.cuts) == 6, "what both trials need is read once"


def test_value_looks_less_far_ahead_where_the_history_is_short_and_churn_does_not() -> None:
    plan = a_plan(160, "value", 90)
    assert (plan.label_days, plan.trials[0].test.days) == (30, 90)
    fit = plan.trials[0].fit
    assert [cut.days for cut in fit] == [30, 33, 36, 39], "as far as there is room"
    assert plan.trials[0].shortest == Cut(fit[-1].as_of, 30)
    with pytest.raises(CannotScore, match="160 days of events; churn over 90 days needs 270"):
        a_plan(160, "churn", 90)


@pytest.mark.parametrize(
    ("history", "said"),
    [
        (History(None, None, 0, 0, 0), "has no events; import some, or send them"),
        (a_history(players=199), "has 199 players; a churn model needs at least 200"),
        (a_history(89.9), r"needs 90: 30 that .* --horizon-days 29 would do"),
        (a_history(0.5), r"has 0 days of events; churn over 30 days needs 90[^;]*$"),
    ],
)
def test_too_little_is_refused_with_what_is_missing(history: History, said: str) -> None:
    with pytest.raises(CannotScore, match=said):
        plan_for("demo", "churn", 30, history)


@given(st.integers(1, 60), st.floats(0, 170))
def test_the_horizon_that_a_refusal_advises_is_one_that_works(horizon: int, days: float) -> None:
    for kind in ("churn", "value"):
        try:
            a_plan(days, kind, horizon)
        except CannotScore as refused:
            _, found, advice = refused.message.partition("--horizon-days ")
            if found:
                a_plan(days, kind, int(advice.split()[0]))


def test_histories_of_parts_add_up() -> None:
    later = LAST + timedelta(days=1)
    parts = [a_history(10, 3), History(None, None, 0, 0, 0), History(later, later, 2, 1, 1)]
    assert span_of(parts) == History(LAST - timedelta(days=10), later, 5, 10_001, 501)
