"""A training in all three real places, MLflow too; killed at any step it leaves no half model."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from crm.adapters.lake import Lake
from crm.adapters.mlflow_runs import MlflowRuns, MlflowSettings, store_of
from crm.adapters.postgres.models import open_models
from crm.domain.errors import RunsAway
from crm.services.model_registry import LEFTOVER_AFTER, Parts, register, sweep
from tests.support.models import trained
from tests.support.registering import STEPS, parts_of, the_model

CLONE = Path(__file__).resolve().parents[2]


def client_of(parts: Parts) -> Any:
    runs: Any = parts.runs
    return runs._client


async def test_a_training_stands_in_the_registry_in_mlflow_and_in_the_lake(
    dsn: str, tmp_path: Path
) -> None:
    lake, model = str(tmp_path / "lake"), the_model()
    async with open_models(dsn) as models:
        parts = await parts_of(dsn, lake, models)
        registered = await register(parts, model)
        assert registered.state == "serving"
        client = client_of(parts)
        run = client.get_run(registered.run)
        assert (run.info.status, run.data.tags["crm.model"]) == ("FINISHED", "m1")
        assert client.get_experiment(run.info.experiment_id).name == "demo/clusters"
        assert run.data.params["p149"] == "149"
        assert run.data.params["features"] == "bet_count_lifetime"
        assert run.data.metrics == model.metrics
        tags = run.data.tags
        assert (tags["crm.feature_list"], tags["crm.code_version"], tags["crm.data_digest"]) == (
            model.feature_list, model.code_version, model.data.digest,
        )  # fmt: skip
        assert tags["mlflow.note.content"] == "# Größe\n"
        (data,) = run.inputs.dataset_inputs
        assert data.dataset.digest == model.data.digest[:36]
        shown = {one.path for one in client.list_artifacts(registered.run)}
        assert shown == {"card.md", "sizes.png", "document.json"}
        kept = Lake(lake).names("models/m1")
        assert len(kept) == 3
        connection = await asyncpg.connect(dsn)
        try:
            ours = await connection.fetch(
                "SELECT tablename FROM pg_tables WHERE schemaname='public'"
            )
        finally:
            await connection.close()
        assert "experiments" not in {row["tablename"] for row in ours}, (
            "MLflow's tables are its own"
        )
        again = await register(parts, model)
        assert again == registered
        assert len(client.search_runs([run.info.experiment_id])) == 1


@pytest.mark.slow
@pytest.mark.one_server
async def test_killed_at_any_step_it_leaves_no_half_model_and_goes_on_when_it_is_tried_again(
    dsn: str, tmp_path: Path
) -> None:
    lake = str(tmp_path / "lake")
    for step in STEPS:
        killed = _run(dsn, lake, step)
        assert killed.returncode == -9, (step, killed.stderr)
        async with open_models(dsn) as models:
            registered = await models.known(["m1"]) == {"m1"}
            assert registered == (step == "promotion"), step
            if registered:  # whole: every file reads as it was registered
                parts = await parts_of(dsn, lake, models)
                model = await models.get("m1")
                for name, digest in (await models.digests("m1")).items():
                    assert parts.files.read(model, name, digest) == the_model().files[name]
                assert (model.state, await models.revision()) == ("candidate", 0)
                assert await models.document("m1") == the_model().document
    done = _run(dsn, lake, "none")
    assert done.returncode == 0, done.stderr
    async with open_models(dsn) as models:
        parts = await parts_of(dsn, lake, models)
        model = await models.get("m1")
        assert (model.state, model.number) == ("serving", 1)
        run = client_of(parts).get_run(model.run)
        runs = client_of(parts).search_runs([run.info.experiment_id])
        assert [one.info.run_id for one in runs] == [model.run], "one run, whatever happened"
        assert (run.info.status, len(run.data.params)) == ("FINISHED", 153)
        later = datetime.now(UTC) + 2 * LEFTOVER_AFTER  # noqa: TID251 - of real files and runs
        assert await sweep(parts, later) == []


@pytest.mark.slow
@pytest.mark.one_server
async def test_what_a_kill_has_left_is_swept_and_models_stay(dsn: str, tmp_path: Path) -> None:
    lake = str(tmp_path / "lake")
    assert _run(dsn, lake, "row").returncode == -9
    async with open_models(dsn) as models:
        parts = await parts_of(dsn, lake, models)
        await register(parts, trained(id="stays"))
        now = datetime.now(UTC)  # noqa: TID251 - of real files and runs
        assert await sweep(parts, now) == [], "it may be at work"
        assert await sweep(parts, now + LEFTOVER_AFTER + timedelta(minutes=1)) == ["m1"]
        assert await sweep(parts, now + 2 * LEFTOVER_AFTER) == []
        assert {name.split("/")[1] for name in Lake(lake).names("models")} == {"stays"}
        assert len(Lake(lake).names("mlflow")) == 3
        stays = client_of(parts).get_run((await models.get("stays")).run)
        left = client_of(parts).search_runs([stays.info.experiment_id])
        assert [one.data.tags["crm.model"] for one in left] == ["stays"]


def test_an_mlflow_that_is_away_is_named_as_such(tmp_path: Path) -> None:
    store = store_of(MlflowSettings(), "postgresql://nobody@127.0.0.1:1/none")
    runs = MlflowRuns(store, str(tmp_path), "ours")
    with pytest.raises(RunsAway, match="does not answer"):
        runs.record(trained())


async def test_a_role_that_may_make_no_schema_is_told_so_and_uses_one_that_is_there(
    dsn: str, tmp_path: Path
) -> None:
    role = f"plain_{token_hex(4)}"
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(f"CREATE ROLE {role} LOGIN")
        theirs = urlsplit(dsn)
        host = theirs.netloc.rpartition("@")[2]
        rest = f"?{theirs.query}" if theirs.query else ""
        store = store_of(MlflowSettings(), f"postgresql://{role}@{host}{theirs.path}{rest}")
        with pytest.raises(RunsAway, match="CREATE SCHEMA mlflow"):
            await asyncio.to_thread(MlflowRuns(store, str(tmp_path), "ours").record, trained())
        await connection.execute(f"CREATE SCHEMA mlflow AUTHORIZATION {role}")
        assert await asyncio.to_thread(MlflowRuns(store, str(tmp_path), "ours").record, trained())
    finally:
        await connection.execute("DROP SCHEMA IF EXISTS mlflow CASCADE")
        await connection.execute(f"DROP ROLE IF EXISTS {role}")
        await connection.close()


def _run(dsn: str, lake: str, step: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.support.registering", dsn, lake, step]
    return subprocess.run(command, cwd=CLONE, capture_output=True, text=True, check=False)
