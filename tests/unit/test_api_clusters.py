"""Player clusters over HTTP: the list, who moved, and a rule saved as a segment in one call."""

from __future__ import annotations

import msgspec
import pytest

from crm.domain.clustering import ClusterProfile, Difference, Move
from tests.support.api import Api, an_api
from tests.support.models import serve, some_clusters, trained

RULE = "bet_count_lifetime >= 10"
HIGH = ClusterProfile(
    4, "Frequent players: bets 3x average", 10, 0.25, {"bet_count_lifetime": 9.75}, RULE, 0.9, 0.8,
    ["-a"], [Difference("bet_count_lifetime", 9.75, 3.25, 1.256)], 0.61,
)  # fmt: skip
NOISE = ClusterProfile(0, "In no group", 2, 0.05, {"bet_count_lifetime": 90.0}, None, None, None,
                       ["b"], noise=True)  # fmt: skip


async def a_served(api: Api) -> None:
    model = some_clusters(
        clusters=[HIGH, NOISE], ids=[4, 5], last_id=5, before="m0",
        moves=[Move(4, 4, 9), Move(2, 4, 1)], default_cluster=4,
    )  # fmt: skip
    await serve(api.models, model)


async def test_a_cluster_says_in_what_it_differs_and_noise_says_that_it_is() -> None:
    async with an_api() as api:
        await a_served(api)
        high, noise = (await api.client.get("/v1/clusters")).json()["items"]
    assert high["differences"] == [
        {"feature": "bet_count_lifetime", "mean": 9.75, "whole": 3.25, "unit": "count",
         "effect": 1.26}
    ]  # fmt: skip
    assert (high["noise"], high["silhouette"], noise["id"], noise["noise"]) == (
        False,
        0.61,
        0,
        True,
    )


async def test_who_moved_where_is_told() -> None:
    async with an_api() as api:
        assert (await api.client.get("/v1/clusters/moves")).json()["code"] == "clusters_not_found"
        await a_served(api)
        told = (await api.client.get("/v1/clusters/moves")).json()
    assert told["before"] == "m0"
    assert told["moves"] == [
        {"before": 4, "after": 4, "players": 9}, {"before": 2, "after": 4, "players": 1}
    ]  # fmt: skip


async def test_a_clusters_rule_becomes_a_segment_in_one_call_and_once() -> None:
    async with an_api() as api:
        await a_served(api)
        key = {"Idempotency-Key": "k1"}
        path = "/v1/clusters/4/segment"
        first = await api.client.post(path, json={"brand": "demo"}, headers=key)
        again = await api.client.post(path, json={"brand": "demo"}, headers=key)
        assert first.status_code == again.status_code == 201, first.text
        segment = first.json()
        assert again.json() == segment
        assert (segment["name"], segment["rule"]) == (HIGH.name, RULE)
        stored = await api.client.get(first.headers["location"])
        assert stored.json()["rule"] == RULE
        taken = await api.client.post(path, json={})
        assert (taken.status_code, taken.json()["code"]) == (409, "segment_name_taken")
        named = await api.client.post(path, json={"name": "Frequent"})
        assert named.json()["name"] == "Frequent"


async def test_what_has_no_rule_or_is_not_there_is_said() -> None:
    async with an_api() as api:
        await a_served(api)
        none = await api.client.post("/v1/clusters/0/segment", json={})
        assert (none.status_code, none.json()["code"]) == (409, "cluster_has_no_rule")
        gone = await api.client.post("/v1/clusters/1/segment", json={})
        assert (gone.status_code, gone.json()["code"]) == (404, "cluster_not_found")
        assert "there are 4, 0" in gone.json()["message"]
        assert not (await api.client.get("/v1/segments")).json()["items"]


def test_a_document_from_before_can_still_be_read() -> None:
    model = some_clusters()
    old = {
        name: value
        for name, value in msgspec.to_builtins(model).items()
        if name not in {"axes", "mixture", "cores", "ids", "last_id", "before", "moves"}
    }
    old["metrics"] = {
        n: v for n, v in old["metrics"].items() if n not in {"score", "dbcv", "noise"}
    }
    assert msgspec.convert(old, type(model)) == model


@pytest.mark.parametrize("document", [b"{}", b"\xff", msgspec.json.encode(some_clusters(whole={}))])
async def test_clusters_that_cannot_be_read_are_one_clear_answer(document: bytes) -> None:
    async with an_api() as api:
        await api.models.add(trained(document=document))
        await api.models.promote("m1", "test")
        found = await api.client.get("/v1/clusters")
    assert (found.status_code, found.json()["code"]) == (503, "model_unusable")
    assert "model m1" in found.json()["message"]
