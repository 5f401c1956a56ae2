"""What long work tells of itself: the newest state, its end, and nothing that could hold it up."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from crm.domain.errors import DatabaseAway
from crm.domain.live import Job
from pipelines import job_progress as module
from pipelines.chunks import plan
from pipelines.imports import import_files
from pipelines.job_progress import job_progress
from tests.support.imports import HEADER, RememberingShards, a_file, a_mapping, in_process, stores


class Jobs:
    """Remembers what it was told; may be away."""

    def __init__(self) -> None:
        self.told: list[Job] = []
        self.put_one = threading.Event()
        self.away = False
        self.closed = False

    async def put(self, job: Job) -> None:
        if self.away:
            self.put_one.set()
            raise DatabaseAway("the store is away")
        self.told.append(job)
        self.put_one.set()

    async def sweep(self) -> None:
        pass

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    monkeypatch.setattr(module, "EVERY_S", 0.001)
    return Jobs()


def test_a_job_tells_how_far_it_is_and_that_it_is_done(jobs: Jobs) -> None:
    with job_progress(lambda: jobs, "import", "importing", 10, "rows", "demo") as job:
        assert jobs.put_one.wait(10)
        jobs.put_one.clear()
        job.say("half of it")
        job.advance(5)
        while not (jobs.told and jobs.told[-1].done == 5):
            assert jobs.put_one.wait(10)
            jobs.put_one.clear()
        job.advance(5)
    assert len({one.id for one in jobs.told}) == 1
    last = jobs.told[-1]
    assert (last.done, last.total, last.state, last.message) == (10, 10, "done", "half of it")
    assert {one.state for one in jobs.told[:-1]} == {"running"}
    assert jobs.closed


def test_a_job_whose_work_raises_has_failed(jobs: Jobs) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        job_progress(lambda: jobs, "import", "importing", None, "rows", None),
    ):
        raise ZeroDivisionError
    assert jobs.told[-1].state == "failed"


def test_a_store_that_is_away_or_cannot_be_opened_does_not_end_the_work(jobs: Jobs) -> None:
    jobs.away = True
    with job_progress(lambda: jobs, "import", "importing", 1, "rows", None) as job:
        assert jobs.put_one.wait(10)
        job.advance()
    assert jobs.told == []
    with job_progress(None, "import", "importing", 1, "rows", None) as job:
        job.advance()


def test_an_import_tells_of_its_rows(jobs: Jobs, tmp_path: Path) -> None:
    row = "ana,1.50,NA,2020-05-01\n"
    file = a_file(tmp_path, "ana@example.com.csv", HEADER + row * 3)
    opened = stores(RememberingShards())
    told = type(opened)(**{**vars(opened), "open_jobs": lambda: jobs})
    import_files(plan([file], a_mapping()), told, tmp_path / "quarantine", in_process)
    last = jobs.told[-1]
    assert (last.kind, last.brand, last.done, last.total, last.state) == (
        "import", "trial", 3, 3, "done",
    )  # fmt: skip
    assert "ana" not in str(jobs.told)  # a file's name may be a person's
