"""A score's training on Ray's workers: a few shards a task for what is read, one task that fits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import Any, TypeVar
from uuid import uuid4

import ray

from crm.adapters.lake import Lake
from crm.adapters.lake_events import scan
from crm.adapters.scorers import open_scorer
from crm.domain.errors import CrmError
from crm.domain.lake_files import LakeFile
from crm.domain.models import ScoreModel, TrainedModel
from pipelines.cluster_tune import BATCH
from pipelines.score_inputs import Rows, history_of, joined, rows_at
from pipelines.score_metrics import of_churn, of_value
from pipelines.score_plan import Cut, History, Plan, plan_for, span_of
from pipelines.score_report import handed_over
from pipelines.score_training import MEASURE, Request, TrainedScore, train_score

EVENTS_A_TASK = 2_000_000  # smaller data is one task: each costs a worker's start
MOST_PLAYERS = 40_000  # at a cut-off: more make no better model, but need their memory
Result = TypeVar("Result")
CPUS = 0.5  # of a task: one thread, beside what serves


@dataclass(frozen=True)
class Part:
    """The files of some shards, by shard: all events of their players."""

    lake_uri: str
    shards: Sequence[Sequence[LakeFile]]

    @property
    def files(self) -> list[LakeFile]:
        """Return all files."""
        return [file for files in self.shards for file in files]

    def share(self, share: float) -> Part:
        """Return a share of the shards: their players are a fair sample of all."""
        return replace(self, shards=self.shards[: math.ceil(share * len(self.shards))])


@dataclass(frozen=True)
class Made:
    """A training with the rows of its newest test, where Ray keeps them."""

    request: Request
    trained: TrainedScore
    model: TrainedModel
    newest_test: ray.ObjectRef[Rows]

    @property
    def error(self) -> float:
        """Return the model's error on its newest test: churn's log loss, value's absolute error."""
        return self.model.metrics[MEASURE[self.trained.model.kind]]

    def error_of(self, other: ScoreModel) -> float:
        """Return the error of a model that foresees the same, on the same rows.

        Raises ModelUnreadable.
        """
        task = _start(_error_of, self.request, other, self.trained, self.newest_test)
        return float(_all([task])[0])


def parts_of(lake_uri: str, files: Sequence[LakeFile]) -> list[Part]:
    """Return the lake's files in parts of about EVENTS_A_TASK events, each shard's in one."""
    by_shard: dict[int, list[LakeFile]] = {}
    for file in files:
        by_shard.setdefault(file.shard, []).append(file)
    parts: list[list[list[LakeFile]]] = [[]]
    events = 0
    for _, of_shard in sorted(by_shard.items()):
        if events >= EVENTS_A_TASK:
            parts.append([])
            events = 0
        parts[-1].append(of_shard)
        events += sum(file.events for file in of_shard)
    return [Part(lake_uri, shards) for shards in parts]


def train_on_ray(
    parts: Sequence[Part], request: Request, now: datetime, step: Callable[[int], None]
) -> Made:
    """Train on the Ray cluster that this process is connected to; `step` is told of each of three.

    Raises CannotScore.
    """
    step(0)
    until = min(request.until or now, now)
    history = span_of(_all([_start(_history_of, part, request, until) for part in parts]))
    plan = plan_for(request.brand.id, request.kind, request.horizon_days, history, request.tests)
    step(1)
    cuts = plan.cuts
    used = [part.share(MOST_PLAYERS / max(history.players, MOST_PLAYERS)) for part in parts]
    found = [[_start(_rows_of, part, request, cut) for part in used] for cut in cuts]
    rows = [of_cut[0] if len(used) == 1 else _start(_joined, *of_cut) for of_cut in found]
    ray.wait(rows, num_returns=len(rows), fetch_local=False)
    step(2)
    task = _start(_trained, request, plan, history, now, uuid4().hex, *rows)
    trained, model = _all([task])[0]
    return Made(request, trained, model, rows[cuts.index(plan.trials[0].test)])


def _start(function: Callable[..., Result], *arguments: object) -> ray.ObjectRef[Result]:
    """Have a worker of the batch group call a function; references are resolved there."""
    started: ray.ObjectRef[Result] = _remote(function).remote(*arguments)
    return started


@cache
def _remote(function: Callable[..., Any]) -> Any:
    return ray.remote(num_cpus=CPUS, resources=BATCH)(function)


def _all(references: Sequence[Any]) -> list[Any]:
    """Return what tasks return; a refusal that was made in one of them is raised as it is."""
    try:
        found: list[Any] = ray.get(list(references))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, CrmError):
            raise error.cause from None
        raise
    return found


def _history_of(part: Part, request: Request, until: datetime) -> History:
    return history_of(scan(Lake(part.lake_uri), part.files), request.brand, until)


def _rows_of(part: Part, request: Request, cut: Cut) -> Rows:
    return rows_at(scan(Lake(part.lake_uri), part.files), request.brand, cut)


def _joined(*parts: Rows) -> Rows:
    return joined(parts)


def _trained(  # all that a training is made of
    request: Request, plan: Plan, history: History, now: datetime, identity: str, *rows: Rows
) -> tuple[TrainedScore, TrainedModel]:
    by_cut = {one.cut: one for one in rows}
    trained = train_score(request, plan, history, by_cut, now, identity)
    return trained, handed_over(request, trained)


def _error_of(request: Request, other: ScoreModel, trained: TrainedScore, rows: Rows) -> float:
    said = open_scorer(other).scores(rows.values(other.features, request.brand))
    measure = of_churn if other.kind == "churn" else of_value
    return measure(said, trained.newest.truth)[MEASURE[other.kind]]
