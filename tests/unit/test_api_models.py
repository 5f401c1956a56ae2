"""/v1/models: the list, a model, its files, promotion, rollback, and the record."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from crm.services.model_registry import Parts, register
from tests.support.api import KEY, Api, an_api, problem_of
from tests.support.models import AT, trained


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with an_api() as api:
        yield api


async def have(api: Api, *names: str, **changes: Any) -> None:
    for name in names:
        made = trained(id=name, **changes)
        api.model_files.put(made)
        await api.models.add(made, f"run-{name}")


async def promote(api: Api, model: str, key: str | None = None, **body: Any) -> httpx.Response:
    headers = {} if key is None else {"idempotency-key": key}
    return await api.client.post(f"/v1/models/{model}/promote", json=body, headers=headers)


async def roll_back(api: Api, key: str | None = None, **body: Any) -> httpx.Response:
    headers = {} if key is None else {"idempotency-key": key}
    asked = {"kind": "clusters"} | body
    return await api.client.post("/v1/models/rollback", json=asked, headers=headers)


async def serving(api: Api) -> list[str]:
    return [one.id for one in await api.models.serving("demo")]


async def test_models_are_listed_by_pages_the_newest_first(api: Api) -> None:
    assert (await api.client.get("/v1/models")).json() == {"items": [], "next": None}
    await have(api, "a", "b", "c")
    await have(api, "d", kind="churn")
    await have(api, "x", brand="other")
    first = (await api.client.get("/v1/models?limit=3")).json()
    assert [one["id"] for one in first["items"]] == ["d", "c", "b"]
    rest = (await api.client.get("/v1/models", params={"cursor": first["next"]})).json()
    assert ([one["id"] for one in rest["items"]], rest["next"]) == (["a"], None)
    churn = (await api.client.get("/v1/models?kind=churn")).json()
    assert [one["id"] for one in churn["items"]] == ["d"]
    problem_of(await api.client.get("/v1/models?brand=nobody"), 404, "unknown_brand")
    problem_of(await api.client.get("/v1/models?kind=clutter"), 422, "invalid_field")
    problem_of(await api.client.get("/v1/models?cursor=x"), 422, "invalid_cursor")


async def test_a_model_says_all_that_is_known_of_it(api: Api) -> None:
    await have(api, "a", beats_baseline=True)
    body = (await api.client.get("/v1/models/a")).json()
    assert (body["number"], body["state"], body["run"]) == (1, "candidate", "run-a")
    assert body["created_at"] == AT.isoformat().replace("+00:00", "Z")
    assert body["data"]["digest"] == "d" * 64
    assert body["metrics"]["silhouette"] == 0.30000000000000004
    assert body["files"] == ["card.md", "sizes.png"]
    problem_of(await api.client.get("/v1/models/b"), 404, "model_not_found")


async def test_the_card_and_the_files_come_as_they_were(api: Api) -> None:
    await have(api, "a")
    card = await api.client.get("/v1/models/a/card")
    assert (card.text, card.headers["content-type"]) == (
        "# Größe\n",
        "text/markdown; charset=utf-8",
    )
    plot = await api.client.get("/v1/models/a/files/sizes.png")
    assert (plot.content, plot.headers["content-type"]) == (b"\x89PNG\x00", "image/png")
    assert plot.headers["x-content-type-options"] == "nosniff"
    for path in ("a/files/other.png", "a/files/document.json", "a/files/..%2Fcard.md"):
        problem_of(await api.client.get(f"/v1/models/{path}"), 404, "model_file_not_found")
    problem_of(await api.client.get("/v1/models/b/card"), 404, "model_not_found")
    await have(api, "b", files={})
    problem_of(await api.client.get("/v1/models/b/card"), 404, "model_file_not_found")
    api.model_files.forget("a")
    problem_of(await api.client.get("/v1/models/a/card"), 503, "model_file_lost")


async def test_a_promotion_and_a_rollback_change_what_the_clusters_route_answers(api: Api) -> None:
    await have(api, "a", "b")
    problem_of(await api.client.get("/v1/clusters"), 404, "clusters_not_found")
    assert (await promote(api, "a")).json()["state"] == "serving"
    assert (await api.client.get("/v1/clusters")).status_code == 200
    assert (await promote(api, "b")).json()["id"] == "b"
    assert (await api.client.get("/v1/models/a")).json()["state"] == "former"
    back = await roll_back(api, why="names")
    assert (back.status_code, back.json()["id"], back.json()["state"]) == (200, "a", "serving")
    problem_of(await roll_back(api), 409, "no_former_model")
    problem_of(await roll_back(api, kind="churn"), 409, "no_former_model")


async def test_a_promotion_needs_no_body(api: Api) -> None:
    await have(api, "a")
    answer = await api.client.post("/v1/models/a/promote")
    assert (answer.status_code, await serving(api)) == (200, ["a"])


async def test_what_does_not_beat_its_baseline_needs_force_and_a_reason(api: Api) -> None:
    await have(api, "a", kind="churn", beats_baseline=False)
    problem_of(await promote(api, "a", why="please"), 409, "model_not_better")
    problem_of(await promote(api, "a", force=True), 422, "invalid_reason")
    assert await serving(api) == []
    assert (await promote(api, "a", force=True, why="demo")).status_code == 200
    assert await serving(api) == ["a"]


async def test_the_record_names_the_key_that_asked(api: Api) -> None:
    await have(api, "a", "b")
    for name in "ab":
        await promote(api, name, why=f"try {name}")
    await roll_back(api)
    first = (await api.client.get("/v1/models/changes?limit=2")).json()
    assert [(one["action"], one["by"], one["model"], one["why"]) for one in first["items"]] == [
        ("rolled_back", KEY[:4], "a", ""),
        ("promoted", KEY[:4], "b", "try b"),
    ]
    rest = (await api.client.get("/v1/models/changes", params={"cursor": first["next"]})).json()
    assert [one["action"] for one in rest["items"]] == ["promoted", "registered", "registered"]
    assert rest["next"] is None


async def test_a_change_sent_again_under_its_key_happens_once(api: Api) -> None:
    await have(api, "a", "b", "c")
    for name in "abc":
        await promote(api, name)
    first = await roll_back(api, "k1")
    again = await roll_back(api, "k1")
    assert first.json() == again.json()
    assert await serving(api) == ["b"]
    problem_of(await roll_back(api, "k1", why="other"), 422, "idempotency_key_reused")
    await promote(api, "c", "k2")
    await promote(api, "a")
    assert (await promote(api, "c", "k2")).json()["id"] == "c"
    assert await serving(api) == ["a"]
    problem_of(await promote(api, "c", " "), 400, "invalid_idempotency_key")


async def test_a_rollback_of_another_model_than_was_seen_is_refused(api: Api) -> None:
    await have(api, "a", "b")
    for name in "ab":
        await promote(api, name)
    problem_of(await roll_back(api, seen="a"), 409, "serving_changed")
    assert (await roll_back(api, seen="b")).status_code == 200


@pytest.mark.parametrize(
    "body", [{"kind": "clutter"}, {"why": "x" * 501}, {"more": 1}, {"kind": None}]
)
async def test_a_wrong_field_is_named(api: Api, body: dict[str, Any]) -> None:
    problem_of(await roll_back(api, **body), 422, "invalid_field")


async def test_with_the_database_away_everything_says_so(api: Api) -> None:
    await register(Parts(api.model_files, _NoRuns(), api.models), trained(id="a"))
    api.models.away = True
    for path in ("", "/a", "/a/card", "/changes"):
        answer = await api.client.get(f"/v1/models{path}")
        problem_of(answer, 503, "database_unavailable")
    problem_of(await promote(api, "a"), 503, "database_unavailable")
    problem_of(await roll_back(api), 503, "database_unavailable")


class _NoRuns:
    """Where there is no MLflow."""

    def record(self, model: object) -> None:
        return None

    def unfinished(self) -> list[Any]:
        return []

    def forget(self, model: str) -> None:
        raise AssertionError(model)
