"""The search in Ray Tune: its workers run the trials, and what each found outlives all of them.

A trial's outcome lies in the lake under the digest of its plan. A search that was cut off runs anew
from its first trial, with the same seed and so with the same plans: what is there is read, not run.
"""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from crm.adapters.lake import Lake
from crm.domain.errors import CrmError
from pipelines.cluster_search import Candidate, Sample, Tell, try_plan
from pipelines.cluster_space import Plan, Proposals, Space

if TYPE_CHECKING:
    from ray import tune

BATCH = {"crm-batch": 0.5}  # what a trial asks of a node; see ray-cluster.yaml
TRIAL = {"cpu": 0.5, **BATCH}
RETRIES = 3  # of a trial whose worker died


class SearchLost(CrmError):
    """Every trial lost its worker again and again; what a search keeps is still there."""

    code = "search_lost"


@dataclass(frozen=True)
class Memory:
    """Where the outcomes of a search's trials lie."""

    lake_uri: str
    folder: str

    def recall(self, plan: Plan) -> Candidate | None:
        """Return what a trial has found before."""
        try:
            return msgspec.json.decode(Lake(self.lake_uri).read(self._name(plan)), type=Candidate)
        except FileNotFoundError:
            return None

    def keep(self, found: Candidate) -> None:
        """Store what a trial has found: whole, or not at all."""
        Lake(self.lake_uri).write(self._name(found.plan), msgspec.json.encode(found))

    def _name(self, plan: Plan) -> str:
        return f"{self.folder}/trial-{plan.digest}.json"


@dataclass(frozen=True)
class Effort:
    """How much may be tried: trials, how many at once, and how long new ones are begun."""

    trials: int
    at_once: int
    budget_s: float | None = None


def search(
    sample: Sample, space: Space, effort: Effort, memory: Memory, folder: Path, tell: Tell
) -> list[Candidate]:
    """Run the trials on Ray's workers; return what was found, in the order of their numbers.

    `folder` is for Tune's own state, and goes at the end. Raises SearchLost if all were lost.
    """
    from ray import tune

    logging.getLogger("ray.tune").setLevel(logging.ERROR)  # it misses files that nobody needs
    ends = monotonic() + (effort.budget_s or np.inf)
    proposals = Proposals(space, effort.trials, effort.at_once, lambda: monotonic() >= ends)
    run = tune.with_parameters(_trial, sample=sample, memory=memory)
    tuner = tune.Tuner(
        tune.with_resources(run, TRIAL),
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            search_alg=_searcher(proposals),
            num_samples=proposals.total,
            max_concurrent_trials=min(effort.at_once, _cores()),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="clusters",
            storage_path=str(folder),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            callbacks=[_teller(tell)],
        ),
    )
    try:
        results = tuner.fit()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _candidates(results, memory)


def _trial(config: dict[str, Any], sample: Sample, memory: Memory) -> None:
    """Try one plan, unless its outcome is there already."""
    from ray import tune

    plan = msgspec.convert(config["plan"], Plan)
    found = memory.recall(plan)
    if found is None:
        found = try_plan(sample, plan)
        memory.keep(found)
    tune.report({"score": found.score, "number": config["number"], "plan": plan.digest,
                 "found": msgspec.json.encode(found).decode()})  # fmt: skip


def _searcher(proposals: Proposals) -> Any:
    """Return the proposals as what Tune asks for the next trial."""
    from ray.tune.search import Searcher

    class InOrder(Searcher):
        """Numbers of trials by Tune's ids."""

        def __init__(self) -> None:
            super().__init__(metric="score", mode="max")
            self._numbers: dict[str, int] = {}

        def suggest(self, trial_id: str) -> Any:
            if proposals.over:
                return Searcher.FINISHED
            proposed = proposals.next()
            if proposed is None:
                return None
            self._numbers[trial_id], plan = proposed
            return {"number": proposed[0], "plan": msgspec.to_builtins(plan)}

        def on_trial_complete(
            self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
        ) -> None:
            score = None if error or not result else result.get("score")
            proposals.done(self._numbers[trial_id], score)

        def save(self, checkpoint_path: str) -> None:
            """Leave nothing: a search goes on by its outcomes, not by Tune's state."""
            Path(checkpoint_path).touch()

        def restore(self, checkpoint_path: str) -> None:
            raise NotImplementedError(checkpoint_path)

    return InOrder()


def _teller(tell: Tell) -> Any:
    """Return what hears of each trial that ends."""
    from ray.tune import Callback

    class Teller(Callback):
        """Reads the outcome as it was reported; Tune pickles it, without whom it tells."""

        def __init__(self, tell: Tell | None) -> None:
            self._tell = tell

        def __getstate__(self) -> dict[str, Any]:
            return {"_tell": None}

        def on_trial_complete(
            self,
            iteration: int,  # noqa: ARG002 - Tune's signature
            trials: list[Any],  # noqa: ARG002 - Tune's signature
            trial: Any,
            **info: Any,  # noqa: ARG002 - Tune's signature
        ) -> None:
            text = (trial.last_result or {}).get("found")
            if text is not None and self._tell is not None:
                self._tell(msgspec.json.decode(text, type=Candidate))

    return Teller(tell)


def _candidates(results: tune.ResultGrid, memory: Memory) -> list[Candidate]:
    reported = [results[index].metrics or {} for index in range(len(results))]
    ended = sorted((one for one in reported if "found" in one), key=lambda one: one["number"])
    if not ended:
        reason = type(results.errors[0]).__name__ if results.errors else "nothing was reported"
        run = memory.folder.rpartition("/")[2]
        raise SearchLost(f"the search lost all its trials: {reason}; --run {run} goes on with it")
    return [msgspec.json.decode(one["found"], type=Candidate) for one in ended]


def _cores() -> int:
    """Return about how many trials keep every core busy: Ray's CPUs are logical, see configs."""
    import ray

    nodes = sum(n["Alive"] for n in ray.nodes())  # type: ignore[no-untyped-call]  # Ray has no types
    return max(nodes * (os.cpu_count() or 1), 1)
