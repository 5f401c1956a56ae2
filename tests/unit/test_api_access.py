"""Who may ask, and what every answer carries, whatever the route."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from starlette.routing import BaseRoute
from structlog.testing import capture_logs

from crm.domain.errors import SealBroken
from crm.domain.rules import Rule
from deployments.api import guard
from deployments.api.guard import OPEN, OPEN_BELOW, REREAD_S, SAFE
from tests.support.api import KEY, Api, a_client, an_api, an_event_body, problem_of
from tests.support.local_shards import LocalShards

ASSETS = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png", "start.js")


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with an_api() as running:
        yield running


def _routes(routes: Sequence[BaseRoute]) -> Iterator[tuple[str, str]]:
    """Every method and path; FastAPI nests what is included."""
    for route in routes:
        path = getattr(route, "path", None)
        for method in getattr(route, "methods", None) or ():
            yield method, str(path)
        nested = getattr(route, "original_router", None) or route
        yield from _routes(getattr(nested, "routes", None) or ())


def _closed(api: Api) -> list[tuple[str, str]]:
    found = {
        (method, path.replace(":path}", "}").replace("{player_id}", "p1"))
        for method, path in _routes(api.app.routes)
    }
    return sorted(
        (method, path)
        for method, path in found
        if path not in OPEN and not path.startswith(OPEN_BELOW)
    )


async def test_every_route_that_is_not_open_needs_a_key_that_is_known(api: Api) -> None:
    closed = _closed(api)
    assert {path for _, path in closed} >= {"/v1/events", "/v1/players/p1/features", "/v1/clusters"}
    headers: list[dict[str, str]] = [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": f"Basic {KEY}"},
        {"authorization": KEY},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": "Bearer \xff"},
        {"x-api-key": KEY},
    ]
    for method, path in [*closed, ("GET", "/v1/nothing"), ("HEAD", "/v1/clusters")]:
        for sent in headers:
            async with a_client(api.app) as stranger:
                raw = [(name.encode(), value.encode("latin-1")) for name, value in sent.items()]
                answer = await stranger.request(method, path, headers=raw)
            assert answer.status_code == 401, (method, path, sent)
            assert answer.headers["www-authenticate"] == "Bearer"
            if method != "HEAD":
                problem_of(answer, 401, "unauthorized")
        known = await api.client.request(method, path)
        assert known.status_code != 401, (method, path)


async def test_a_key_in_the_address_opens_nothing(api: Api) -> None:
    async with a_client(api.app) as stranger:
        answer = await stranger.get("/v1/features", params={"key": KEY, "authorization": KEY})
    problem_of(answer, 401, "unauthorized")


async def test_paths_that_only_look_open_are_not(api: Api) -> None:
    async with a_client(api.app) as stranger:
        for path in ("/healthz/", "/docs/", "/docs/assetsx", "//healthz", "/v1/features?/healthz"):
            problem_of(await stranger.get(path), 401, "unauthorized")
        for path in (
            "/docs/assets/../../v1/features",
            "/docs/assets/%2e%2e/%2e%2e/v1/features",
            "/docs/assets/../../../../etc/passwd",
        ):
            answer = await stranger.get(path)
            assert answer.status_code in {401, 404}
            assert "items" not in answer.text


async def test_what_is_open_needs_no_key_and_not_the_store_of_keys(api: Api) -> None:
    api.keys.away = True
    async with a_client(api.app) as stranger:
        for path in (*sorted(OPEN), *[f"/docs/assets/{name}" for name in ASSETS]):
            assert (await stranger.get(path)).status_code == 200, path


async def test_while_the_keys_cannot_be_read_the_client_is_told_to_come_again(api: Api) -> None:
    api.keys.away = True
    problem_of(await api.client.get("/v1/features"), 503, "database_unavailable")
    api.keys.away = False
    assert (await api.client.get("/v1/features")).status_code == 200


async def test_a_removed_key_is_noticed_in_time(api: Api) -> None:
    assert (await api.client.get("/v1/features")).status_code == 200
    api.keys.known.clear()
    api.clock.move(seconds=REREAD_S + 1)
    assert (await api.client.get("/v1/features")).status_code == 401


async def test_keys_are_read_once_for_all_who_ask_at_once(api: Api) -> None:
    answers = await asyncio.gather(*[api.client.get("/v1/features") for _ in range(50)])
    assert {answer.status_code for answer in answers} == {200}
    assert api.keys.readings == 1
    async with a_client(api.app, {"authorization": "Bearer guess"}) as stranger:
        api.clock.move(seconds=REREAD_S / 2)
        await asyncio.gather(*[stranger.get("/v1/features") for _ in range(50)])
    assert api.keys.readings == 2


async def test_a_body_that_stops_on_its_way_frees_its_place(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "BODY_S", 0.05)
    never = asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        yield b'{"events": ['
        await never.wait()

    problem_of(await api.client.post("/v1/events", content=stalling()), 408, "slow_body")
    form = {"content-type": "application/json"}
    answer = await api.client.post("/v1/segments/preview", content=stalling(), headers=form)
    problem_of(answer, 408, "slow_body")


async def test_every_answer_carries_the_safe_headers(api: Api) -> None:
    async with a_client(api.app) as stranger:
        answers = [
            await stranger.get("/healthz"),
            await stranger.get("/v1/features"),
            await api.client.get("/v1/features"),
            await api.client.get("/v1/nothing"),
            await api.client.delete("/v1/features"),
            await api.client.post("/v1/events", content=b"{"),
            await api.client.post("/v1/events", content=b" " * 5_000_001),
            await stranger.get("/docs"),
            await stranger.get("/openapi.json"),
        ]
    for answer in answers:
        for name, value in SAFE.items():
            if not (name == "content-security-policy" and answer.url.path == "/docs"):
                assert answer.headers[name] == value, (answer.url, name)


async def test_unknown_paths_and_methods_are_problems(api: Api) -> None:
    for path in ("/", "/v1", "/v1/nothing", "/v1/clusters/", "/-/x", "/docs/assets/none.js"):
        problem_of(await api.client.get(path), 404, "not_found")
    for method in ("DELETE", "PUT", "PATCH", "OPTIONS", "POST"):
        answer = await api.client.request(method, "/v1/clusters")
        problem_of(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == "GET"
    for method in ("GET", "HEAD"):
        answer = await api.client.request(method, "/v1/events")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_head_is_get_without_its_body(api: Api) -> None:
    for path in ("/healthz", "/v1/features", "/v1/nothing"):
        whole, head = await api.client.get(path), await api.client.head(path)
        assert head.status_code == whole.status_code
        assert head.content == b""
        assert head.headers == whole.headers


class _Broken(LocalShards):
    """Shards with a fault in them, whose text holds what nobody may see."""

    def __init__(self) -> None:
        pass

    async def features(self, brand: str, player_id: str) -> Any:
        raise ZeroDivisionError(f"{player_id} is ana@example.com")

    async def append(self, groups: Any) -> Any:
        raise KeyError("ana@example.com")

    async def count(self, brand: str, rule: Rule) -> Any:
        raise SealBroken("a named fact without a status of its own")


async def test_an_unexpected_fault_is_a_problem_without_details_and_one_log_line() -> None:
    async with an_api(shards=_Broken()) as api:
        with capture_logs() as lines:
            for answer in (
                await api.client.get("/v1/players/secret-id/features"),
                await api.send(an_event_body()),
            ):
                problem_of(answer, 500, "internal")
                assert answer.headers["cache-control"] == "no-store"
                assert "ana" not in answer.text
                assert "Zero" not in answer.text
    assert [(line["event"], line["error"]) for line in lines] == [
        ("request_failed", "ZeroDivisionError"),
        ("request_failed", "KeyError"),
    ]
    assert lines[0]["route"] == "/v1/players/{player_id:path}/features"
    assert "test_api_access.py" in lines[0]["where"]
    assert "ana" not in str(lines)
    assert "secret-id" not in str(lines)


async def test_a_named_fact_without_a_status_is_an_internal_problem() -> None:
    async with an_api(shards=_Broken()) as api:
        answer = await api.client.post("/v1/segments/preview", json={"rule": "bet_count_7d > 1"})
        problem_of(answer, 500, "seal_broken")
