"""The search in Ray Tune finds what a plain loop finds, whoever is killed meanwhile."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import psutil
import pytest

from crm.adapters.lake import Lake
from pipelines.cluster_engine import Here, OnRay
from pipelines.cluster_inputs import Request
from pipelines.cluster_model import Made, train
from pipelines.cluster_report import Origin
from pipelines.cluster_runs import Begun, Runs, must_be_same
from pipelines.cluster_search import Candidate
from tests.support.planted import BRAND, END, planted
from tests.support.wait import wait_for

CLONE = Path(__file__).parents[2]
ASKED = Request(BRAND, algorithm="kmeans", seed=3, trials=6)
PLAYERS = 500
DEADLINE_S = 280.0  # a deadline, not a measure
pytestmark = pytest.mark.timeout(900)


def here(run: str, request: Request = ASKED) -> Made:
    """What a training finds when nothing is distributed and nobody is killed."""
    columns, _, _ = planted(4, 7.0, 1, players=PLAYERS)
    return train(columns, request, Origin(run, END), Here(), lambda _candidate: None)


@contextmanager
def driver(lake: Path, run: str) -> Iterator[subprocess.Popen[str]]:
    """A training in a process of its own, gone at the end of the block."""
    import ray

    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-m", "tests.support.cluster_driver", address, str(lake), run, "3"]
    with subprocess.Popen(command, cwd=CLONE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def outcomes(lake: Path, run: str) -> dict[str, float]:
    """When each trial's outcome was written, by name."""
    names = Lake(str(lake)).names(f"searches/{run}")
    return {name: at.timestamp() for name, at in names.items() if "/trial-" in name}


@pytest.mark.usefixtures("ray_cluster")
def test_tune_finds_what_a_plain_loop_over_the_same_trials_finds(tmp_path: Path) -> None:
    columns, _, _ = planted(4, 7.0, 1, players=PLAYERS)
    runs, told = Runs(str(tmp_path)), list[Candidate]()
    engine, lock = OnRay(runs.memory("r"), tmp_path / "tune"), threading.Lock()

    def tell(one: Candidate) -> None:  # as a job's progress, which cannot be pickled
        with lock:
            told.append(one)

    made = train(columns, ASKED, Origin("r", END), engine, tell)
    assert made.handed_over.document == here("r").handed_over.document
    assert len(told) == 6, "each trial is told of"
    assert len(outcomes(tmp_path, "r")) == 6
    assert not (tmp_path / "tune").exists(), "nothing of Tune's own stays on the disk"
    assert made.handed_over.files["projection.png"][:4] == b"\x89PNG"


@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_driver_goes_on_where_it_was_and_finds_the_same(tmp_path: Path) -> None:
    with driver(tmp_path, "r") as first:
        wait_for(lambda: len(outcomes(tmp_path, "r")) >= 2, "two outcomes", deadline_s=DEADLINE_S)
        first.kill()
        first.wait()
    before = outcomes(tmp_path, "r")
    assert Runs(str(tmp_path)).begun("r") is not None, "what it worked on is still there"
    assert len(before) < 6, "it was not done yet"
    with driver(tmp_path, "r") as second:
        said = second.communicate(timeout=DEADLINE_S)[0].split()
    assert said[0] == "begun"
    assert said[1] == sha256(here("r").handed_over.document).hexdigest()
    after = outcomes(tmp_path, "r")
    assert len(after) == 6
    assert {name: after[name] for name in before} == before, "no trial ran a second time"


@pytest.mark.usefixtures("ray_cluster")
def test_killed_trials_are_run_again(tmp_path: Path) -> None:
    killed: set[int] = set()
    with driver(tmp_path, "r") as running:
        while len(killed) < 2:
            wait_for(
                lambda: bool(trials() - killed) or running.poll() is not None,
                "a trial",
                deadline_s=DEADLINE_S,
            )
            assert running.poll() is None, "it ended before two of its trials were killed"
            pid = min(trials() - killed)
            psutil.Process(pid).kill()
            killed.add(pid)
        said = running.communicate(timeout=DEADLINE_S)[0].split()
    assert said[-1] == sha256(here("r").handed_over.document).hexdigest()
    assert len(outcomes(tmp_path, "r")) == 6


def trials() -> set[int]:
    """The workers of Tune on this test's own Ray that are at work."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        try:
            if " ".join(process.cmdline()).startswith("ray::ImplicitFunc"):
                found.add(process.pid)
        except psutil.Error:
            continue
    return found


def test_a_run_goes_on_with_what_it_was_begun_with_alone(tmp_path: Path) -> None:
    columns, _, _ = planted(2, 6.0, 1, players=60)
    runs = Runs(str(tmp_path))
    assert runs.begun("r") is None
    begun = Begun(BRAND.id, ASKED.as_params(), END, columns.as_of)
    runs.begin("r", begun, columns)
    found = runs.begun("r")
    assert found == begun
    back = runs.columns("r", begun)
    assert back.player_ids == columns.player_ids
    for name, values in columns.values.items():
        assert (back.values[name] == values).all()
    must_be_same("r", begun, ASKED)
    with pytest.raises(Exception, match="seed 3"):
        must_be_same("r", begun, replace(ASKED, seed=4))
    runs.forget("r")
    assert runs.begun("r") is None
    assert not Lake(str(tmp_path)).names("searches")
