"""Train a score, churn or value: features at past moments, fits and tests, a registered model.

Also `python -m pipelines.scores churn|value`, for `ray job submit`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.brands import load_brands
from configs.settings import Settings, load_settings
from crm.adapters import clock
from crm.adapters.postgres.live import open_jobs
from crm.domain.brands import choose
from crm.domain.errors import CrmError
from crm.domain.model_changes import PROMOTION_RULES, PromotionRule
from crm.domain.models import RegisteredModel
from crm.domain.scores import CannotScore
from crm.services.player_features import rfc3339
from pipelines.features import all_in_the_lake
from pipelines.job_progress import job_progress
from pipelines.model_registry import register
from pipelines.score_plan import Kind
from pipelines.score_training import Request, TrainedScore

if TYPE_CHECKING:
    from pipelines.score_tasks import Made

HORIZONS: Mapping[Kind, int] = {"churn": 30, "value": 90}
_STEPS = ("bringing the lake up to date", "looking at the history", "features at past moments",
          "fitting and testing", "registering the model")  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What a run has made, and how it stands in the registry."""

    made: Made
    registered: RegisteredModel

    @property
    def trained(self) -> TrainedScore:
        """Return what was found out."""
        return self.made.trained


def run(
    settings: Settings,
    request: Request,
    now: Callable[[], datetime],
    rule: PromotionRule = "first",
) -> Run:
    """Train from the lake, and register by `rule`; Ray must be connected.

    Raises CrmError; CannotScore if no model can be made.
    """
    from pipelines.score_tasks import parts_of, train_on_ray  # imports Ray

    request.check()
    told = partial(open_jobs, str(settings.postgres.dsn))
    with job_progress(
        told, "training", request.kind, len(_STEPS), "steps", request.brand.id
    ) as job:

        def step(number: int) -> None:
            if number:
                job.advance()
            job.say(_STEPS[number])
            sys.stderr.write(f"{_STEPS[number]} ({number + 1} of {len(_STEPS)})\n")

        step(0)
        parts = parts_of(str(settings.lake.uri), asyncio.run(all_in_the_lake(settings)))
        made = train_on_ray(parts, request, now(), lambda number: step(number + 1))
        step(len(_STEPS) - 1)
        registered = register(settings, made.model, rule)
        job.advance()
    return Run(made, registered)


def report(done: Run) -> dict[str, Any]:
    """Return the report of a command."""
    trained, model = done.trained, done.trained.model
    registered = done.registered
    return {
        "id": model.id,
        "brand": model.brand,
        "kind": model.kind,
        "algorithm": model.algorithm,
        "horizon_days": model.horizon_days,
        "target": model.target,
        "features": model.features,
        "state": registered.state,
        "number": registered.number,
        "beats_baseline": trained.beats_baseline,
        "players": trained.data.players,
        "rows": trained.data.rows,
        "digest": trained.data.digest,
        "metrics": done.made.model.metrics,
        "tests": [
            {"test": rfc3339(one.as_of), "players": one.group, "count": one.players,
             "model": one.model, **one.metrics}
            for one in trained.tested
        ],
        "ranks": [
            {"rank": rank.name, "least": rank.least, "players": size, "realised": rank.realised}
            for rank, size in zip(model.ranks, trained.rank_sizes, strict=True)
        ],
        "bgnbd": trained.bgnbd and trained.bgnbd.as_json(),
    }  # fmt: skip


def check_out(folder: Path) -> None:
    """Raise CannotScore, before any work, for a folder that could not be written afterwards."""
    if folder.exists():
        raise CannotScore(f"{folder} is there already: name a new folder")
    if not folder.absolute().parent.is_dir():
        raise CannotScore(f"{folder}: there is no folder to put it in")


def write(done: Run, folder: Path) -> None:
    """Write the model's document, card, tables and plots into a new folder."""
    model = done.made.model
    part = folder.with_name(f".{folder.name}.part")
    part.mkdir()
    for name, data in {"document.json": model.document, **model.files}.items():
        (part / name).write_bytes(data)
    part.rename(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a Ray job; the report is the last line of stdout."""
    import ray  # 800 ms

    parser = argparse.ArgumentParser(prog="python -m pipelines.scores")
    parser.add_argument("kind", choices=["churn", "value"])
    parser.add_argument("--brand")
    parser.add_argument("--horizon-days", type=int)
    parser.add_argument("--target", choices=["money", "count"], default="money")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--promote", choices=PROMOTION_RULES, default="first")
    asked = parser.parse_args(arguments)
    settings = load_settings()
    try:
        brand = choose(load_brands(settings.brands_dir), asked.brand)
        days = asked.horizon_days or HORIZONS[asked.kind]
        request = Request(brand, asked.kind, days, asked.target, seed=asked.seed)
        ray.init("auto", namespace="crm", log_to_driver=False)
        done = run(settings, request, clock.now, asked.promote)
    except (CrmError, ConnectionError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 1
    sys.stdout.write(json.dumps(report(done)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
