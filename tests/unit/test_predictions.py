"""Predictions: many players as one, live features as sent ones, and where a new player stands."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from crm.domain.brands import Currency
from crm.domain.errors import ModelNotFound, PlayerNotFound
from crm.domain.features import FEATURES
from crm.services import predictions as module
from crm.services.player_features import for_reading
from tests.support.builders import NOON, a_logged_event
from tests.support.predictions import (
    Predicting,
    a_value_model,
    by_bets,
    predicting,
    two_clusters,
)
from tests.support.scores import a_score_model, of_trees


@pytest.fixture
async def made() -> AsyncIterator[Predicting]:
    async with predicting() as running:
        yield running


async def _registered(made: Predicting, player: str) -> None:
    event = a_logged_event(
        event_id=f"r-{player}", player_id=player, type="player.registered", amount=None,
        currency=None, properties={},
    )  # fmt: skip
    await made.shards.append([[event]])


async def _bets(made: Predicting, player: str, count: int) -> None:
    events = [a_logged_event(event_id=f"{player}-{n}", player_id=player) for n in range(count)]
    await made.shards.append([[event] for event in events])


async def test_cluster_churn_and_value_of_a_player(made: Predicting) -> None:
    churn = a_score_model(features=["bet_count_lifetime"], fitted=by_bets(-0.1))
    await made.serve(two_clusters(), churn, a_value_model())
    await _bets(made, "p1", 3)
    found = await made.predictions.of_player(made.brand, "p1")
    assert (found.player_id, found.brand, found.as_of) == ("p1", "demo", NOON)
    assert (found.cluster, found.initial) == (2, False)
    assert found.churn is not None
    assert found.churn.probability == pytest.approx(1 / (1 + math.exp(0.3)), abs=1e-6)
    assert (found.churn.rank, found.churn.horizon_days) == ("medium", 30)
    (reason,) = found.churn.reasons
    assert (reason.feature, reason.value) == ("bet_count_lifetime", 3)
    assert reason.effect == pytest.approx(-0.3)
    assert reason.text == "bets placed in all: 3; this lowers the risk of churn"
    assert found.value is not None
    assert (found.value.predicted, found.value.unit, found.value.rank) == ("7.00", "EUR", "high")
    assert found.value.reasons[0].text.endswith("raises the predicted value")
    assert found.model == {"clusters": "clusters-1", "churn": "churn-1", "value": "value-1"}
    assert found.missing == {}


async def test_a_value_in_days_is_a_number(made: Predicting) -> None:
    await made.serve(a_value_model(target="deposit_days"))
    await _bets(made, "p1", 3)
    value = (await made.predictions.of_player(made.brand, "p1")).value
    assert value is not None
    assert (value.predicted, value.unit) == (7.0, "count")


async def test_amounts_are_read_in_the_currency_of_the_model(made: Predicting) -> None:
    dinar = Currency("KWD", 3)
    await made.serve(a_value_model(features=["stake_amount_lifetime"], currency=dinar))
    await _bets(made, "p1", 3)
    raw = (await made.shards.features("demo", "p1")).values["stake_amount_lifetime"]
    value = (await made.predictions.of_player(made.brand, "p1")).value
    assert raw
    assert value is not None
    assert (value.predicted, value.unit) == (f"{2 * raw / 1_000 + 1:.3f}", "KWD")


async def test_many_players_are_answered_as_each_alone(
    made: Predicting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SLICE", 7)
    await made.serve(two_clusters(), a_score_model(of_trees()), a_value_model())
    players = [f"p{n}" for n in range(40)]
    for n, player in enumerate(players):
        await _bets(made, player, n % 6 + 1)
    made.clock.move(days=2)
    report = await made.predictions.of_players(made.brand, players)
    assert [one.index for one in report.predictions] == list(range(40))
    assert report.rejected == []
    for one in report.predictions:
        alone = await made.predictions.of_player(made.brand, players[one.index])
        assert (alone.player_id, alone.cluster) == (one.player_id, one.cluster)
        assert (alone.churn, alone.value) == (one.churn, one.value)


async def test_unknown_players_are_named_by_their_index_and_the_others_answered(
    made: Predicting,
) -> None:
    await made.serve(two_clusters())
    await _bets(made, "p1", 1)
    report = await made.predictions.of_players(made.brand, ["nobody", "p1", "p1", ""])
    assert [(one.index, one.player_id) for one in report.predictions] == [(1, "p1"), (2, "p1")]
    assert [(one.index, one.player_id, one.code) for one in report.rejected] == [
        (0, "nobody", "player_not_found"),
        (3, "", "player_not_found"),
    ]
    with pytest.raises(PlayerNotFound):
        await made.predictions.of_player(made.brand, "nobody")


async def test_without_any_model_there_is_no_answer_and_without_one_kind_it_is_null(
    made: Predicting,
) -> None:
    await _bets(made, "p1", 1)
    for asked in (
        made.predictions.of_players(made.brand, ["p1"]),
        made.predictions.of_features(made.brand, [{}]),
    ):
        with pytest.raises(ModelNotFound, match="no model serves brand demo yet"):
            await asked
    await made.serve(a_value_model())
    found = await made.predictions.of_player(made.brand, "p1")
    assert (found.cluster, found.initial, found.churn) == (None, None, None)
    assert found.missing == {
        "clusters": "no clusters model serves", "churn": "no churn model serves",
    }  # fmt: skip


async def test_features_that_were_read_and_sent_back_are_scored_as_the_player(
    made: Predicting,
) -> None:
    await made.serve(two_clusters(), a_score_model(of_trees()), a_value_model())
    for n in range(5):
        await _bets(made, f"p{n}", n + 1)
    made.clock.move(days=3)
    players = [f"p{n}" for n in range(5)]
    rows = []
    for player in players:
        live = await made.shards.features("demo", player)
        rows.append(for_reading(made.brand, live.values))
    by_id = await made.predictions.of_players(made.brand, players)
    sent = await made.predictions.of_features(made.brand, rows)
    assert sent.rejected == []
    for ours, theirs in zip(by_id.predictions, sent.predictions, strict=True):
        assert theirs.player_id is None
        assert (ours.cluster, ours.churn, ours.value) == (
            theirs.cluster, theirs.churn, theirs.value,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("row", "code", "says"),
    [
        ({}, "missing_field", "bet_count_lifetime is missing"),
        ({"bet_count_lifetime": "1,5"}, "invalid_field", "decimal string"),
        ({"bet_count_lifetime": True}, "invalid_field", "a number"),
        ({"bet_count_lifetime": [1]}, "invalid_field", "a number"),
        ({"bet_count_lifetime": math.nan}, "invalid_field", "between"),
        ({"bet_count_lifetime": 1e300}, "invalid_field", "between"),
        ({"bet_count_lifetime": 10**400}, "invalid_field", "between"),
        ({"bet_count_lifetime": 1, "no_such_feature": 1}, "invalid_field", "no_such_feature"),
        ({"bet_count_lifetime": 1, "a@b.example": 1}, "invalid_field", "one of the names"),
    ],
)
async def test_a_row_that_cannot_be_read_is_refused_alone(
    made: Predicting, row: dict[str, object], code: str, says: str
) -> None:
    await made.serve(a_value_model())
    good = {"bet_count_lifetime": "4", "stake_amount_lifetime": None}
    report = await made.predictions.of_features(made.brand, [row, good])
    (one,) = report.predictions
    assert one.index == 1
    assert one.value is not None
    assert one.value.predicted == "9.00"
    (refused,) = report.rejected
    assert (refused.index, refused.code) == (0, code)
    assert says in refused.message
    assert "a@b" not in refused.message


async def test_what_is_asked_for_together_is_read_together(made: Predicting) -> None:
    await made.serve(a_value_model())
    players = [f"p{n}" for n in range(30)]
    for n, player in enumerate(players):
        await _bets(made, player, n + 1)
    made.shards.reads.clear()
    found = await asyncio.gather(
        *[made.predictions.of_player(made.brand, player) for player in players]
    )
    assert [one.player_id for one in found] == players
    assert [one.value and one.value.predicted for one in found] == [
        f"{2 * n + 3}.00" for n in range(30)
    ]
    assert len(made.shards.reads) == 2  # the first, and all who came meanwhile
    assert sum(made.shards.reads) == 30


async def test_a_large_request_is_one_reading_of_one_moment(made: Predicting) -> None:
    await made.serve(a_value_model())
    await _bets(made, "p1", 1)
    made.shards.reads.clear()
    report = await made.predictions.of_players(made.brand, ["p1"] * 500)
    assert made.shards.reads == [500]
    assert len({one.as_of for one in report.predictions}) == 1
    assert len(report.predictions) == 500


async def test_a_small_request_does_not_wait_for_the_whole_of_a_large_one(
    made: Predicting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SLICE", 1)
    await made.serve(a_value_model())
    await _bets(made, "p1", 1)
    large = asyncio.create_task(made.predictions.of_players(made.brand, ["p1"] * 500))
    small = asyncio.create_task(made.predictions.of_player(made.brand, "p1"))
    done, _ = await asyncio.wait({large, small}, return_when=asyncio.FIRST_COMPLETED)
    assert done == {small}
    await large


# --- a player's first days -----------------------------------------------------------------------


async def test_a_new_player_is_in_the_default_cluster_at_once_and_moves_with_the_first_act(
    made: Predicting,
) -> None:
    await made.serve(two_clusters())
    await _registered(made, "new")
    first = await made.predictions.of_player(made.brand, "new")
    assert (first.cluster, first.initial) == (1, True)
    await _bets(made, "new", 1)
    then = await made.predictions.of_player(made.brand, "new")
    assert (then.cluster, then.initial) == (2, False)


async def test_time_alone_moves_nobody_out_of_the_default_cluster(made: Predicting) -> None:
    model = two_clusters(
        features=["bet_count_lifetime", "days_since_registration", "days_since_last_activity"],
        scaler=two_clusters().scaler.__class__("zscore", [0.0] * 3, [0.0] * 3, [1.0] * 3),
        centroids=[[0.0, 0.0, 0.0], [0.0, 60.0, 60.0]],
    )
    await made.serve(model)
    await _registered(made, "new")
    for _ in range(3):
        made.clock.move(days=30)
        found = await made.predictions.of_player(made.brand, "new")
        assert (found.cluster, found.initial) == (1, True)


async def test_a_bet_of_this_second_is_an_act_though_no_day_has_passed(made: Predicting) -> None:
    model = two_clusters(
        features=["days_since_last_bet"],
        scaler=two_clusters().scaler.__class__("zscore", [90.0], [0.0], [1.0]),
        centroids=[[90.0], [0.0]],
    )
    await made.serve(model)
    await _registered(made, "new")
    assert (await made.predictions.of_player(made.brand, "new")).cluster == 1
    await made.shards.append([[a_logged_event(player_id="new", occurred_at=made.clock())]])
    found = await made.predictions.of_player(made.brand, "new")
    assert (found.cluster, found.initial) == (2, False)


async def test_as_of_is_the_moment_of_the_features(made: Predicting) -> None:
    await made.serve(a_value_model())
    await _bets(made, "p1", 1)
    made.clock.move(hours=5)
    assert (await made.predictions.of_player(made.brand, "p1")).as_of == NOON + timedelta(hours=5)
    row = dict.fromkeys(FEATURES)
    (sent,) = (await made.predictions.of_features(made.brand, [row])).predictions
    assert sent.as_of == NOON + timedelta(hours=5)
