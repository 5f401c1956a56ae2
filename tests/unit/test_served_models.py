"""Models are exchanged while they serve: tried first, once each, and the former one stays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import numpy as np
import pytest

from crm.adapters.memory_models import MemoryModels
from crm.adapters.scorers import Calibration, Fitted, Weights, open_scorer
from crm.domain.brands import Currency
from crm.domain.clustering import Scaler
from crm.domain.errors import DatabaseAway, ModelNotFound, ShardsWarming
from crm.domain.features import Feature
from crm.services import served_models
from crm.services.served_models import RETRY_S, ServedModels, Switch
from tests.support.predictions import (
    BRAND,
    Predicting,
    a_value_model,
    as_trained,
    predicting,
    two_clusters,
)
from tests.support.scores import a_score_model, of_trees


@pytest.fixture
async def made() -> AsyncIterator[Predicting]:
    async with predicting() as running:
        yield running


def _in_use(made: Predicting) -> dict[Any, str]:
    return dict(made.served.of(BRAND.id).ids)


async def test_before_the_first_reading_of_the_registry_callers_wait() -> None:
    served = ServedModels(MemoryModels(), {BRAND.id: BRAND}, open_scorer, lambda: 0.0)
    assert served.state.state == "warming"
    with pytest.raises(ShardsWarming):
        served.of(BRAND.id)
    await served.refresh()
    assert (served.state.state, served.of(BRAND.id).ids) == ("ok", {})


async def test_each_promotion_and_rollback_is_one_switch(made: Predicting) -> None:
    await made.serve(two_clusters(), a_score_model(), a_value_model())
    assert _in_use(made) == {"clusters": "clusters-1", "churn": "churn-1", "value": "value-1"}
    made.switches.clear()
    await made.serve(a_score_model(id="churn-2"))
    await made.served.refresh()  # nothing has changed
    await made.models.rollback(BRAND.id, "churn", "a key")
    await made.served.refresh()
    assert [(one.kind, one.former, one.model) for one in made.switches] == [
        ("churn", "churn-1", "churn-2"),
        ("churn", "churn-2", "churn-1"),
    ]


async def test_the_registry_is_asked_for_no_more_than_its_revision_while_nothing_changes(
    made: Predicting,
) -> None:
    await made.serve(two_clusters())
    before = made.served.of(BRAND.id)
    await made.served.refresh()
    assert made.served.of(BRAND.id) is before


def _rows_of_nonsense(**changes: Any) -> bytes:
    """A churn model whose scores are no probabilities."""
    from tests.support.predictions import by_bets

    model = a_score_model(
        id="churn-2", features=["bet_count_lifetime"], fitted=by_bets(1.0, "line")
    )
    return msgspec.json.encode(msgspec.structs.replace(model, **changes))


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"{}", "missing required field"),
        (b"\xff", "malformed"),
        (msgspec.json.encode(a_score_model(fitted=None, id="churn-2", features=["a"])), "weights"),
        (_rows_of_nonsense(), "not between 0 and 1"),
        (_rows_of_nonsense(fitted=b"?"), "cannot be read"),
    ],
)
async def test_a_model_that_cannot_be_opened_or_answers_nonsense_is_not_taken(
    made: Predicting, document: bytes, reason: str
) -> None:
    await made.serve(a_score_model())
    await made.serve(a_score_model(id="churn-2"), document=document)
    assert _in_use(made) == {"churn": "churn-1"}
    assert made.served.state.state == "new model refused: churn of demo"
    refused = made.switches[-1]
    assert (refused.former, refused.model) == ("churn-1", "churn-2")
    assert reason in str(refused.refused).lower()
    await made.models.rollback(BRAND.id, "churn", "a key")
    await made.served.refresh()
    assert (made.served.state.state, _in_use(made)) == ("ok", {"churn": "churn-1"})
    assert made.switches[2:] == [Switch("demo", "churn", "churn-1", "churn-1")]
    assert made.served.state.switches == 1  # what stayed was never exchanged


async def test_a_feature_that_the_service_lacks_or_has_in_other_units_is_a_refusal(
    made: Predicting,
) -> None:
    mean = Feature("mean_cashout_30d", "number", "mean cash-out", decimals=2)
    await made.serve(a_value_model(features=[mean.name], own=[mean]))
    assert "run `crm apply`" in str(made.switches[-1].refused)
    other = Feature("bet_count_lifetime", "number", "bets", decimals=2)
    await made.serve(a_value_model(id="value-2", own=[other]))
    assert "other units" in str(made.switches[-1].refused)
    assert made.served.of(BRAND.id).missing["value"] == (
        "the value model that is to serve cannot be used: see the log"
    )


async def test_a_model_that_reads_nothing_is_a_refusal(made: Predicting) -> None:
    nothing = Fitted(Weights(Scaler("zscore", [], [], []), [], 1.0), Calibration("line"))
    await made.serve(a_value_model(features=[], fitted=nothing))
    assert "reads no feature" in str(made.switches[-1].refused)


async def test_a_cluster_that_is_not_described_is_a_refusal(made: Predicting) -> None:
    whole = two_clusters()
    await made.serve(msgspec.structs.replace(whole, clusters=whole.clusters[1:]))
    assert "does not describe" in str(made.switches[-1].refused)


async def test_a_refused_model_is_told_once_and_tried_again_in_time(made: Predicting) -> None:
    await made.serve(a_score_model(id="churn-2"), document=b"{}")
    for _ in range(3):
        made.clock.move(seconds=RETRY_S)
        await made.served.refresh()
    assert len(made.switches) == 1
    made.models._trained["churn-2"] = as_trained(a_score_model(id="churn-2"))
    await made.served.refresh()
    assert _in_use(made) == {}  # not at each poll
    made.clock.move(seconds=RETRY_S)
    await made.served.refresh()
    assert (_in_use(made), made.served.state.state) == ({"churn": "churn-2"}, "ok")


async def test_one_refused_model_does_not_hold_back_the_others(made: Predicting) -> None:
    await made.models.add(as_trained(a_score_model(), document=b"{}"))
    await made.models.promote("churn-1", "a key")
    await made.serve(two_clusters(), a_value_model())
    assert _in_use(made) == {"clusters": "clusters-1", "value": "value-1"}


async def test_a_registry_that_is_away_changes_nothing(made: Predicting) -> None:
    await made.serve(a_score_model())
    made.models.away = True
    with pytest.raises(DatabaseAway):
        await made.served.refresh()
    assert (made.served.state.state, _in_use(made)) == ("ok", {"churn": "churn-1"})


async def test_an_answer_under_way_keeps_the_models_that_it_began_with(made: Predicting) -> None:
    await made.serve(a_score_model())
    taken = made.served.of(BRAND.id)
    await made.serve(a_score_model(id="churn-2"))
    assert taken.ids == {"churn": "churn-1"}
    assert made.served.of(BRAND.id).ids == {"churn": "churn-2"}


async def test_models_of_another_brand_are_left_alone(made: Predicting) -> None:
    await made.serve(a_score_model(brand="unknown", currency=Currency("EUR", 2)))
    assert made.switches == []
    with pytest.raises(ModelNotFound):
        await made.predictions.of_players(made.brand, ["p1"])


def test_the_smoke_prediction_gives_reasons_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from crm.domain.predictions import BrandModels

    asked: list[int] = []
    scorer = open_scorer(a_score_model(of_trees()))
    reasons = scorer.reasons

    def noted(values: Any, most: int = 3) -> Any:
        asked.append(len(values))
        return reasons(values, most)

    monkeypatch.setattr(scorer, "reasons", noted)
    served_models.smoke(BrandModels(churn=scorer, ids={"churn": "churn-1"}), BRAND)
    assert asked == [len(np.array(served_models._SMOKE))]
