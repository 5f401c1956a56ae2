"""GET /v1/players, /v1/features, /v1/clusters: what is read back, and how it is written."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from urllib.parse import quote

import pytest

from crm.domain.brands import Currency
from crm.domain.clustering import ClusterProfile, Metrics, PlayerClusters, Scaler
from crm.domain.features import FEATURES
from crm.domain.score_columns import LISTED
from tests.support.api import Api, an_api, an_event_body, problem_of
from tests.support.models import serve

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
MODEL = PlayerClusters(
    id="m1",
    brand="demo",
    created_at=datetime(2026, 3, 1, tzinfo=UTC),
    algorithm="kmeans",
    seed=0,
    currency=Currency("EUR", 2),
    features=["stake_amount_lifetime"],
    scaler=Scaler("zscore", [0.0], [0.0], [1.0]),
    centroids=[[0.0], [5_000.0]],
    metrics=Metrics(2, 40, 12.5, "zscore", 0.5, 1.0),
    whole={"stake_amount_lifetime": 2_000.0},
    clusters=[
        ClusterProfile(
            1, "Casual", 30, 0.75, {"stake_amount_lifetime": 1_050.0}, None, None, None, ["007"]
        ),
        ClusterProfile(
            2, "High", 10, 0.25, {"stake_amount_lifetime": 5_000.0}, "a > 1", 1.0, 1.0, []
        ),
    ],
    default_cluster=1,
)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with an_api() as running:
        yield running


async def test_features_are_written_as_the_contract_says(api: Api) -> None:
    await api.take(
        an_event_body(),
        an_event_body(event_id="e2", type="bet.settled", amount="0", properties={"result": "lost"}),
    )
    answer = await api.client.get("/v1/players/p1/features")
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"player_id", "brand", "as_of", "features"}
    assert (body["player_id"], body["brand"]) == ("p1", "demo")
    assert RFC3339.fullmatch(body["as_of"])
    features = body["features"]
    assert set(features) == set(FEATURES)
    assert features["bet_count_lifetime"] == 1
    assert type(features["bet_count_lifetime"]) is int
    assert features["stake_amount_lifetime"] == "12.50"
    assert features["payout_amount_lifetime"] == "0.00"
    assert features["ggr_amount_lifetime"] == "12.50"
    assert features["first_bet_at"] == "2026-03-10T11:00:00Z"
    assert features["days_since_last_bet"] == 0
    assert features["days_since_last_deposit"] is None
    for name, value in features.items():
        kind = {"money": str, "time": str, "share": float}.get(FEATURES[name].unit, int)
        assert value is None or type(value) is kind, name


async def test_a_player_has_times(api: Api) -> None:
    await api.take(
        an_event_body(type="player.registered", amount=..., currency=...),
        an_event_body(event_id="e2", occurred_at="2026-03-10T11:30:00.250Z"),
    )
    body = (await api.client.get("/v1/players/p1")).json()
    assert RFC3339.fullmatch(body.pop("as_of"))
    assert body == {
        "player_id": "p1",
        "brand": "demo",
        "registered_at": "2026-03-10T11:00:00Z",
        "first_seen_at": "2026-03-10T11:00:00Z",
        "last_seen_at": "2026-03-10T11:30:00.250000Z",
    }


@pytest.mark.parametrize(
    "player_id",
    ["007", "7", "a/b", "a/features", "a/cluster", "/", "a b", "joão", "名前", "a%2Fb", "a?b",
     "a#b", "a;b", "💎", "a&b=c", "a\\b"],
)  # fmt: skip
async def test_any_id_that_is_taken_in_can_be_read(api: Api, player_id: str) -> None:
    await api.take(
        an_event_body(player_id=player_id), an_event_body(event_id="other", player_id="a")
    )
    path = f"/v1/players/{quote(player_id, safe='')}"
    for suffix in ("", "/features"):
        body = (await api.client.get(path + suffix)).json()
        assert body["player_id"] == player_id
    await serve(api.models, MODEL)
    assert (await api.client.get(f"{path}/cluster")).json()["player_id"] == player_id


async def test_an_id_with_plain_slashes_can_be_read_too(api: Api) -> None:
    await api.take(an_event_body(player_id="a/b/c"))
    assert (await api.client.get("/v1/players/a/b/c/features")).json()["player_id"] == "a/b/c"


@pytest.mark.parametrize("path", ["nobody", "%FF%FE", "%00", "x" * 1000, "", "%", "%zz"])
async def test_a_player_that_is_not_there_is_a_problem(api: Api, path: str) -> None:
    for suffix in ("", "/features"):
        answer = await api.client.get(f"/v1/players/{path}{suffix}")
        problem_of(answer, 404, "player_not_found")


async def test_a_players_brands_are_apart_and_an_unknown_one_is_a_problem(api: Api) -> None:
    await api.take(an_event_body(brand="other"))
    problem_of(await api.client.get("/v1/players/p1"), 404, "player_not_found")
    assert (await api.client.get("/v1/players/p1?brand=other")).json()["brand"] == "other"
    for path in ("/v1/players/p1", "/v1/players/p1/features", "/v1/clusters"):
        for brand in ("nobody", "", "ana@example.com"):
            answer = await api.client.get(path, params={"brand": brand})
            problem_of(answer, 404, "unknown_brand")
            assert "ana" not in answer.text


async def test_features_are_listed_with_unit_and_meaning(api: Api) -> None:
    body = (await api.client.get("/v1/features")).json()
    assert body["next"] is None
    assert [item["name"] for item in body["items"]] == [*FEATURES, *(one.name for one in LISTED)]
    assert all(item["unit"] and item["meaning"] for item in body["items"])


async def test_clusters_are_listed_and_a_player_is_in_one(api: Api) -> None:
    problem_of(await api.client.get("/v1/clusters"), 404, "clusters_not_found")
    await serve(api.models, MODEL)
    problem_of(await api.client.get("/v1/players/p1/cluster"), 404, "player_not_found")
    body = (await api.client.get("/v1/clusters")).json()
    assert body["next"] is None
    first = body["items"][0]
    assert first["means"] == {
        "stake_amount_lifetime": {"value": "1050.00", "whole": "2000.00", "unit": "EUR"}
    }
    assert (first["id"], first["name"], first["size"], first["share"]) == (1, "Casual", 30, 0.75)
    assert first["sample_players"] == ["007"]
    await api.take(an_event_body(), an_event_body(event_id="e2", player_id="p2", amount="4000"))
    found = [(await api.client.get(f"/v1/players/{p}/cluster")).json() for p in ("p1", "p2")]
    assert [(item["cluster"], item["name"]) for item in found] == [(1, "Casual"), (2, "High")]
    assert RFC3339.fullmatch(found[0]["as_of"])
    problem_of(await api.client.get("/v1/clusters?brand=other"), 404, "clusters_not_found")
