"""The jobs of retrains, by Ray's job API: the id of a retrain is its submission id."""

from __future__ import annotations

import asyncio
import re
import shlex
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Literal, TypeVar

import ray
from ray.job_submission import JobSubmissionClient

from crm.domain.errors import CrmError
from crm.domain.retrains import Retrain
from crm.services.retraining import JobFound, JobRefused, JobsAway

ANSWER_S = 30.0
BATCH = "crm-batch"  # the resource of the nodes that come and go, see ray-cluster.yaml
_STATUS = re.compile(r"status code (\d{3})")
_SIGNALLED = 128  # a shell's exit code for a child that signal N has ended: 128 + N
Result = TypeVar("Result")
_STATES: Mapping[str, Literal["waiting", "running", "done"]] = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "SUCCEEDED": "done",
}
_REASONS = {
    "RUNTIME_ENV_SETUP_FAILURE": "the job's environment could not be set up",
    "JOB_SUPERVISOR_ACTOR_START_TIMEOUT": "no node of the batch group had room for the job in time",
    "JOB_SUPERVISOR_ACTOR_START_FAILURE": "the job could not be started",
    "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE": "no node can run the job",
    "JOB_SUPERVISOR_ACTOR_DIED": "the node, or the process, that the job ran on was lost",
    "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE": "Ray lost sight of the job",
    "JOB_ENTRYPOINT_COMMAND_START_ERROR": "the job's command could not be started",
}


class RayJobs:
    """`entrypoint` is the command that a retrain's id is appended to; `batch` what a job asks of a
    node. The token that opens the job API comes from this process's environment, as all of Ray's.
    """

    def __init__(
        self,
        entrypoint: tuple[str, ...],
        runtime_env: Mapping[str, Any],
        batch: float,
        address: str | None = None,
    ) -> None:
        self._entrypoint = entrypoint
        self._runtime_env = dict(runtime_env)
        self._resources = {BATCH: batch}
        self._address = address
        self._client: JobSubmissionClient | None = None

    async def submit(self, retrain: Retrain) -> None:
        """Have a retrain's job run; nothing happens if its id was submitted.

        Raises JobRefused, JobsAway.
        """
        try:
            await self._call(lambda client: self._submit(client, retrain))
        except (JobRefused, JobsAway):
            if await self.found(retrain.id) is None:  # else it is refused because it is there
                raise

    async def found(self, retrain: str) -> JobFound | None:
        """Return how a retrain's job is, None if there is none; raises JobsAway."""
        return await self._call(lambda client: _found(client, retrain))

    async def stop(self, retrain: str) -> None:
        """End a retrain's job; raises JobsAway."""

        def stop(client: JobSubmissionClient) -> None:
            with suppress(JobRefused), _answers():
                client.stop_job(retrain)

        await self._call(stop)

    def _submit(self, client: JobSubmissionClient, retrain: Retrain) -> None:
        with _answers():
            client.submit_job(
                entrypoint=shlex.join((*self._entrypoint, retrain.id)),
                submission_id=retrain.id,
                runtime_env=self._runtime_env,
                metadata={"brand": retrain.brand, "kind": retrain.kind, "cause": retrain.cause},
                entrypoint_num_cpus=0,
                entrypoint_resources=self._resources,
            )

    async def _call(self, work: Callable[[JobSubmissionClient], Result]) -> Result:
        """Ask in a thread; whatever goes wrong, the next call begins anew."""
        try:
            async with asyncio.timeout(ANSWER_S):
                return await asyncio.to_thread(lambda: work(self._connected()))
        except CrmError:
            raise
        except Exception as error:
            self._client = None
            raise JobsAway(f"Ray's job API does not answer ({type(error).__name__})") from error

    def _connected(self) -> JobSubmissionClient:
        if self._client is None:
            address = self._address or str(ray.get_runtime_context().gcs_address)
            self._client = JobSubmissionClient(address)
        return self._client


@contextmanager
def _answers() -> Iterator[None]:
    """Turn an answer of the job API that says no into a fact; its client has no error for it."""
    try:
        yield
    except RuntimeError as error:
        status = _STATUS.search(str(error))
        if status is None:
            raise
        said = f"Ray's job API refuses the job (status {status[1]})"
        raise (JobsAway if status[1] >= "500" else JobRefused)(said) from error


def _found(client: JobSubmissionClient, retrain: str) -> JobFound | None:
    try:
        with _answers():
            job = client.get_job_info(retrain)
    except JobRefused as error:
        if "404" in error.message:
            return None
        raise
    status = job.status.value
    if status == "FAILED":
        return JobFound("failed", _reason(job.error_type, getattr(job, "driver_exit_code", None)))
    if status == "STOPPED":
        return JobFound("failed", "the job was stopped")
    return JobFound(_STATES[status])


def _reason(error_type: str | None, code: int | None) -> str:
    """Return why a job failed; Ray's own message quotes its output, which may hold anything."""
    if code is None:
        return _REASONS.get(str(error_type), "the job failed")
    number = -code if code < 0 else code - _SIGNALLED
    if number > 0:
        with suppress(ValueError):
            name = signal.Signals(number).name
            return f"the job's driver was killed ({name}) before it told of an end"
    return f"the job's driver ended with exit code {code} before it told why"
