"""A training's driver as a process of its own, on a Ray that runs: for whoever kills it.

    python -m tests.support.cluster_driver RAY_ADDRESS LAKE RUN SEED

It says `begun` when its players are stored, and at its end the digest of its model.
"""

from __future__ import annotations

import sys
from hashlib import sha256
from pathlib import Path

from tests.support.ray import NAMESPACE, prepare_environment

prepare_environment()


def main(address: str, lake: str, run: str, seed: str) -> None:
    """Train on planted groups, or go on with it."""
    import ray

    from pipelines.cluster_engine import OnRay
    from pipelines.cluster_inputs import Request
    from pipelines.cluster_model import train
    from pipelines.cluster_report import Origin
    from pipelines.cluster_runs import Begun, Runs
    from tests.support.planted import BRAND, END, planted

    ray.init(address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False)
    runs = Runs(lake)
    request = Request(BRAND, algorithm="kmeans", seed=int(seed), trials=6)
    begun = runs.begun(run)
    if begun is None:
        columns, _, _ = planted(4, 7.0, 1, players=500)
        begun = Begun(BRAND.id, request.as_params(), END, columns.as_of)
        runs.begin(run, begun, columns)
    print("begun", flush=True)  # noqa: T201 - whoever started it reads this
    columns = runs.columns(run, begun)
    engine = OnRay(runs.memory(run), Path(lake) / "tune" / sha256(run.encode()).hexdigest()[:8])
    made = train(columns, request, Origin(run, begun.at), engine, lambda _candidate: None)
    print(sha256(made.handed_over.document).hexdigest(), flush=True)  # noqa: T201 - as above


if __name__ == "__main__":
    main(*sys.argv[1:])
