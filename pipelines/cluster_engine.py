"""Where a training's work is done: on Ray's workers, or, for tests and comparison, right here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from pipelines.cluster_search import Candidate, Sample, Tell, search_here
from pipelines.cluster_space import Space
from pipelines.cluster_tune import BATCH, TRIAL, Effort, Memory, search

RETRIES = 3  # of work whose worker died


class Engine(Protocol):
    """Does work elsewhere; what it gives back stays there until it is asked for."""

    def call(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Begin `work`; return a handle, which other calls take in the place of its result."""

    def get(self, handles: Any) -> Any:
        """Return what came of a handle, or of a list of them."""

    def search(
        self, sample: Sample, space: Space, effort: Effort, tell: Tell
    ) -> Sequence[Candidate]:
        """Return what the trials found, in the order of their numbers."""


class Here:
    """Everything in this process, one after the other."""

    def call(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Do it at once."""
        return work(*arguments)

    def get(self, handles: Any) -> Any:
        """Return it as it is."""
        return handles

    def search(
        self, sample: Sample, space: Space, effort: Effort, tell: Tell
    ) -> Sequence[Candidate]:
        """Run a plain loop over the same trials."""
        return search_here(sample, space, effort.trials, effort.at_once, effort.budget_s, tell)


class OnRay:
    """Tasks and Tune's trials on the nodes for batch work; Ray must be connected."""

    def __init__(self, memory: Memory, folder: Path) -> None:
        self._memory, self._folder = memory, folder

    def call(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Begin a task; large arguments are stored once."""
        import ray

        task = ray.remote(num_cpus=TRIAL["cpu"], resources=BATCH, max_retries=RETRIES)(work)
        return task.remote(*arguments)

    def get(self, handles: Any) -> Any:
        """Wait for it; an error of the work is raised as it was."""
        import ray
        from ray.exceptions import RayTaskError

        from crm.domain.errors import CrmError

        try:
            return ray.get(handles)
        except RayTaskError as error:
            if isinstance(error.cause, CrmError):
                raise error.cause from None
            raise

    def search(
        self, sample: Sample, space: Space, effort: Effort, tell: Tell
    ) -> Sequence[Candidate]:
        """Run the trials in Tune."""
        return search(sample, space, effort, self._memory, self._folder, tell)
