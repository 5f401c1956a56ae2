"""GET /healthz and /readyz: each part's state, and what decides."""

from __future__ import annotations

import asyncio

import pytest

from deployments.api import health
from deployments.api.services import Check
from tests.support.api import a_client, an_api


def _says(state: str) -> Check:
    async def check() -> str:
        if state == "away":
            raise OSError("postgresql://user:secret@host is away")
        if state == "silent":
            await asyncio.Event().wait()
        return state

    return check


@pytest.mark.parametrize(
    ("postgres", "shards", "redis", "status"),
    [
        ("ok", "ok", "ok", 200),
        ("ok", "ok", "away", 200),
        ("away", "ok", "ok", 503),
        ("ok", "warming", "ok", 503),
        ("ok", "away", "away", 503),
    ],
)
async def test_readiness_says_each_parts_state(
    postgres: str, shards: str, redis: str, status: int
) -> None:
    states = {"postgres": postgres, "shards": shards, "redis": redis}
    async with an_api(checks={name: _says(state) for name, state in states.items()}) as api:
        answer = await api.client.get("/readyz")
        assert (await api.client.get("/healthz")).json() == {"status": "ok"}
    assert answer.status_code == status
    assert answer.json() == {"status": "ready" if status == 200 else "not ready", "parts": states}
    assert "secret" not in answer.text


async def test_a_part_that_does_not_answer_in_time_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "CHECK_TIMEOUT_S", 0.01)
    checks = {"postgres": _says("ok"), "shards": _says("ok"), "redis": _says("silent")}
    async with an_api(checks=checks) as api, a_client(api.app) as stranger:
        answer = await stranger.get("/readyz")
    assert (answer.status_code, answer.json()["parts"]["redis"]) == (200, "away")
