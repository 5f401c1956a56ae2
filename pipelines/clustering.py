"""Train player clusters: live features, a search, a description, a model in the registry."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from uuid import uuid4

import polars as pl

from configs.brands import load_brands
from configs.settings import Settings
from crm.adapters.postgres.live import open_jobs
from crm.adapters.postgres.models import open_models
from crm.domain.clustering import CannotCluster, PlayerClusters
from crm.domain.errors import ClustersNotFound, ModelUnusable
from crm.domain.model_changes import PromotionRule, check_id
from crm.domain.models import RegisteredModel, TrainedModel
from crm.domain.ports import Columns
from crm.services.clustering import ServingClusters
from pipelines.cluster_engine import OnRay
from pipelines.cluster_inputs import Request, check_request, needed_features
from pipelines.cluster_model import train
from pipelines.cluster_report import Origin, Trained
from pipelines.cluster_runs import Begun, Runs, check_new, must_be_same
from pipelines.cluster_search import Candidate
from pipelines.job_progress import Progress, job_progress
from pipelines.model_registry import register
from pipelines.progress import progress

_STEPS = ("reading live features", "searching for groups", "storing the model")


@dataclass(frozen=True)
class Done:
    """A training that has ended: whom it put where, all of it, and its place in the registry."""

    trained: Trained
    handed_over: TrainedModel
    registered: RegisteredModel


def run(
    settings: Settings,
    request: Request,
    now: Callable[[], datetime],
    *,
    rule: PromotionRule = "first",
    run_id: str | None = None,
) -> Done:
    """Train on live features and register the model; Ray must be connected. Raises CrmError.

    A run whose id has begun before, and has not ended, goes on with the players of that time. The
    id of the run is that of the model: one that cannot be registered is refused before any work.
    """
    check_request(request)
    run_id = run_id or uuid4().hex
    check_id(run_id)
    runs = Runs(str(settings.lake.uri))
    begun = runs.begun(run_id)
    check_new(begun, asyncio.run(_registered(str(settings.postgres.dsn), run_id)))
    runs.forget_old(now(), but=run_id)
    how = "is new" if begun is None else f"goes on, begun {begun.at:%Y-%m-%d %H:%M} UTC"
    told = partial(open_jobs, str(settings.postgres.dsn))
    total = request.most_trials + 2
    brand = request.brand.id
    with job_progress(told, "training", "player clusters", total, "steps", brand) as job:
        job.say(_STEPS[0])
        begun, columns = _begun(settings, request, runs, run_id, begun, now)
        job.advance()
        job.say(f"{_STEPS[1]}: run {run_id} {how}")
        sys.stderr.write(f"run {run_id} {how}\n")
        try:
            done = _trained(settings, request, runs, run_id, (begun, columns), job, rule)
        except CannotCluster:
            runs.forget(run_id)  # it would end so again
            raise
    runs.forget(run_id)
    return done


def _trained(
    settings: Settings,
    request: Request,
    runs: Runs,
    run_id: str,
    input_: tuple[Begun, Columns],
    job: Progress,
    rule: PromotionRule,
) -> Done:
    begun, columns = input_
    engine = OnRay(runs.memory(run_id), settings.var_dir / "tune" / uuid4().hex)
    with progress(request.most_trials, f"searching (run {run_id})", "trials") as advance:

        def tell(_candidate: Candidate) -> None:
            job.advance()
            advance(1)

        made = train(columns, request, Origin(run_id, begun.at, begun.before), engine, tell)
    job.say(_STEPS[2])
    registered = register(settings, made.handed_over, rule)
    job.advance()
    return Done(made.trained, made.handed_over, registered)


def _begun(
    settings: Settings,
    request: Request,
    runs: Runs,
    run_id: str,
    begun: Begun | None,
    now: Callable[[], datetime],
) -> tuple[Begun, Columns]:
    """Return what a run works on: as it was stored, or as it is now, and stored."""
    if begun is not None:
        must_be_same(run_id, begun, request)
        return begun, runs.columns(run_id, begun)
    before = asyncio.run(_serving(str(settings.postgres.dsn), request.brand.id))
    columns = asyncio.run(_live_columns(settings, request, before))
    begun = Begun(request.brand.id, request.as_params(), now(), columns.as_of, before)
    runs.begin(run_id, begun, columns)
    return begun, columns


async def _live_columns(
    settings: Settings, request: Request, before: PlayerClusters | None
) -> Columns:
    from actors.gateway import connect  # imports Ray: the command line must be quick

    gateway = connect(settings, load_brands(settings.brands_dir))
    return await gateway.columns(request.brand.id, needed_features(request, before))


async def _registered(dsn: str, model: str) -> RegisteredModel | None:
    async with open_models(dsn) as models:
        return await models.get(model) if await models.known([model]) else None


async def _serving(dsn: str, brand: str) -> PlayerClusters | None:
    async with open_models(dsn) as models:
        try:
            return await ServingClusters(models).of(brand)
        except (ClustersNotFound, ModelUnusable):
            return None


def export(trained: Trained, path: Path) -> None:
    """Write player and cluster as CSV or Parquet, by the name's ending; ids stay text."""
    frame = pl.DataFrame(
        {"player_id": trained.player_ids, "cluster": trained.labels},
        schema={"player_id": pl.String, "cluster": pl.Int64},
    )
    part = path.with_name(f".{path.name}.part")
    try:
        if path.suffix == ".csv":
            frame.write_csv(part, quote_style="non_numeric")
        else:
            frame.write_parquet(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def check_export(path: Path) -> None:
    """Raise CannotCluster, before any work, for a file that could not be written afterwards."""
    if path.suffix not in {".csv", ".parquet"}:
        raise CannotCluster(f"{path}: an export ends in .csv or .parquet")
    if not path.absolute().parent.is_dir():
        raise CannotCluster(f"{path}: there is no such folder")


def write_files(model: TrainedModel, folder: Path) -> None:
    """Write card, pictures and tables into a folder, which is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in model.files.items():
        part = folder / f".{name}.part"
        part.write_bytes(content)
        part.replace(folder / name)
