"""POST /v1/predictions and GET /v1/players/{id}/scores over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from starlette.types import Message

from deployments.api.guard import KnownKeys
from deployments.segmentation_app import SegmentationServices, create_app
from tests.support.api import KEY, Api, MemoryKeys, a_client, an_api, an_event_body, problem_of
from tests.support.predictions import a_value_model, as_trained, two_clusters
from tests.support.scores import a_score_model
from tests.support.wait import wait_for_async


@dataclass(frozen=True)
class Both:
    """The API, and the application of the models over the same shards and models."""

    api: Api
    models: httpx.AsyncClient
    services: SegmentationServices

    async def promote(self, *models: Any, **changes: Any) -> None:
        """Register and promote models, and take them into use."""
        for model in models:
            await self.api.models.add(as_trained(model, **changes))
            await self.api.models.promote(model.id, "a key")
        await self.api.scores.served.refresh()

    async def predict(self, body: object) -> httpx.Response:
        """Ask for predictions."""
        return await self.models.post("/v1/predictions", content=json.dumps(body))


@pytest.fixture
async def both() -> AsyncIterator[Both]:
    async with an_api() as api:
        scores = api.scores
        keys = KnownKeys(MemoryKeys(KEY), lambda: api.clock.seconds)
        services = SegmentationServices(scores.brands, scores.predictions, scores.served, keys)
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        async with a_client(create_app(services), headers) as client:
            await scores.served.refresh()
            yield Both(api, client, services)


async def test_predictions_have_the_shape_of_the_contract(both: Both) -> None:
    await both.promote(two_clusters(), a_score_model(), a_value_model())
    await both.api.take(an_event_body())
    answer = await both.predict({"brand": "demo", "player_ids": ["p1", "p2"]})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    (found,) = body["predictions"]
    assert found.keys() == {
        "index", "player_id", "cluster", "initial", "churn", "value", "as_of", "model", "missing",
    }  # fmt: skip
    assert found["churn"].keys() == {"probability", "rank", "horizon_days", "reasons"}
    assert found["value"].keys() == {"predicted", "unit", "rank", "horizon_days", "reasons"}
    assert found["churn"]["reasons"][0].keys() == {"feature", "value", "effect", "text"}
    assert body["rejected"] == [
        {
            "index": 1, "player_id": "p2", "code": "player_not_found",
            "message": "brand demo has no such player",
        }
    ]  # fmt: skip


async def test_the_scores_of_a_player_are_those_of_the_predictions(both: Both) -> None:
    await both.promote(two_clusters(), a_score_model(), a_value_model())
    await both.api.take(an_event_body(player_id="a/b"))
    (predicted,) = (await both.predict({"player_ids": ["a/b"]})).json()["predictions"]
    read = await both.api.client.get("/v1/players/a%2Fb/scores", params={"brand": "demo"})
    assert read.status_code == 200, read.text
    scores = read.json()
    assert scores.pop("brand") == "demo"
    del predicted["index"]
    assert scores == predicted


async def test_sent_features_are_scored(both: Both) -> None:
    await both.promote(a_value_model())
    answer = await both.predict({"features": [{"bet_count_lifetime": 3}, {}]})
    body = answer.json()
    assert body["predictions"][0]["value"]["predicted"] == "7.00"
    assert [(one["index"], one["code"]) for one in body["rejected"]] == [(1, "missing_field")]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"player_ids": ["p1"], "features": [{}]},
        {"player_ids": []},
        {"player_ids": ["p"] * 1_001},
        {"features": [{}] * 1_001},
        {"player_ids": [1]},
        {"player_ids": "p1"},
        {"features": [[]]},
        {"player_ids": ["p1"], "model": "churn-1"},
        {"player_ids": ["\ud800"]},
        [],
    ],
)
async def test_a_body_of_another_shape_is_refused(both: Both, body: object) -> None:
    await both.promote(a_value_model())
    problem_of(await both.predict(body), 422, "invalid_field")


async def test_a_thousand_players_are_taken(both: Both) -> None:
    await both.promote(a_value_model())
    body = (await both.predict({"player_ids": [f"p{n}" for n in range(1_000)]})).json()
    assert [one["index"] for one in body["rejected"]] == list(range(1_000))


async def test_what_cannot_be_answered_is_said(both: Both) -> None:
    asked = {"player_ids": ["p1"]}
    problem_of(await both.predict(asked), 404, "model_not_found")
    problem_of(await both.api.client.get("/v1/players/p1/scores"), 404, "model_not_found")
    problem_of(await both.predict(asked | {"brand": "none"}), 404, "unknown_brand")
    await both.promote(a_value_model())
    problem_of(await both.api.client.get("/v1/players/p1/scores"), 404, "player_not_found")
    problem_of(await both.models.post("/v1/predictions", content=b"{"), 400, "invalid_json")
    problem_of(await both.models.get("/v1/predictions"), 405, "method_not_allowed")


async def test_nobody_predicts_without_a_key(both: Both) -> None:
    answer = await both.models.post("/v1/predictions", headers={"authorization": "Bearer no"})
    problem_of(answer, 401, "unauthorized")


async def test_before_the_models_are_loaded_callers_are_asked_to_wait(both: Both) -> None:
    both.api.scores.served._stand = None
    problem_of(await both.predict({"player_ids": ["p1"]}), 503, "warming")


async def test_a_replica_begins_with_its_models_and_follows_the_registry(both: Both) -> None:
    served = both.api.scores.served
    served._stand = None
    await both.api.models.add(as_trained(a_value_model()))
    await both.api.models.promote("value-1", "a key")
    both.api.models.away = True
    said: asyncio.Queue[Message] = asyncio.Queue()
    heard: asyncio.Queue[Message] = asyncio.Queue()
    heard.put_nowait({"type": "lifespan.startup"})
    app = create_app(both.services, poll_s=0.001)
    running = asyncio.ensure_future(app({"type": "lifespan"}, heard.get, said.put))
    ready = asyncio.create_task(said.get())
    assert not (await asyncio.wait([ready], timeout=0.05))[0]
    both.api.models.away = False
    assert (await asyncio.wait_for(ready, 30))["type"] == "lifespan.startup.complete"
    assert served.of("demo").ids == {"value": "value-1"}
    await both.api.models.add(as_trained(a_value_model(id="value-2")))
    await both.api.models.promote("value-2", "a key")

    async def in_use() -> bool:
        return served.of("demo").ids == {"value": "value-2"}

    await wait_for_async(in_use, "the promoted model is in use")
    heard.put_nowait({"type": "lifespan.shutdown"})
    await running
