"""The search for player clusters in Ray Tune, against a plain loop over the very same trials.

    .venv/bin/python bench/cluster_search.py [--quick]

Both find the same, which is checked. The loop is one process on one core, as a trial is; it is also
run as two processes that share the trials evenly, the least that two cores can take. Ray is up, as
in a running service; the workers' starts (imports and all) count. Trials take 2 s and more.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np

from bench.frame import CLONE, Row, Size, main, times_at_most
from crm.domain.clustering import ALGORITHMS, Scaler, Scaling
from pipelines.cluster_search import Sample, search_here, try_plan
from pipelines.cluster_space import Plan, Space
from pipelines.cluster_tune import Effort, Memory, search
from tests.support.ray import prepare_environment, ray_session

SCALINGS: tuple[Scaling, ...] = ("log", "zscore", "robust", "quantile")
PLAYERS = 20_000
TRIALS = 16
AT_ONCE = 4
SEED = 7
TARGET = 1.3
HALF = "--half"


def measure(size: Size) -> Iterator[Row]:
    """The loop, two loops side by side, and Tune."""
    prepare_environment()
    players, trials = (1_000, 6) if size == "quick" else (PLAYERS, TRIALS)
    sample, space = data(players)
    began = time.perf_counter()
    each: list[float] = []
    found = search_here(sample, space, trials, AT_ONCE, tell=lambda _one: each.append(clock()))
    loop_s = time.perf_counter() - began
    lengths = np.diff([began, *each])
    two_s = two_loops(players, [one.plan for one in found])
    with ray_session(), tempfile.TemporaryDirectory(prefix="crm-search-") as folder:
        memory = Memory(f"{folder}/lake", "searches/bench")
        began = time.perf_counter()
        tuned = search(
            sample, space, Effort(trials, AT_ONCE), memory, Path(folder) / "tune", lambda _one: None
        )
        tune_s = time.perf_counter() - began
    if [one.score for one in tuned] != [one.score for one in found]:
        raise SystemExit("the two searches differ")
    what = f"{trials} trials of {lengths.min():.1f} to {lengths.max():.1f} s, {players:,} players"
    note = f"a trial takes {lengths.mean():.1f} s on average"
    yield Row(f"{what}: Ray Tune", tune_s, "s", "a plain loop, one process", loop_s,
              (times_at_most(TARGET),), note)  # fmt: skip
    yield Row(f"{what}: Ray Tune", tune_s, "s", "two plain loops side by side", two_s,
              (times_at_most(TARGET),), "their start and imports count too")  # fmt: skip


def clock() -> float:
    """Now."""
    return time.perf_counter()


def data(players: int) -> tuple[Sample, Space]:
    """Players in five groups of heavy-tailed play, the same each time."""
    rng = np.random.default_rng(SEED)
    centres = rng.normal(0, 1.5, (5, 6))
    logs = centres[rng.integers(0, 5, players)] + rng.normal(0, 0.5, (players, 6))
    values = np.expm1(np.abs(logs) + 1)
    scalers = {one: Scaler.fit(one, values) for one in SCALINGS}
    space = Space(ALGORITHMS, SCALINGS, ("none", "pca"), None, SEED, 0.01)
    return Sample(values, scalers, "log"), space


def two_loops(players: int, plans: Sequence[Plan]) -> float:
    """Try every second plan in a process, the others in another; return how long both took."""
    began = time.perf_counter()
    command = [sys.executable, str(Path(__file__)), HALF, str(players)]
    with ExitStack() as open_files:
        halves = []
        for half in (plans[::2], plans[1::2]):
            file = open_files.enter_context(tempfile.TemporaryFile())
            file.write(msgspec.json.encode(half))
            file.seek(0)
            halves.append(subprocess.Popen(command, cwd=CLONE, stdin=file))
        codes = [half.wait() for half in halves]
        if any(codes):
            raise SystemExit("a loop failed")
    return time.perf_counter() - began


def half_loop(players: int) -> None:
    """Try the plans that come on stdin."""
    sample, _ = data(players)
    for plan in msgspec.json.decode(sys.stdin.buffer.read(), type=list[Plan]):
        try_plan(sample, plan)


if __name__ == "__main__":
    if HALF in sys.argv:
        half_loop(int(sys.argv[-1]))
    else:
        main("cluster_search", "The search for player clusters", measure)
