"""A registration in a process of its own, which kills itself at a given step.

`python -m tests.support.registering DSN LAKE STEP`: STEP is one of STEPS, or `none`. A step is
killed at its beginning, so that the one before it is whole; `half` ones are killed in their middle.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from crm.adapters.lake import Lake
from crm.adapters.mlflow_runs import MlflowRuns, MlflowSettings, store_of
from crm.adapters.model_files import LakeModelFiles
from crm.adapters.postgres import facts
from crm.adapters.postgres.models import PostgresModels, open_models
from crm.services.model_registry import Parts, register
from tests.support.models import trained

STEPS = (
    "files", "half_files", "run", "half_run", "run_files", "run_end",
    "row", "half_row", "promotion",
)  # fmt: skip
SWEPT = "m1"


def the_model() -> Any:
    """What is registered: the same in every process."""
    return trained(id=SWEPT, params={f"p{n}": str(n) for n in range(150)})


async def parts_of(dsn: str, lake: str, models: PostgresModels) -> Parts:
    """The real parts."""
    store, installation = store_of(MlflowSettings(), dsn), await models.installation()
    return Parts(LakeModelFiles(lake), MlflowRuns(store, lake, installation), models)


async def _main(dsn: str, lake: str, step: str) -> None:
    async with open_models(dsn) as models:
        parts = await parts_of(dsn, lake, models)
        if step != "none":
            _arm(step, parts)
        await register(parts, the_model())


def _arm(step: str, parts: Parts) -> None:
    runs: Any = parts.runs
    places: dict[str, tuple[Any, str, int]] = {
        "files": (parts.files, "put", 1),
        "half_files": (Lake, "write", 2),
        "run": (runs, "record", 1),
        "half_run": (runs, "_fill", 1),
        "run_files": (Lake, "write", 5),  # after two files and the document: a file of the run's
        "run_end": (runs, "_finish", 1),
        "row": (parts.models, "add", 1),
        "half_row": (facts, "tell", 1),
        "promotion": (parts.models, "promote", 1),
    }
    owner, name, nth = places[step]
    setattr(owner, name, _deadly(getattr(owner, name), nth))


def _deadly(work: Callable[..., Any], nth: int) -> Callable[..., Any]:
    calls = 0

    def deadly(*values: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return work(*values, **named)

    return deadly


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
