"""Trainings as MLflow runs: on our PostgreSQL in a schema of its own, artefacts in the lake.

MLflow is imported when the first run is recorded: it takes seconds, and only trainings need it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from crm.adapters.lake import Lake
from crm.domain.error_lines import line_of
from crm.domain.errors import RunsAway
from crm.domain.model_changes import DOCUMENT, StoredModel
from crm.domain.models import TrainedModel

if TYPE_CHECKING:
    import psycopg
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

SCHEMA = "mlflow"
FOLDER = "mlflow"
_IN_SCHEMA = f"options=-csearch_path%3D{SCHEMA}"
_HAS_SCHEMA = "SELECT 1 FROM pg_namespace WHERE nspname = %s"
MODEL_TAG = "crm.model"
INSTALLATION_TAG = "crm.installation"
CREATED_TAG = "crm.created_at"
_DEFAULT_ROOT = "_MLFLOW_SERVER_ARTIFACT_ROOT"  # of experiments that others make in our store
_LOCK = 0x6D6C66  # "mlf": MLflow makes its tables once, whoever comes first
_AT_ONCE = 100  # what MLflow takes in one call
_DIGEST_CHARS = 36  # MLflow's column
_MAX_PARAM_CHARS = 6_000
_PAGE = 1_000


@dataclass(frozen=True)
class MlflowSettings:
    """`tracking_uri` None means a schema of our PostgreSQL; `page_port` is where it is shown."""

    tracking_uri: str | None = None
    page_port: int = 5000


def store_of(settings: MlflowSettings, dsn: str) -> str:
    """Return MLflow's tracking URI: as configured, else the schema `mlflow` at our DSN."""
    if settings.tracking_uri is not None:
        return settings.tracking_uri
    _, _, rest = dsn.partition("://")
    return f"postgresql+psycopg://{rest}{'&' if '?' in rest else '?'}{_IN_SCHEMA}"


def is_server(store: str) -> bool:
    """Whether runs go to a tracking server of somebody else's."""
    return store.startswith(("http://", "https://", "databricks"))


def artifact_root(lake_uri: str) -> str:
    """Return MLflow's part of the lake as MLflow names it: without pyarrow's own options."""
    scheme, host, path, *_ = urlsplit(lake_uri)
    path = f"{path.rstrip('/')}/{FOLDER}"
    return f"{scheme}://{host}{path}" if scheme not in ("", "file") else path


