"""Train player clusters: live features, a search, a description, a row in PostgreSQL.

Also `python -m pipelines.clustering --brand B`, for `ray job submit`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import get_args
from uuid import uuid4

import polars as pl

from configs.brands import load_brands
from configs.settings import Settings, load_settings
from crm.adapters import clock
from crm.adapters.postgres.clustering import open_cluster_store
from crm.adapters.postgres.live import open_jobs
from crm.domain.brands import choose as choose_brand
from crm.domain.clustering import SCALINGS, CannotCluster, PlayerClusters
from crm.domain.errors import CrmError
from crm.domain.ports import Columns
from pipelines.cluster_inputs import Request, fit_rows, needed_features, prepare
from pipelines.cluster_report import Trained, describe
from pipelines.cluster_search import Algorithm, attempts_for, choose, search
from pipelines.job_progress import job_progress

_STEPS = ("reading live features", "searching for groups", "storing the model")
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)


def train(columns: Columns, request: Request, now: datetime, folder: Path) -> Trained:
    """Cluster the players of `columns`; Ray must be connected. Raises CannotCluster."""
    features, values, scaler = prepare(columns, request)
    scaled = scaler.transform(values)
    rows = fit_rows(len(scaled), request.seed)
    attempts = attempts_for(
        request.k, request.algorithm, request.seed, hurried=request.budget_s is not None
    )
    candidates = search(scaled[rows], attempts, request.budget_s, folder)
    least = 0.0 if request.k is not None else request.min_share
    found = choose(scaled[rows], candidates, least, request.seed)
    return describe(columns, request, features, scaler, found.centroids, now)


def run(settings: Settings, request: Request, now: Callable[[], datetime]) -> Trained:
    """Train on live features and store the model; Ray must be connected. Raises CrmError."""
    dsn, brand = str(settings.postgres.dsn), request.brand.id
    told = partial(open_jobs, dsn)
    with job_progress(told, "training", "player clusters", len(_STEPS), "steps", brand) as job:
        job.say(_STEPS[0])
        columns = asyncio.run(_live_columns(settings, request))
        job.advance()
        job.say(_STEPS[1])
        trained = train(columns, request, now(), settings.var_dir / "tune" / uuid4().hex)
        job.advance()
        job.say(_STEPS[2])
        asyncio.run(_store(dsn, trained.model))
        job.advance()
    return trained


async def _live_columns(settings: Settings, request: Request) -> Columns:
    from actors.gateway import connect  # imports Ray: the command line must be quick

    gateway = connect(settings, load_brands(settings.brands_dir))
    return await gateway.columns(request.brand.id, needed_features(request))


async def _store(dsn: str, model: PlayerClusters) -> None:
    async with open_cluster_store(dsn) as store:
        await store.add(model)


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


def main(arguments: list[str]) -> int:
    """Run as a Ray job with the usual options; the human output is that of `crm train clusters`."""
    import ray  # 800 ms

    parser = argparse.ArgumentParser(prog="python -m pipelines.clustering")
    parser.add_argument("--brand")
    parser.add_argument("--algorithm", choices=ALGORITHMS, default="kmeans")
    parser.add_argument("--k", type=int)
    parser.add_argument("--scaling", choices=SCALINGS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget-s", type=float)
    asked = vars(parser.parse_args(arguments))
    settings = load_settings()
    try:
        brand = choose_brand(load_brands(settings.brands_dir), asked["brand"])
        request = Request(**{**asked, "brand": brand})
        ray.init("auto", namespace="crm", log_to_driver=False)
        trained = run(settings, request, clock.now)
    except (CrmError, ConnectionError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 1
    sys.stdout.write(f"clusters of {request.brand.id}: {trained.model.metrics}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
