"""A retrain asks for what was asked of the model that serves, and compares what can be compared."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest

from crm.adapters.memory_models import MemoryModels
from crm.domain.clustering import PlayerClusters
from crm.domain.models import ScoreModel
from crm.domain.promotion import Different, Unfit, verdict
from crm.domain.retrains import RetrainOptions
from pipelines.asked import asked_in, noted
from pipelines.cluster_inputs import Request
from pipelines.retrain_kinds import GONE, UNREADABLE, foresees, to_compare
from pipelines.retrain_requests import Serving, clusters_request, score_request
from pipelines.score_training import Request as ScoreRequest
from tests.support.builders import a_brand
from tests.support.models import some_clusters
from tests.support.own_measures import OWN
from tests.support.predictions import a_value_model, as_trained
from tests.support.scores import a_score_model

OPTIONS = RetrainOptions(seed=5, budget_s=60.0)
PLAIN, WITH_OWN = a_brand(), a_brand(measures=OWN)
MINE = "mean_cashout_lifetime"


async def _serving(model: PlayerClusters | ScoreModel, **changes: Any) -> Serving:
    made = as_trained(model, **changes)
    return Serving(await MemoryModels().add(made), made.document)


async def test_clusters_are_found_as_they_were_asked_for_and_not_as_they_were_found() -> None:
    asked = Request(
        WITH_OWN, "gmm", 5, ("bet_count_7d", MINE), "robust", "none", seed=1, min_share=0.05
    )
    found = {"k": "4", "scaling": "log", "algorithm": "kmeans", "features": "stake_amount_7d"}
    serving = await _serving(some_clusters(), params=noted(asked.as_params()) | found)
    again = clusters_request(WITH_OWN, OPTIONS, serving)
    assert again == Request(
        WITH_OWN, "gmm", 5, ("bet_count_7d", MINE), "robust", "none",
        seed=5, budget_s=60.0, min_share=0.05,
    )  # fmt: skip
    assert clusters_request(PLAIN, OPTIONS, serving).features == ("bet_count_7d",), "one is gone"


async def test_what_was_left_open_stays_open() -> None:
    open_search = Request(PLAIN, seed=5, budget_s=60.0)
    params = noted(Request(PLAIN).as_params()) | {"k": "4", "algorithm": "kmeans"}
    for serving in (
        None,
        await _serving(some_clusters(), params=params),
        await _serving(some_clusters(), params={"k": "4", "algorithm": "kmeans"}),
    ):
        assert clusters_request(PLAIN, OPTIONS, serving) == open_search


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("churn", {"horizon_days": 14, "algorithm": "logistic", "without": ("bet_count_7d",)}),
        ("churn", {"horizon_days": 14, "features": ("bet_count_7d", "bet_count_30d")}),
        ("value", {"horizon_days": 273, "target": "count"}),
    ],
)
async def test_a_score_is_trained_as_it_was_asked_for(
    kind: Literal["churn", "value"], asked: dict[str, Any]
) -> None:
    before = ScoreRequest(PLAIN, kind, **asked)
    days = before.horizon_days
    model = (
        a_value_model(horizon_days=days, target="deposit_days")
        if kind == "value"
        else a_score_model(horizon_days=days, target="churned")
    )
    serving = await _serving(model, params=noted(before.as_params()))
    assert score_request(kind, PLAIN, OPTIONS, serving) == ScoreRequest(
        PLAIN, kind, seed=5, **asked
    )


async def test_a_score_without_a_note_is_trained_for_its_horizon_and_target() -> None:
    serving = await _serving(a_value_model(horizon_days=30, target="bet_days"), params={})
    again = score_request("value", PLAIN, OPTIONS, serving)
    assert (again.horizon_days, again.target) == (30, "count")
    unreadable = serving._replace(document=b"{}")
    for one, days in ((unreadable, 90), (None, 90)):
        again = score_request("value", PLAIN, OPTIONS, one)
        assert (again.horizon_days, again.target, again.algorithm) == (days, "money", "xgboost")
    assert score_request("churn", PLAIN, OPTIONS, None).horizon_days == 30


def test_what_was_asked_and_what_was_found_stand_apart() -> None:
    asked = Request(PLAIN, k=3, features=("a", "b")).as_params()
    assert asked_in({**noted(asked), "k": "2", "wcss": "1"}) == asked


def test_a_serving_model_whose_features_are_gone_need_not_be_beaten() -> None:
    clusters = msgspec.json.encode(some_clusters(features=[MINE]))
    score = msgspec.json.encode(a_score_model(features=["bet_count_7d", MINE]))
    assert to_compare("clusters", clusters, WITH_OWN) == some_clusters(features=[MINE])
    assert to_compare("clusters", clusters, PLAIN) is GONE
    assert to_compare("churn", score, PLAIN) is GONE
    assert to_compare("churn", b"{}", PLAIN) is UNREADABLE
    for why in (GONE, UNREADABLE):
        found = verdict("churn", beats_baseline=True, comparison=why)
        assert found == (True, f"promoted: {why.why}")
        assert not verdict("churn", beats_baseline=False, comparison=why).promote


def test_scores_of_other_days_or_of_something_else_are_not_compared() -> None:
    models = (
        a_value_model(target="ngr_amount"),
        a_value_model(target="deposit_days"),
        a_value_model(target="ngr_amount", horizon_days=14),
    )
    assert len({foresees(one) for one in models}) == 3
    found = verdict("value", beats_baseline=True, comparison=Different("bets", "money"))
    assert found == (False, "not promoted: the serving model foresees bets, this one money")
    assert isinstance(GONE, Unfit)
