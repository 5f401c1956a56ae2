"""The search in Ray Tune finds what the same attempts find here, and keeps to its budget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.cluster_search import TRIALS, attempts_for, fit, search


def _three_clouds() -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    rng = np.random.default_rng(5)
    return np.repeat(np.eye(3) * 10, 40, axis=0) + rng.normal(0, 1, (120, 3))


@pytest.mark.usefixtures("ray_cluster")
def test_tune_makes_every_attempt_once_and_finds_what_a_plain_loop_finds(tmp_path: Path) -> None:
    scaled, attempts = _three_clouds(), attempts_for(None, "kmeans", seed=3)
    found = {one.attempt: one for one in search(scaled, attempts, None, tmp_path / "tune")}
    assert found.keys() == set(attempts)
    for attempt in attempts:
        here = fit(scaled, attempt)
        assert found[attempt].inertia == pytest.approx(here.inertia)
        assert np.allclose(found[attempt].centroids, here.centroids)
    assert not (tmp_path / "tune").exists(), "nothing of a search stays on the disk"


@pytest.mark.usefixtures("ray_cluster")
def test_a_budget_ends_the_search_early_with_what_was_found(tmp_path: Path) -> None:
    scaled, attempts = _three_clouds(), attempts_for(None, "kmeans", seed=3, hurried=True)
    found = search(scaled, attempts, 1e-9, tmp_path / "tune")
    assert [one.attempt for one in found] == attempts[:TRIALS]
