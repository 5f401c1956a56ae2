"""MLflow's page, in its own environment, shows what the product's MLflow has recorded."""

from __future__ import annotations

import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from cluster.commands import mlflow_page
from configs.settings import CLONE
from crm.adapters.mlflow_runs import MlflowRuns, MlflowSettings, artifact_root, store_of
from tests.support.ports import free_port
from tests.support.registering import the_model
from tests.support.wait import wait_for

LOCK = CLONE / "uv.lock"


def test_the_page_is_of_the_version_that_records() -> None:
    locked = {one["name"]: one["version"] for one in tomllib.loads(LOCK.read_text())["package"]}
    wanted = mlflow_page.REQUIREMENTS.read_text().splitlines()
    assert f"mlflow=={locked['mlflow-skinny']}" in wanted


def test_what_is_secret_is_not_on_the_command_line() -> None:
    store = store_of(MlflowSettings(), "postgresql://crm:s3cret@db:5432/crm?sslmode=require")
    assert store.startswith("postgresql+psycopg://crm:s3cret@db:5432/crm?sslmode=require&options=")
    root = artifact_root("s3://lake/crm?access_key=k&secret_key=s3cret")
    assert root == "s3://lake/crm/mlflow"
    assert "s3cret" not in " ".join(mlflow_page.command(Path("mlflow"), 1, root))
    assert "s3cret" in mlflow_page.environment(store)["MLFLOW_BACKEND_STORE_URI"]


def test_a_configured_store_is_taken_as_it_is() -> None:
    assert store_of(MlflowSettings("http://tracking:5000"), "postgresql://x") == (
        "http://tracking:5000"
    )


@pytest.mark.slow
@pytest.mark.one_server
@pytest.mark.timeout(900)
def test_the_page_shows_runs_and_files_and_answers_no_other_name(dsn: str, tmp_path: Path) -> None:
    lake, model = str(tmp_path / "lake"), the_model()
    store = store_of(MlflowSettings(), dsn)
    run = MlflowRuns(store, lake, "ours").record(model)
    with _page(store, lake, tmp_path / "page.log") as page:
        found = page.get("/ajax-api/2.0/mlflow/runs/get", params={"run_id": run})
        data = found.raise_for_status().json()["run"]["data"]
        assert {one["key"]: one["value"] for one in data["metrics"]} == model.metrics
        listed = page.get("/ajax-api/2.0/mlflow/artifacts/list", params={"run_id": run})
        names = {one["path"] for one in listed.json()["files"]}
        assert names == {"card.md", "document.json", "sizes.png"}
        shown = page.get("/get-artifact", params={"run_id": run, "path": "card.md"})
        assert shown.content == model.files["card.md"]
        strange = {"host": "evil.example"}  # a page elsewhere that has its name point here
        assert page.get("/ajax-api/2.0/mlflow/runs/get", headers=strange).status_code == 403


@contextmanager
def _page(store: str, lake: str, log: Path) -> Iterator[httpx.Client]:
    port, program = free_port(), mlflow_page.program()
    with log.open("wb") as out:
        page = subprocess.Popen(
            mlflow_page.command(program, port, artifact_root(lake)),
            env=mlflow_page.environment(store), stdout=out, stderr=out, cwd=log.parent,
        )  # fmt: skip
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:

            def answers() -> bool:
                assert page.poll() is None, log.read_text()
                try:
                    return client.get("/health").status_code == 200
                except httpx.TransportError:
                    return False

            wait_for(answers, "MLflow's page", deadline_s=600)
            yield client
    finally:
        page.terminate()
        page.wait(60)