class MlflowRuns:
    """Runs in experiments named BRAND/KIND; every call may raise RunsAway.

    Other installations may keep theirs in the same store: what is not of `installation` is left
    alone, whatever its model is called.
    """

    def __init__(self, store: str, lake_uri: str, installation: str) -> None:
        self._store = store
        self._ours = f"tags.`{INSTALLATION_TAG}` = '{installation}'"
        self._installation = installation
        self._lake_uri = lake_uri
        self._root = artifact_root(lake_uri)

    def record(self, model: TrainedModel) -> str | None:
        """Record a training with its parameters, metrics and files, once; return its run's id.

        A run that a crash has left half done is finished.
        """
        with _named():
            experiment = self._experiment(f"{model.brand}/{model.kind}")
            run = self._found(experiment, model) or self._begun(experiment, model)
            if run.info.status != "FINISHED":
                self._fill(run, model)
                self._finish(run)
            return str(run.info.run_id)

    def unfinished(self) -> list[StoredModel]:
        """Return every model of which this installation has begun a run that never ended."""
        with _named():
            return [
                StoredModel(run.data.tags[MODEL_TAG], _moment(run.info.start_time))
                for run in self._all_runs(f"{self._ours} and attributes.status != 'FINISHED'")
                if MODEL_TAG in run.data.tags
            ]

    def forget(self, model: str) -> None:
        """Delete this installation's runs of a model, and what they hold in the lake."""
        with _named():
            for run in self._all_runs(f"{self._ours} and tags.`{MODEL_TAG}` = '{model}'"):
                if (folder := self._in_the_lake(run)) is not None:
                    for name in self._lake.names(folder):
                        self._lake.delete(name)
                self._client.delete_run(run.info.run_id)

    # --------------------------------------------------------------------------------------------

    @cached_property
    def _lake(self) -> Lake:
        return Lake(self._lake_uri)

    @cached_property
    def _client(self) -> MlflowClient:
        # a tracking server of others is none of our business; our own store is quiet about itself
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # noqa: TID251 - read while it is imported
        os.environ.setdefault(_DEFAULT_ROOT, f"{self._root}/default")  # noqa: TID251 - else ./mlruns
        with _tables(self._store):
            from mlflow.tracking import MlflowClient  # noqa: PLC0415 - takes seconds

            logging.getLogger("alembic").setLevel(logging.WARNING)
            logging.getLogger("mlflow").setLevel(logging.WARNING)
            client = MlflowClient(tracking_uri=self._store, registry_uri=self._store)
            client.search_experiments(max_results=1)  # makes the tables
        return client

    def _experiment(self, name: str) -> str:
        """Return the experiment's id; it is made, or taken back from the bin, where need be."""
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                where = f"{self._root}/{name}"
                return str(self._client.create_experiment(name, artifact_location=where))
            except Exception:
                found = self._client.get_experiment_by_name(name)  # another was quicker
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _found(self, experiment: str, model: TrainedModel) -> Run | None:
        """Return the run of this very training; an id alone may have been another one's."""
        chosen = " and ".join(f"tags.`{name}` = '{one}'" for name, one in self._of(model).items())
        runs = self._client.search_runs([experiment], chosen)
        return runs[0] if runs else None

    def _of(self, model: TrainedModel) -> dict[str, str]:
        return {
            MODEL_TAG: model.id,
            INSTALLATION_TAG: self._installation,
            CREATED_TAG: model.created_at.isoformat(),
        }

    def _begun(self, experiment: str, model: TrainedModel) -> Run:
        name = f"{model.algorithm} {model.id[:8]}"
        return self._client.create_run(experiment, tags=self._of(model), run_name=name)

    def _fill(self, run: Run, model: TrainedModel) -> None:
        """Write all that is known of a training; writing it again changes nothing."""
        from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415 - see _client

        at, which = int(model.created_at.timestamp() * 1000), run.info.run_id
        params = {
            "algorithm": model.algorithm,
            "seed": str(model.seed),
            "features": ", ".join(model.features),
            **model.params,
        }
        for some in _parts(params):
            short = [Param(name, value[:_MAX_PARAM_CHARS]) for name, value in some.items()]
            self._client.log_batch(which, params=short)
        for some in _parts(model.metrics):
            values = [Metric(name, value, at, 0) for name, value in some.items()]
            self._client.log_batch(which, metrics=values)
        self._client.log_batch(which, tags=[RunTag(*tag) for tag in _tags(model).items()])
        self._note_data(which, model)
        self._put_files(run, {**model.files, DOCUMENT: model.document})

    def _finish(self, run: Run) -> None:
        self._client.set_terminated(run.info.run_id, "FINISHED")

    def _note_data(self, run: str, model: TrainedModel) -> None:
        from mlflow.entities import Dataset, DatasetInput  # noqa: PLC0415 - see _client

        data = Dataset(
            name=f"{model.brand} as of {model.data.as_of:%Y-%m-%dT%H:%MZ}",
            digest=model.data.digest[:_DIGEST_CHARS] or "unknown",
            source_type="crm",
            source=f'{{"brand": "{model.brand}", "feature_list": "{model.feature_list}"}}',
            profile=f'{{"players": {model.data.players}, "rows": {model.data.rows}}}',
        )
        self._client.log_inputs(run, datasets=[DatasetInput(data, tags=[])])

    def _put_files(self, run: Run, files: Mapping[str, bytes]) -> None:
        """Write the artefacts through our own lake, which needs no library of a bucket's maker."""
        folder = self._in_the_lake(run)
        for name, data in files.items():
            if folder is not None:
                self._lake.write(f"{folder}/{name}", data)
            else:
                self._upload(run.info.run_id, name, data)

    def _upload(self, run: str, name: str, data: bytes) -> None:
        """Have MLflow store a file: its experiment keeps them elsewhere than in our lake."""
        from pathlib import Path  # noqa: PLC0415 - as rare as this is
        from tempfile import TemporaryDirectory  # noqa: PLC0415 - as rare as this is

        with TemporaryDirectory() as folder:
            file = Path(folder) / name
            file.write_bytes(data)
            self._client.log_artifact(run, str(file))

    def _in_the_lake(self, run: Run) -> str | None:
        """Return the folder of our lake that a run's artefacts are in, None if it is not ours."""
        where = str(run.info.artifact_uri).removeprefix("file://")
        if not where.startswith(f"{self._root}/"):
            return None
        return FOLDER + where.removeprefix(self._root)

    def _all_runs(self, chosen: str) -> Iterator[Run]:
        """Yield runs of all experiments, those in the bin left out."""
        experiments = [one.experiment_id for one in self._client.search_experiments()]
        token: str | None = None
        while experiments:
            page = self._client.search_runs(
                experiments, chosen, max_results=_PAGE, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return


@contextmanager
def _named() -> Iterator[None]:
    """Say what it means when MLflow does not do what it is asked; its own texts may be long."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - see MlflowRuns._client
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - see MlflowRuns._client

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        line = line_of(error)[:200]  # its cause is not passed on: it may name a password
        raise RunsAway(f"MLflow does not take the run ({type(error).__name__}: {line})") from None


@contextmanager
def _tables(store: str) -> Iterator[None]:
    """Hold a lock while MLflow may make its tables in our PostgreSQL, in a schema that is there."""
    if not store.startswith("postgresql") or not store.endswith(_IN_SCHEMA):
        yield  # somebody else's: it is as they have made it
        return
    import psycopg  # noqa: PLC0415 - MLflow's driver, for its own process

    dsn = store.replace("postgresql+psycopg://", "postgresql://", 1)
    try:
        connection = psycopg.connect(dsn, autocommit=True, connect_timeout=5)
    except psycopg.Error as error:
        raise RunsAway(f"MLflow's PostgreSQL does not answer ({type(error).__name__})") from error
    with connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
        _make_schema(connection)
        yield


def _make_schema(connection: psycopg.Connection) -> None:
    """Make MLflow's schema; one that is there needs no right to make one."""
    if connection.execute(_HAS_SCHEMA, [SCHEMA]).fetchone():
        return
    import psycopg  # noqa: PLC0415 - see _tables

    try:
        connection.execute(f"CREATE SCHEMA {SCHEMA}")
    except psycopg.errors.InsufficientPrivilege as error:
        raise RunsAway(
            f"MLflow's tables need a schema: CREATE SCHEMA {SCHEMA} AUTHORIZATION our role, or"
            " give it CREATE on the database"
        ) from error


def _tags(model: TrainedModel) -> dict[str, str]:
    tags = {
        "crm.brand": model.brand,
        "crm.kind": model.kind,
        "crm.feature_list": model.feature_list,
        "crm.code_version": model.code_version,
        "crm.data_digest": model.data.digest,
        "crm.data_as_of": model.data.as_of.isoformat(),
        "crm.beats_baseline": str(model.beats_baseline),
    }
    if "card.md" in model.files:  # MLflow shows it as the run's description
        tags["mlflow.note.content"] = model.files["card.md"].decode(errors="replace")[:5_000]
    return {name: value for name, value in tags.items() if value}


def _parts(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    items = sorted(values.items())
    for first in range(0, len(items), _AT_ONCE):
        yield dict(items[first : first + _AT_ONCE])


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
