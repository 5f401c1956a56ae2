"""Progress of long work for the live socket, beside what the terminal shows.

A thread of its own writes the newest state now and then: the work never waits for it, and goes on
if nobody can be told.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol
from uuid import uuid4

import msgspec
import structlog

from crm.domain.errors import CrmError
from crm.domain.live import Job, JobState

log = structlog.get_logger(__name__)

EVERY_S = 1.0
SIGN_OF_LIFE_S = 10.0  # so often a job says that it runs, even where nothing has changed
LAST_S = 5.0  # how long the end of a job may take to be told
_UNKNOWN = datetime(1970, 1, 1, tzinfo=UTC)  # the store's clock decides


class JobStore(Protocol):
    """Where progress is told."""

    async def put(self, job: Job) -> None:
        """Store a job's newest state; raises CrmError."""

    async def sweep(self) -> None:
        """Forget what ended long ago; raises CrmError."""

    async def close(self) -> None:
        """End what is open."""


OpenJobs = Callable[[], JobStore]


class Progress:
    """What a job says of itself; called from the thread that works."""

    def __init__(self, job: Job) -> None:
        self._lock = threading.Lock()
        self._job = job

    @property
    def job(self) -> Job:
        """The newest state."""
        with self._lock:
            return self._job

    def advance(self, count: int = 1) -> None:
        """Say that so many more units are done."""
        self._change(done=self.job.done + count)

    def say(self, message: str) -> None:
        """Say what is being done, without any value of a player."""
        self._change(message=message)

    def end(self, state: JobState) -> None:
        """Say how it ended."""
        self._change(state=state)

    def _change(self, **fields: object) -> None:
        with self._lock:
            self._job = msgspec.structs.replace(self._job, **fields)


@contextmanager
def job_progress(
    open_jobs: OpenJobs | None,
    kind: str,
    what: str,
    total: int | None,
    unit: str,
    brand: str | None,
    identity: str | None = None,
) -> Iterator[Progress]:
    """Tell of a job for the length of a block; it has failed if the block raises.

    Without `open_jobs` nobody is told; without `identity` it is a new job.
    """
    job = Job(
        identity or uuid4().hex, kind, what, "running", 0, total, unit, _UNKNOWN, _UNKNOWN, brand
    )
    progress = Progress(job)
    if open_jobs is None:
        yield progress
        return
    over = threading.Event()
    teller = threading.Thread(
        target=_tell_until, args=(open_jobs, progress, over), daemon=True, name="job-progress"
    )
    teller.start()
    try:
        yield progress
    except BaseException:
        progress.end("failed")
        raise
    else:
        progress.end("done")
    finally:
        over.set()
        teller.join(LAST_S)


def _tell_until(open_jobs: OpenJobs, progress: Progress, over: threading.Event) -> None:
    told: Job | None = None
    quiet_s, ended = 0.0, False
    with asyncio.Runner() as runner:
        jobs = open_jobs()
        while not ended:
            ended = over.is_set()
            job = progress.job
            due = job != told or quiet_s >= SIGN_OF_LIFE_S
            if due and runner.run(_put(jobs, job, first=told is None)):
                told, quiet_s = job, 0.0
            if not ended:
                over.wait(EVERY_S)
                quiet_s += EVERY_S
        runner.run(jobs.close())


async def _put(jobs: JobStore, job: Job, *, first: bool) -> bool:
    """Tell, and return whether it was told: the next time may be better, and the work goes on."""
    try:
        if first:
            await jobs.sweep()
        await jobs.put(job)
    except CrmError as error:
        log.warning("job_progress_not_told", error=error.code)
        return False
    return True
