"""Replicas that hold models: they follow the registry under load, and no request fails."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from ray import serve
from ray.serve.config import HTTPOptions

from bench.load import Server, Times, send_at
from crm.adapters.postgres.keys import bootstrap_key
from crm.adapters.postgres.models import PostgresModels, open_models
from deployments.api.predictions import PATH
from deployments.scores import NAME, ServedScores
from deployments.segmentation import SegmentationDeployment, SegmentationSpec
from tests.support.ports import free_port
from tests.support.predictions import a_value_model, as_trained, two_clusters
from tests.support.ray_shards import (
    BRAND,
    BRANDS,
    LONG_S,
    a_gateway,
    a_spec,
    an_event,
    running_shards,
)
from tests.support.scores import a_score_model, of_trees
from tests.support.wait import wait_for_async

pytestmark = pytest.mark.one_server

PLAYERS = 40
REPLICAS = 2
PER_S = 300
CHANGES = 6


@dataclass(frozen=True)
class Served:
    """Two replicas behind Serve's front, and what stands behind them."""

    server: Server
    dsn: str
    scores: ServedScores = field(default_factory=ServedScores)


@pytest.fixture
def served(ray_cluster: None, dsn: str, tmp_path: Path) -> Iterator[Served]:
    """Shard owners of a few players, a registry with models, and the replicas."""
    with running_shards(a_spec(dsn, tmp_path, owners=2, misses=60)):
        key = asyncio.run(bootstrap_key(dsn, tmp_path))
        asyncio.run(_filled(dsn))
        port = free_port()
        serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
        replicas = SegmentationDeployment.options(num_replicas=REPLICAS)
        serve.run(replicas.bind(SegmentationSpec(BRANDS, dsn)), name=NAME, route_prefix=PATH)
        try:
            yield Served(Server(port, key), dsn)
        finally:
            serve.shutdown()  # type: ignore[no-untyped-call]  # Ray has no types


async def _filled(dsn: str) -> None:
    """Store bets, register models, and promote the first of each kind."""
    async with a_gateway(dsn) as gateway, open_models(dsn) as models:
        await gateway.append([[an_event(n, PLAYERS)] for n in range(4 * PLAYERS)])
        churn = [a_score_model(of_trees(seed=n), id=f"churn-{n}") for n in (1, 2)]
        for model in [*churn, a_value_model()]:
            await models.add(as_trained(model))
        await models.add(as_trained(two_clusters()))
        broken = a_score_model(id="churn-broken")
        await models.add(as_trained(broken, document=b"{}"))
        for model_id in ("churn-1", "clusters-1", "value-1"):
            await models.promote(model_id, "a key")


@dataclass
class Load:
    """Requests that go on until a block ends, and what came of them."""

    times: list[Times] = field(default_factory=list)
    told: Counter[tuple[str, float]] = field(default_factory=Counter)

    @property
    def sent(self) -> int:
        """How many requests were answered or failed."""
        return sum(len(one.latencies) for one in self.times)

    @property
    def failed(self) -> int:
        """How many were not answered with 200."""
        return sum(one.errors for one in self.times)


@asynccontextmanager
async def _loaded(served: Served) -> AsyncIterator[Load]:
    """Ask for predictions, PER_S a second, and watch which model said what of one player."""
    load, ended = Load(), asyncio.Event()
    asked = json.dumps({"brand": BRAND.id, "player_ids": ["p1"]}).encode()
    request = served.server.post(PATH, asked)

    async def send() -> None:
        while not ended.is_set():
            load.times.append(await send_at(served.server, [request] * PER_S, PER_S, 32))

    async def watch() -> None:
        headers = {"authorization": f"Bearer {served.server.key}"}
        url = f"http://127.0.0.1:{served.server.port}"
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=LONG_S) as client:
            while not ended.is_set():
                body = {"player_ids": [f"p{n}" for n in range(PLAYERS)]}
                answer = await client.post(PATH, json=body)
                assert answer.status_code == 200, answer.text
                for one in answer.json()["predictions"]:
                    if one["player_id"] == "p1":
                        load.told[one["model"]["churn"], one["churn"]["probability"]] += 1

    tasks = [asyncio.create_task(send()), asyncio.create_task(watch())]
    try:
        yield load
    finally:
        ended.set()
        await asyncio.wait(tasks, timeout=LONG_S)
    for task in tasks:
        task.result()


async def _in_all(served: Served, revision: int) -> None:
    async def reached() -> bool:
        states = await served.scores.replicas()
        return len(states) == REPLICAS and all(one.revision == revision for one in states)

    await wait_for_async(reached, f"revision {revision} is in each replica", deadline_s=LONG_S)


async def _switches(served: Served) -> list[int]:
    return [one.switches for one in await served.scores.replicas()]


async def test_models_are_promoted_and_rolled_back_under_load_and_no_request_fails(
    served: Served,
) -> None:
    async with open_models(served.dsn) as models:
        await _in_all(served, await models.revision())
        before = await _switches(served)
        async with _loaded(served) as load:
            for change in range(CHANGES):
                await _progress(load)
                await _change(models, change)
                await _in_all(served, await models.revision())
            await _progress(load)
        assert load.failed == 0
        assert load.sent >= CHANGES * PER_S
        assert await _switches(served) == [count + CHANGES for count in before]
    assert await served.scores.state() == "ok"
    # each model was heard, and never one with the other's score
    assert sorted(model for model, _ in load.told) == ["churn-1", "churn-2"]
    assert len({score for _, score in load.told}) == 2


async def _change(models: PostgresModels, number: int) -> None:
    if number % 2:
        await models.rollback(BRAND.id, "churn", "a key")
    else:
        await models.promote("churn-2", "a key")


async def _progress(load: Load) -> None:
    """Wait until another second of requests was answered."""
    goal = len(load.times) + 1

    async def reached() -> bool:
        return len(load.times) >= goal

    await wait_for_async(reached, "requests are answered", deadline_s=LONG_S)


async def test_a_model_that_cannot_be_opened_is_seen_and_the_former_one_goes_on(
    served: Served,
) -> None:
    async with open_models(served.dsn) as models, _loaded(served) as load:
        await models.promote("churn-broken", "a key")
        await _in_all(served, await models.revision())
        await _progress(load)
        assert await served.scores.state() == "new model refused: churn of demo"
        assert [one.models["demo"]["churn"] for one in await served.scores.replicas()] == [
            "churn-1", "churn-1",
        ]  # fmt: skip
        await models.rollback(BRAND.id, "churn", "a key")
        await _in_all(served, await models.revision())
        assert await served.scores.state() == "ok"
    assert load.failed == 0
    assert {model for model, _ in load.told} == {"churn-1"}
