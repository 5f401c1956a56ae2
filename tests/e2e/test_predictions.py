"""Predictions through the real front: HAProxy, the API, the models' own deployment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from crm.adapters import clock
from crm.adapters.postgres.models import open_models
from tests.support.api import an_event_body, problem_of
from tests.support.instance import Instance, an_instance
from tests.support.predictions import a_value_model, as_trained, two_clusters
from tests.support.scores import a_score_model, of_trees
from tests.support.wait import wait_for_async

LONG_S = 60


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    with an_instance() as instance:
        yield instance


def _scores(player: str) -> str:
    return f"/v1/players/{player}/scores?brand=demo"


async def _take(client: httpx.AsyncClient, **changes: Any) -> None:
    event = an_event_body(**changes, occurred_at=clock.now().isoformat())
    answer = await client.post("/v1/events", json={"events": [event]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["accepted"] == 1, answer.text


async def test_from_no_model_to_scores_to_a_refused_model(running: Instance) -> None:
    dsn = running.state()["postgres"]
    async with running.client() as client, open_models(dsn) as models:
        problem_of(await client.get(_scores("p1")), 404, "model_not_found")
        asked = {"brand": "demo", "player_ids": ["new", "nobody"]}
        problem_of(await client.post("/v1/predictions", json=asked), 404, "model_not_found")
        assert (await client.get("/readyz")).json()["parts"]["models"] == "ok"

        served = (two_clusters(), a_score_model(of_trees()), a_value_model())
        for model in served:
            await models.add(as_trained(model))
            await models.promote(model.id, "a key")
        registered = {"event_id": "r1", "type": "player.registered", "player_id": "new"}
        await _take(client, **registered, amount=..., currency=..., properties={})

        async def in_use() -> bool:
            answer = await client.get(_scores("new"))
            return answer.status_code == 200 and answer.json()["missing"] == {}

        await wait_for_async(in_use, "the models are in use", deadline_s=LONG_S)
        scores = (await client.get(_scores("new"))).json()
        assert (scores["cluster"], scores["initial"]) == (1, True)
        problem_of(await client.get(_scores("nobody")), 404, "player_not_found")
        await _take(client, event_id="b1", player_id="new")
        answer = await client.post("/v1/predictions", json=asked)
        assert answer.status_code == 200, answer.text
        (one,) = answer.json()["predictions"]
        assert (one["cluster"], one["initial"], one["value"]["predicted"]) == (2, False, "3.00")
        assert [entry["index"] for entry in answer.json()["rejected"]] == [1]

        await models.add(as_trained(a_score_model(id="churn-2"), document=b"{}"))
        await models.promote("churn-2", "a key")

        async def refused() -> bool:
            parts = (await client.get("/readyz")).json()["parts"]
            return bool(parts["models"] == "new model refused: churn of demo")

        await wait_for_async(refused, "the refusal is seen", deadline_s=LONG_S)
        assert running.logged("model_refused")[-1]["model"] == "churn-2"
        scores = (await client.get(_scores("new"))).json()
        assert scores["model"]["churn"] == "churn-1"


async def test_the_front_asks_for_a_key(running: Instance) -> None:
    url = running.state()["url"]
    async with httpx.AsyncClient(base_url=url) as client:
        problem_of(await client.post("/v1/predictions", json={}), 401, "unauthorized")
