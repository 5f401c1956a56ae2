"""Retrains in the whole system: once each, seen when they fail, no danger to what serves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support.instance import Instance, a_place
from tests.support.wait import wait_for_async

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "own-training"
LONG_S = 180
pytestmark = pytest.mark.timeout(900)  # with the set-up: a whole instance and two imports
SETTINGS = {
    "look_every_s": 0.5,
    "drift": {"every_s": 1, "rest_s": 0},
    # a brand without a single event: its retrain ends soon
    "plans": [{"kind": "churn", "brand": "trial", "every_s": 60}],
}


GROUPED = "bustabit"  # a brand of players in planted groups; those of demo are in none
WITH_GROUPS = ("--groups", "3", "--separation", "8")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """An instance with two brands."""
    folder = tmp_path_factory.mktemp("history")
    with a_place() as place:
        started = place.crm("up", CRM_RETRAINS=json.dumps(SETTINGS))
        assert started.returncode == 0, started.stderr
        _play(place, folder / "demo.parquet", "demo", players=500, days=65)
        _play(place, folder / "grouped.parquet", GROUPED, *WITH_GROUPS, players=240, days=12)
        yield place


def _play(place: Instance, file: Path, brand: str, *more: str, players: int, days: int) -> None:
    """Bring simulated players in, until now."""
    asked = ("--players", str(players), "--days", str(days), "--seed", str(players), *more)
    for arguments in (
        ("simulate", "--out", str(file), "--brand", brand, *asked),
        ("import", str(file), "--mapping", "configs/mappings/simulated.yaml", "--brand", brand),
    ):
        done = place.crm(*arguments)
        assert done.returncode == 0, done.stderr


async def _ask(client: httpx.AsyncClient, key: str, **asked: Any) -> dict[str, Any]:
    headers = {"idempotency-key": key}
    answer = await client.post("/v1/retrains", json={"brand": GROUPED, **asked}, headers=headers)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def _state(client: httpx.AsyncClient, retrain: str, *states: str) -> dict[str, Any]:
    async def reached() -> dict[str, Any] | None:
        found: dict[str, Any] = (await client.get(f"/v1/retrains/{retrain}")).json()
        return found if found["state"] in states else None

    found = await wait_for_async(
        reached, f"the retrain is {' or '.join(states)}", deadline_s=LONG_S, every_s=0.1
    )
    assert found is not None
    return found


async def _serving(client: httpx.AsyncClient, kind: str) -> list[str]:
    listed = (await client.get("/v1/models", params={"brand": GROUPED, "kind": kind})).json()
    return [model["id"] for model in listed["items"] if model["state"] == "serving"]


def _token(running: Instance) -> dict[str, str]:
    return {"Authorization": f"Bearer {(running.var_dir / 'run' / 'ray-token').read_text()}"}


def _jobs(running: Instance, retrain: str) -> list[dict[str, Any]]:
    listed = httpx.get(f"{running.state()['dashboard']}/api/jobs/", headers=_token(running)).json()
    return [job for job in listed if job["submission_id"] == retrain]


def _driver(running: Instance, retrain: str) -> psutil.Process | None:
    for process in running.processes():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if "pipelines.retraining" in words and retrain in words:
            return process
    return None


@pytest.mark.slow
async def test_a_retrain_that_is_asked_for_twice_runs_once_and_serves(running: Instance) -> None:
    async with running.client() as client:
        asked, again = await asyncio.gather(
            *[_ask(client, "first", kind="clusters", budget_s=2) for _ in range(2)]
        )
        assert asked["id"] == again["id"]
        done = await _state(client, asked["id"], "done", "failed")
        assert (done["state"], done["promoted"]) == ("done", True), done["reason"]
        assert done["note"] == "promoted: nothing was serving"
        assert await _serving(client, "clusters") == [done["model"]]
        (job,) = _jobs(running, asked["id"])
        assert job["status"] in {"RUNNING", "SUCCEEDED"}
        assert (await _ask(client, "first", kind="clusters", budget_s=2))["state"] == "done"
        submitted = [one["retrain"] for one in running.logged("retrain_submitted")]
        assert submitted.count(asked["id"]) == 1

        async def looked_at() -> dict[str, Any] | None:
            answer = await client.get(f"/v1/models/{done['model']}/drift")
            return dict(answer.json()) if answer.status_code == 200 else None

        drift = await wait_for_async(looked_at, "somebody has looked at the model's drift")
        assert drift is not None
        assert drift["drifted"] == []
        assert 0 < drift["players"] <= 240
        assert drift["score"]["name"] == "score"


@pytest.mark.slow
async def test_a_driver_that_is_killed_is_found_and_what_serves_goes_on(running: Instance) -> None:
    async with running.client() as client:
        before = await _serving(client, "clusters")
        asked = await _ask(client, "killed", kind="clusters")
        await _state(client, asked["id"], "running")
        driver = _driver(running, asked["id"])
        assert driver is not None
        os.kill(driver.pid, signal.SIGKILL)
        failed = await _state(client, asked["id"], "failed", "done")
        assert failed["reason"] == "the job's driver was killed (SIGKILL) before it told of an end"
        assert await _serving(client, "clusters") == before

        async def logged() -> bool:
            return any(one["retrain"] == asked["id"] for one in running.logged("retrain_failed"))

        await wait_for_async(logged, "the log tells of it")
        # the next one is not held up
        after = await _ask(client, "after", kind="clusters", budget_s=2)
        done = await _state(client, after["id"], "done", "failed")
        assert done["state"] == "done", done["reason"]


@pytest.mark.slow
async def test_a_training_that_cannot_be_tells_why(running: Instance) -> None:
    async with running.client() as client:
        asked = await _ask(client, "too-soon", kind="value", brand="demo")
        failed = await _state(client, asked["id"], "failed", "done")
        assert failed["state"] == "failed"
        assert "days of events" in failed["reason"]
        assert await _serving(client, "value") == []


@pytest.mark.slow
async def test_an_own_script_reads_the_features_and_registers_its_model(running: Instance) -> None:
    ray = Path(sys.executable).with_name("ray")
    token = running.var_dir / "run" / "ray-token"
    submitted = await asyncio.to_thread(
        subprocess.run,
        [ray, "job", "submit", "--address", running.state()["dashboard"], "--working-dir", ".",
         "--submission-id", "own-1", "--", "python", "train.py", "--brand", "demo"],
        cwd=EXAMPLE, capture_output=True, text=True, check=False, timeout=LONG_S,
        env=running.environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token)),
    )  # fmt: skip
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    (line,) = [one for one in submitted.stdout.splitlines() if one.startswith('{"id"')]
    async with running.client() as client:
        model = (await client.get(f"/v1/models/{json.loads(line)['id']}")).json()
    assert (model["kind"], model["algorithm"], model["state"]) == (
        "churn",
        "own-logistic",
        "candidate",
    )
    assert model["metrics"]["own_auc"] > 0.6
    assert {"card.md", "reference.json"} <= set(model["files"])


@pytest.mark.slow
def test_the_job_api_takes_nothing_without_the_token(running: Instance) -> None:
    url = f"{running.state()['dashboard']}/api/jobs/"
    assert httpx.post(url, json={"entrypoint": "true"}).status_code == 401


@pytest.mark.slow
async def test_a_plan_asks_by_itself_and_its_failure_is_seen(running: Instance) -> None:
    async with running.client() as client:

        async def ended() -> dict[str, Any] | None:
            listed = (await client.get("/v1/retrains?brand=trial")).json()["items"]
            return next((one for one in listed if one["state"] == "failed"), None)

        found = await wait_for_async(ended, "the planned retrain has ended", deadline_s=LONG_S)
        assert found is not None
        assert (found["cause"], found["kind"], found["model"]) == ("schedule", "churn", None)
        assert "no events" in found["reason"]


@pytest.mark.slow
async def test_players_of_another_kind_bring_a_retrain_about(
    running: Instance, tmp_path: Path
) -> None:
    async with running.client() as client:
        (before,) = await _serving(client, "clusters")
        await asyncio.to_thread(
            _play, running, tmp_path / "new.parquet", GROUPED, players=400, days=2
        )

        async def asked() -> dict[str, Any] | None:
            listed = (await client.get(f"/v1/retrains?brand={GROUPED}&kind=clusters")).json()[
                "items"
            ]
            return next((one for one in listed if one["cause"] == "drift"), None)

        retrain = await wait_for_async(asked, "drift asks for a retrain", deadline_s=LONG_S)
        assert retrain is not None
        assert retrain["occasion"].startswith(before)
        drift = (await client.get(f"/v1/models/{before}/drift")).json()
        assert drift["drifted"]
        worst = drift["features"][0]
        assert worst["psi"] > max(0.25, worst["chance"])
        await _state(client, retrain["id"], "done", "failed")
