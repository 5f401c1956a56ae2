"""The laws of what a registration writes first, files and runs: on the twins and on the real."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from crm.adapters.lake import Lake
from crm.adapters.memory_model_files import MemoryModelFiles, MemoryRuns
from crm.adapters.mlflow_runs import MlflowRuns, MlflowSettings, store_of
from crm.adapters.model_files import LakeModelFiles
from crm.domain.errors import ModelFileLost
from crm.domain.model_changes import registered
from crm.domain.models import TrainedModel
from crm.services.model_registry import ModelFiles, Runs
from tests.support.models import AT, trained
from tests.support.s3 import an_s3_server

CARD = trained().files["card.md"]
DIGEST = sha256(CARD).digest()


class ModelFilesLaws:
    """What any store of models' files does."""

    def test_a_file_comes_back_as_it_was_however_often_it_is_put(self, files: ModelFiles) -> None:
        for _ in range(2):
            files.put(trained())
        model = registered(trained(), 1, None)
        assert files.read(model, "card.md", DIGEST) == CARD
        assert [one.model for one in files.stored()] == ["m1"]

    def test_what_is_missing_or_otherwise_than_registered_is_lost(self, files: ModelFiles) -> None:
        model = registered(trained(), 1, None)
        with pytest.raises(ModelFileLost):
            files.read(model, "card.md", DIGEST)
        files.put(trained())
        with pytest.raises(ModelFileLost):
            files.read(model, "other.md", DIGEST)
        with pytest.raises(ModelFileLost):
            files.read(model, "sizes.png", DIGEST)

    def test_one_model_is_forgotten_and_the_others_stay(self, files: ModelFiles) -> None:
        assert files.stored() == []
        files.forget("m1")
        for name in ("m1", "m10"):
            files.put(trained(id=name))
        files.forget("m1")
        (left,) = files.stored()
        assert left.model == "m10"
        assert abs(left.at - datetime.now(UTC)) < timedelta(hours=1)  # noqa: TID251 - of real files


class TestMemoryModelFiles(ModelFilesLaws):
    @pytest.fixture
    def files(self) -> ModelFiles:
        return MemoryModelFiles()


class TestModelFilesInAFolder(ModelFilesLaws):
    @pytest.fixture
    def files(self, tmp_path: Path) -> ModelFiles:
        return LakeModelFiles(str(tmp_path / "lake"))


class TestModelFilesInABucket(ModelFilesLaws):
    @pytest.fixture
    def files(self) -> Iterator[ModelFiles]:
        with an_s3_server() as uri:
            yield LakeModelFiles(_of_its_own(uri))


class RunsLaws:
    """What any store of runs does."""

    def test_a_training_has_one_run_until_it_is_forgotten(self, runs: Runs) -> None:
        first = runs.record(trained())
        assert runs.record(trained()) == first
        assert runs.record(trained(id="m10", kind="churn")) != first
        runs.forget("m1")
        runs.forget("nobody")
        assert runs.record(trained(id="m10", kind="churn")) is not None

    def test_only_what_never_ended_is_unfinished(self, runs: Runs) -> None:
        assert runs.unfinished() == []
        runs.record(trained())
        self.begun(runs, trained(id="m2"))
        (left,) = runs.unfinished()
        assert left.model == "m2"
        assert abs(left.at - datetime.now(UTC)) < timedelta(hours=1)  # noqa: TID251 - of real runs
        runs.forget("m2")
        assert runs.unfinished() == []

    def begun(self, runs: Any, model: TrainedModel) -> None:
        """Leave what a crash leaves of a run."""
        raise NotImplementedError


class TestMemoryRuns(RunsLaws):
    @pytest.fixture
    def runs(self) -> Runs:
        return MemoryRuns()

    def begun(self, runs: Any, model: TrainedModel) -> None:
        runs.begin(model)


class TestMlflowRuns(RunsLaws):
    @pytest.fixture
    def runs(self, dsn: str, tmp_path: Path) -> Runs:
        return MlflowRuns(store_of(MlflowSettings(), dsn), str(tmp_path / "lake"), "ours")

    def begun(self, runs: Any, model: TrainedModel) -> None:
        runs._begun(runs._experiment(f"{model.brand}/{model.kind}"), model)

    def test_what_another_installation_keeps_in_the_same_store_is_left_alone(
        self, runs: MlflowRuns, dsn: str, tmp_path: Path
    ) -> None:
        store = store_of(MlflowSettings(), dsn)
        theirs = MlflowRuns(store, str(tmp_path / "lake"), "theirs")
        self.begun(theirs, trained(id="m2"))
        run = theirs.record(trained())
        assert runs.unfinished() == []
        assert runs.record(trained()) != run, "an id of theirs is no run of ours"
        runs.forget("m1")
        runs.forget("m2")
        assert [one.model for one in theirs.unfinished()] == ["m2"]
        assert theirs.record(trained()) == run

    def test_a_run_of_another_training_with_the_same_id_is_not_taken_for_this_one(
        self, runs: MlflowRuns
    ) -> None:
        first = runs.record(trained())
        later = trained(created_at=AT + timedelta(days=1))
        assert runs.record(later) not in (None, first)


def test_artefacts_of_runs_go_into_a_bucket_too_and_an_experiment_in_the_bin_is_taken_back(
    dsn: str,
) -> None:
    with an_s3_server() as shared:
        uri = _of_its_own(shared)
        runs = MlflowRuns(store_of(MlflowSettings(), dsn), uri, "ours")
        run = runs.record(trained())
        found = runs._client.get_run(str(run))
        assert found.info.artifact_uri.startswith(f"{uri.partition('?')[0]}/mlflow/demo/clusters/")
        names = Lake(uri).names("mlflow")
        assert {name.rpartition("/")[2] for name in names} == {
            "card.md", "document.json", "sizes.png",
        }  # fmt: skip
        runs._client.delete_experiment(found.info.experiment_id)
        assert runs.record(trained(id="m2")) is not None
        runs.forget("m2")
        assert len(Lake(uri).names("mlflow")) == 3


def _of_its_own(uri: str) -> str:
    """A folder that no other test has written to: the servers of one process share their bucket."""
    return uri.replace("/of/a/test", f"/{token_hex(4)}")
