"""The job of one retrain: train, register, judge, promote by rule, and tell what became of it.

`python -m pipelines.retraining --id ID` is what the retrain keeper submits to Ray; of two with one
id the second finds that it has nothing to do. Whatever fails, the serving model goes on serving.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from configs.brands import load_brands
from configs.settings import Settings, load_settings
from crm.adapters import clock
from crm.adapters.postgres.live import open_jobs
from crm.adapters.postgres.models import open_models
from crm.adapters.postgres.retrains import PostgresRetrains, open_retrains
from crm.domain.brands import Brand, choose
from crm.domain.errors import CrmError, ServingChanged
from crm.domain.models import ModelKind
from crm.domain.promotion import Verdict, verdict
from crm.domain.retrains import Outcome, Retrain, RetrainOptions
from pipelines.job_progress import Progress, job_progress
from pipelines.retrain_kinds import Made, train_clusters, train_score
from pipelines.retrain_requests import Serving

_STEPS = ("training and registering", "comparing with the serving model", "deciding who serves")
BY = "retrain"
Train = Callable[[Settings, Brand, RetrainOptions, Serving | None], Made]
TRAININGS: Mapping[ModelKind, Train] = {
    "clusters": train_clusters,
    "churn": partial(train_score, "churn"),
    "value": partial(train_score, "value"),
}
Result = TypeVar("Result")


class RetrainLost(CrmError):
    """Somebody else has ended this retrain: it was taken for dead, or stopped."""

    code = "retrain_lost"


def run(
    settings: Settings, retrain_id: str, trainings: Mapping[ModelKind, Train] = TRAININGS
) -> Retrain | None:
    """Do a retrain that waits; None if it does not (any more). Ray must be connected.

    What goes wrong is noted as the retrain's reason, and raised.
    """
    dsn = str(settings.postgres.dsn)
    retrain = _stored(dsn, lambda store: store.begin(retrain_id, clock.now()))
    if retrain is None:
        return None
    told = partial(open_jobs, dsn)
    steps = (len(_STEPS), "steps")
    try:
        with job_progress(told, "retrain", retrain.kind, *steps, retrain.brand, retrain.id) as job:
            _retrain(settings, retrain, trainings[retrain.kind], job)
    except BaseException as error:
        reason = _said(error)
        _stored(dsn, lambda store: store.fail(retrain_id, reason, clock.now()))
        raise
    return _stored(dsn, lambda store: store.get(retrain_id))


def _retrain(settings: Settings, retrain: Retrain, train: Train, job: Progress) -> None:
    dsn = str(settings.postgres.dsn)
    job.say(_STEPS[0])
    brand = choose(load_brands(settings.brands_dir), retrain.brand)
    before = asyncio.run(_serving(dsn, retrain))
    made = train(settings, brand, retrain.options, before)
    job.advance()
    job.say(_STEPS[1])
    found, seen = _judge(settings, retrain, made)
    job.advance()
    job.say(_STEPS[2])
    # whoever was taken for dead changes nothing that serves
    if _stored(dsn, lambda store: store.get(retrain.id)).state != "running":
        raise RetrainLost("it was taken for dead and marked so")
    if found.promote:
        try:
            asyncio.run(_promote(dsn, made.model.id, found.note, seen))
        except ServingChanged:  # by a person, since it was compared
            found = Verdict(False, "not promoted: another model was promoted meanwhile")
    outcome = Outcome(made.model.id, found.promote, found.note)
    if not _stored(dsn, lambda store: store.finish(retrain.id, outcome, clock.now())):
        raise RetrainLost("it was taken for dead and marked so")
    job.say(found.note)
    job.advance()


def _judge(settings: Settings, retrain: Retrain, made: Made) -> tuple[Verdict, str]:
    """Return whether the new model takes the place of the one that serves, and which that is."""
    # asked anew: another model may have been promoted meanwhile
    serving = asyncio.run(_serving(str(settings.postgres.dsn), retrain))
    seen = "" if serving is None else serving.model.id
    if retrain.options.promote == "never":
        return Verdict(False, "not promoted: this was asked for"), seen
    if retrain.kind not in settings.retrains.promoted:
        return Verdict(False, "not promoted: this kind is not promoted by rule"), seen
    comparison = None if serving is None else made.compare(serving.document)
    better = made.model.beats_baseline
    return verdict(retrain.kind, beats_baseline=better, comparison=comparison), seen


async def _serving(dsn: str, retrain: Retrain) -> Serving | None:
    """Return the model that serves, None if there is none."""
    async with open_models(dsn) as models:
        for model in await models.serving(retrain.brand):
            if model.kind == retrain.kind:
                return Serving(model, await models.document(model.id))
    return None


async def _promote(dsn: str, model: str, why: str, seen: str) -> None:
    async with open_models(dsn) as models:
        await models.promote(model, BY, why=why, seen=seen)


def _stored(dsn: str, work: Callable[[PostgresRetrains], Awaitable[Result]]) -> Result:
    """Do something with the store, over a connection of its own."""

    async def done() -> Result:
        async with open_retrains(dsn) as store:
            return await work(store)

    return asyncio.run(done())


def _said(error: BaseException) -> str:
    """Return a reason that holds no player's values."""
    if isinstance(error, CrmError):
        return error.message
    return f"unexpected error: {type(error).__name__}; see the job's log in Ray's dashboard"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a Ray job."""
    import ray  # 800 ms

    parser = argparse.ArgumentParser(prog="python -m pipelines.retraining")
    parser.add_argument("--id", required=True)
    asked = parser.parse_args(arguments)
    try:
        settings = load_settings()
        ray.init("auto", namespace="crm", log_to_driver=False)
        done = run(settings, asked.id)
    except (CrmError, ConnectionError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 1
    if done is None:
        sys.stdout.write(f"{asked.id} does not wait to be done\n")
    else:
        sys.stdout.write(f"{done.id}: model {done.model}; {done.note}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
