"""The OpenAPI document and its pages, which need no internet."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.app import run
from deployments.api.app import openapi_document
from deployments.api.guard import OPEN
from tests.support.api import a_client, an_api

FILES = ("/v1/models/{model_id}/card", "/v1/models/{model_id}/files/{name}")
DOCUMENT = openapi_document()
OPERATIONS = [
    (path, method, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for item in node:
            yield from _references(item)


def test_the_document_is_openapi_with_references_that_resolve() -> None:
    assert DOCUMENT["openapi"].startswith("3.1")
    assert {path for path, _, _ in OPERATIONS} == {
        "/healthz", "/readyz", "/v1/events", "/v1/features", "/v1/clusters",
        "/v1/clusters/moves", "/v1/clusters/{cluster_id}/segment",
        "/v1/segments/preview", "/v1/players/{player_id}", "/v1/players/{player_id}/features",
        "/v1/players/{player_id}/cluster", "/v1/segments", "/v1/segments/lists",
        "/v1/segments/rule-schema",
        "/v1/segments/{segment_id}", "/v1/segments/{segment_id}/versions",
        "/v1/segments/{segment_id}/sizes", "/v1/segments/{segment_id}/usage",
        "/v1/segments/{segment_id}/members", "/v1/segments/{segment_id}/players",
        "/v1/segments/{segment_id}/players/{player_id}/why", "/v1/live/tickets",
        "/v1/analytics/overview", "/v1/retrains", "/v1/retrains/{retrain_id}",
        "/v1/models/{model_id}/drift", "/v1/segments/replay", "/v1/predictions",
        "/v1/players/{player_id}/scores",
        "/v1/models", "/v1/models/changes", "/v1/models/rollback", "/v1/models/{model_id}",
        "/v1/models/{model_id}/promote", *FILES,
    }  # fmt: skip
    schemas = DOCUMENT["components"]["schemas"]
    named = {reference.removeprefix("#/components/schemas/") for reference in _references(DOCUMENT)}
    assert named == set(schemas)
    json.dumps(DOCUMENT, allow_nan=False)


@pytest.mark.parametrize(
    ("path", "method", "operation"), OPERATIONS, ids=lambda value: str(value)[:40]
)
def test_every_route_says_what_it_does_who_may_ask_and_how_it_fails(
    path: str, method: str, operation: dict[str, Any]
) -> None:
    assert operation["summary"]
    assert len(operation["tags"]) == 1
    assert len(operation["description"]) > 20
    responses = operation["responses"]
    done = responses["201" if "201" in responses else "200"]
    if path in FILES:
        ((_, content),) = done["content"].items()
        assert content["schema"]["format"] == "binary"
    else:
        assert "$ref" in done["content"]["application/json"]["schema"]
    assert operation.get("security") == (None if path in OPEN else [{"Bearer": []}])
    assert ("401" in responses) == (path not in OPEN)
    for status, response in responses.items():
        if status not in {"200", "201"} and path != "/readyz":
            assert "Problem" in str(response["content"]["application/problem+json"])
    parameters = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
    assert parameters == set(re.findall(r"{(\w+)}", path))


def test_operations_have_short_names_of_their_own() -> None:
    names = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(names)) == len(names)
    assert "read_player" in names


def test_the_command_writes_the_document_without_a_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CRM_VAR_DIR", str(tmp_path / "var"))
    out = tmp_path / "openapi.json"
    assert run(["openapi", "--out", str(out)]) == 0
    assert json.loads(out.read_text()) == DOCUMENT
    assert run(["openapi"]) == 0
    assert json.loads(capsys.readouterr().out) == DOCUMENT
    assert run(["openapi", "--out", str(tmp_path / "no" / "folder.json")]) == 1
    assert capsys.readouterr().err.startswith("crm: cannot write")


async def test_the_page_and_all_that_it_loads_come_from_here() -> None:
    async with an_api() as api, a_client(api.app) as stranger:
        page = await stranger.get("/docs")
        assert page.headers["content-type"].startswith("text/html")
        policy = page.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(loaded) == 4
        for address in loaded:
            assert "//" not in address
            asset = await stranger.get(f"/{address}")
            assert asset.status_code == 200
            assert asset.headers["cache-control"] == "public, max-age=3600"
            assert len(asset.content) > 50
        assert not re.findall(r"<script(?![^>]*src=)|style=| on\w+=", page.text)
        assert (await stranger.get("/openapi.json")).json() == DOCUMENT
