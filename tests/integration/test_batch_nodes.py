"""A retrain brings a node of the batch group up from none, works there, and the node goes again."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.one_server
def test_a_retrain_runs_on_a_batch_node_that_comes_for_it_and_goes(dsn: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.support.batch_nodes", dsn],
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2_000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert (found["before"], found["at_work"], found["after"]) == (0, 1, 0)
    assert found["states"] == ["done", "failed"]
    assert found["reason"] == "it was told to"
    assert found["worker_there"]
    assert found["drivers_there"] == [True, True]
    assert found["jobs"] == 2, "each was submitted twice, and ran once"
    assert found["without_token"] == 401
