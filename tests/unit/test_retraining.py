"""What asks for a retrain, and the way from a row to a job, with jobs that a test plays."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from crm.adapters.memory_retrains import MemoryRetrains
from crm.domain.drift import Drift
from crm.domain.models import ModelKind
from crm.domain.promotion import Comparison, verdict
from crm.domain.retrains import Outcome, Retrain, RetrainOptions, RetrainRunning, new_retrain
from crm.domain.saved_segments import Once
from crm.domain.schedules import Schedule
from crm.services.retraining import (
    UNKNOWN,
    UNREPORTED,
    JobFound,
    JobRefused,
    JobsAway,
    Plan,
    ask,
    ask_drifted,
    ask_planned,
    look_after,
)
from tests.support.builders import a_brand

AT = datetime(2026, 3, 10, 11, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
BRANDS = {brand.id: brand for brand in (a_brand(), a_brand(id="other", name="Other"))}
HOURLY = Plan("clusters", Schedule(every_s=3_600), "demo")


@dataclass
class PlayedJobs:
    """Jobs as Ray would have them: each id once."""

    jobs: dict[str, JobFound] = field(default_factory=dict)
    submissions: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    away: bool = False
    refuses: bool = False

    async def submit(self, retrain: Retrain) -> None:
        """Take a job, once."""
        if self.away:
            raise JobsAway("away")
        if self.refuses:
            raise JobRefused("no such environment")
        self.submissions.append(retrain.id)
        self.jobs.setdefault(retrain.id, JobFound("waiting"))

    async def found(self, retrain: str) -> JobFound | None:
        """Return how a job is."""
        if self.away:
            raise JobsAway("away")
        return self.jobs.get(retrain)

    async def stop(self, retrain: str) -> None:
        """End a job."""
        self.stopped.append(retrain)


async def _asked(store: MemoryRetrains, kind: ModelKind = "clusters") -> Retrain:
    return await store.ask(new_retrain("demo", kind, "schedule", "now", AT))


# --- by schedule --------------------------------------------------------------------------------


async def test_a_schedule_begins_to_count_when_it_is_first_seen() -> None:
    store = MemoryRetrains()
    assert not await ask_planned(store, [HOURLY], BRANDS, AT)
    assert not await ask_planned(store, [HOURLY], BRANDS, AT + HOUR / 2)
    (change,) = await ask_planned(store, [HOURLY], BRANDS, AT + HOUR)
    assert (change.event, change.retrain.cause) == ("asked", "schedule")
    assert change.retrain.occasion == (AT + HOUR).isoformat()


async def test_two_schedulers_ask_once() -> None:
    store = MemoryRetrains()
    await ask_planned(store, [HOURLY], BRANDS, AT)
    for _ in range(3):
        await ask_planned(store, [HOURLY], BRANDS, AT + HOUR)
    (asked,) = await store.page("demo", None, None, 9)
    # the second one looks a moment later, and the first one's has ended meanwhile
    await store.fail(asked.id, "quick", AT + HOUR)
    assert not await ask_planned(store, [HOURLY], BRANDS, AT + HOUR + timedelta(seconds=1))
    assert len(await store.page("demo", None, None, 9)) == 1


async def test_what_was_missed_is_due_once() -> None:
    store = MemoryRetrains()
    await ask_planned(store, [HOURLY], BRANDS, AT)
    (change,) = await ask_planned(store, [HOURLY], BRANDS, AT + 50 * HOUR)
    await store.fail(change.retrain.id, "over", AT + 50 * HOUR)
    assert not await ask_planned(store, [HOURLY], BRANDS, AT + 50.5 * HOUR)


async def test_a_retrain_that_somebody_asked_for_starts_the_interval_anew() -> None:
    store = MemoryRetrains()
    await ask_planned(store, [HOURLY], BRANDS, AT)
    at = AT + HOUR / 2
    mine = await ask(store, BRANDS["demo"], "clusters", RetrainOptions(), None, at)
    await store.fail(mine.id, "over", at)
    assert not await ask_planned(store, [HOURLY], BRANDS, AT + HOUR)
    assert await ask_planned(store, [HOURLY], BRANDS, at + HOUR)


async def test_while_one_runs_none_is_asked_for_and_afterwards_it_is() -> None:
    store = MemoryRetrains()
    await ask_planned(store, [HOURLY], BRANDS, AT)
    (change,) = await ask_planned(store, [HOURLY], BRANDS, AT + HOUR)
    assert not await ask_planned(store, [HOURLY], BRANDS, AT + 2 * HOUR)
    await store.fail(change.retrain.id, "over", AT + 2 * HOUR)
    assert await ask_planned(store, [HOURLY], BRANDS, AT + 2 * HOUR)


async def test_a_plan_without_a_brand_is_of_each_that_has_none_of_its_own() -> None:
    plans = [
        Plan("clusters", Schedule(every_s=60)),
        Plan("clusters", Schedule(every_s=7_200), "demo"),
    ]
    store = MemoryRetrains()
    await ask_planned(store, plans, BRANDS, AT)
    assert [one.retrain.brand for one in await ask_planned(store, plans, BRANDS, AT + HOUR)] == [
        "other"
    ]
    assert await store.page("demo", None, None, 9) == []
    gone = [Plan("churn", Schedule(every_s=60), "nobody")]
    assert not await ask_planned(store, gone, BRANDS, AT + HOUR)


# --- on request ---------------------------------------------------------------------------------


async def test_the_same_key_is_the_same_retrain_for_ever() -> None:
    store, once = MemoryRetrains(), Once(b"caller", "key-1", b"digest")
    first = await ask(store, BRANDS["demo"], "clusters", RetrainOptions(seed=3), once, AT)
    await store.fail(first.id, "over", AT)
    again = await ask(store, BRANDS["demo"], "clusters", RetrainOptions(seed=3), once, AT + DAY)
    assert (again.id, again.state) == (first.id, "failed")
    other = Once(b"stranger", "key-1", b"digest")
    assert (
        await ask(store, BRANDS["demo"], "clusters", RetrainOptions(), other, AT)
    ).id != first.id


async def test_without_a_key_each_request_is_another() -> None:
    store = MemoryRetrains()
    first = await ask(store, BRANDS["demo"], "clusters", RetrainOptions(), None, AT)
    with pytest.raises(RetrainRunning, match=first.id):
        await ask(store, BRANDS["demo"], "clusters", RetrainOptions(), None, AT)
    await store.fail(first.id, "over", AT)
    second = await ask(store, BRANDS["demo"], "clusters", RetrainOptions(), None, AT)
    assert second.id != first.id


# --- on drift -----------------------------------------------------------------------------------


def _drift(*names: str) -> Drift:
    return Drift("m1", "demo", "churn", AT, 1_000, [], None, list(names))


async def test_a_model_that_has_drifted_is_trained_anew_but_not_again_and_again() -> None:
    store, trained = MemoryRetrains(), AT - 3 * DAY
    assert not await ask_drifted(store, _drift(), trained, DAY, AT)
    assert not await ask_drifted(store, _drift("stake"), AT - DAY / 2, DAY, AT), "it is too new"
    (change,) = await ask_drifted(store, _drift("stake"), trained, DAY, AT)
    assert (change.retrain.kind, change.retrain.cause) == ("churn", "drift")
    await store.fail(change.retrain.id, "over", AT)
    assert not await ask_drifted(store, _drift("stake"), trained, DAY, AT + DAY / 2)
    assert await ask_drifted(store, _drift("stake"), trained, DAY, AT + DAY)


async def test_two_who_see_the_same_drift_ask_once() -> None:
    store, trained = MemoryRetrains(), AT - 3 * DAY
    await ask_drifted(store, _drift("stake"), trained, DAY, AT)
    assert not await ask_drifted(store, _drift("stake"), trained, DAY, AT + HOUR)
    assert len(await store.page("demo", None, None, 9)) == 1


# --- the way to a job ---------------------------------------------------------------------------


async def test_what_waits_is_submitted_and_noted() -> None:
    store, jobs = MemoryRetrains(), PlayedJobs()
    asked = await _asked(store)
    (change,) = await look_after(store, jobs, AT, DAY)
    assert (change.event, change.retrain.state) == ("submitted", "submitted")
    assert jobs.submissions == [asked.id]
    assert not await look_after(store, jobs, AT, DAY)
    assert jobs.submissions == [asked.id]


async def test_a_keeper_that_died_after_the_submission_is_followed_by_one_that_notes_it() -> None:
    store, jobs = MemoryRetrains(), PlayedJobs()
    asked = await _asked(store)
    await jobs.submit(asked)  # and here it was killed
    await look_after(store, jobs, AT, DAY)
    assert (await store.get(asked.id)).state == "submitted"
    assert list(jobs.jobs) == [asked.id]


async def test_while_ray_is_away_nothing_is_lost() -> None:
    store, jobs = MemoryRetrains(), PlayedJobs(away=True)
    asked = await _asked(store)
    with pytest.raises(JobsAway):
        await look_after(store, jobs, AT, DAY)
    jobs.away = False
    await look_after(store, jobs, AT, DAY)
    assert (await store.get(asked.id)).state == "submitted"


async def test_what_ray_refuses_has_failed() -> None:
    store, jobs = MemoryRetrains(), PlayedJobs(refuses=True)
    asked = await _asked(store)
    (change,) = await look_after(store, jobs, AT, DAY)
    assert change.event == "failed"
    assert (await store.get(asked.id)).reason == "no such environment"


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        (None, UNKNOWN),
        (
            JobFound("failed", "the job's driver was killed (SIGKILL)"),
            "the job's driver was killed (SIGKILL)",
        ),
        (JobFound("done"), UNREPORTED),
    ],
)
async def test_a_job_that_ended_without_a_word_is_found(job: JobFound | None, reason: str) -> None:
    store, jobs = MemoryRetrains(), PlayedJobs()
    asked = await _asked(store)
    await look_after(store, jobs, AT, DAY)
    await store.begin(asked.id, AT)
    del jobs.jobs[asked.id]
    if job is not None:
        jobs.jobs[asked.id] = job
    (change,) = await look_after(store, jobs, AT, DAY)
    assert (change.event, change.retrain.reason) == ("failed", reason)


async def test_one_that_told_its_end_itself_is_left_alone() -> None:
    store, jobs = MemoryRetrains(), PlayedJobs()
    asked = await _asked(store)
    await look_after(store, jobs, AT, DAY)
    await store.begin(asked.id, AT)
    jobs.jobs[asked.id] = JobFound("running")
    assert not await look_after(store, jobs, AT, DAY)
    await store.finish(asked.id, Outcome("m1", promoted=False, note=""), AT)
    jobs.jobs[asked.id] = JobFound("done")
    assert not await look_after(store, jobs, AT, DAY)
    assert (await store.get(asked.id)).state == "done"


async def test_one_that_tells_its_end_while_it_is_looked_at_is_left_alone() -> None:
    store = MemoryRetrains()

    class Ending(PlayedJobs):
        async def found(self, retrain: str) -> JobFound | None:
            await store.finish(retrain, Outcome("m1", promoted=True, note=""), AT)
            return JobFound("done")

    asked = await _asked(store)
    await store.begin(asked.id, AT)
    assert not await look_after(store, Ending(), AT, DAY)
    assert (await store.get(asked.id)).state == "done"


async def test_a_job_that_takes_too_long_is_stopped() -> None:
    store, jobs = MemoryRetrains(), PlayedJobs()
    asked = await _asked(store)
    await look_after(store, jobs, AT, DAY)
    await store.begin(asked.id, AT)
    jobs.jobs[asked.id] = JobFound("running")
    assert not await look_after(store, jobs, AT + DAY, DAY)
    (change,) = await look_after(store, jobs, AT + 2 * DAY, DAY)
    assert jobs.stopped == [asked.id]
    assert "longer than" in str(change.retrain.reason)


# --- who serves ---------------------------------------------------------------------------------


def _compared(candidate: float, serving: float) -> Comparison:
    return Comparison("log loss", "lower", candidate, serving, 0.01)


@pytest.mark.parametrize(
    ("kind", "beats", "comparison", "promoted"),
    [
        ("clusters", None, None, True),
        ("churn", True, None, True),
        ("churn", None, None, False),
        ("churn", False, _compared(0.1, 0.9), False),
        ("churn", True, _compared(0.5, 0.6), True),
        ("churn", True, _compared(0.605, 0.6), True),
        ("churn", True, _compared(0.62, 0.6), False),
        ("churn", True, _compared(float("nan"), 0.6), False),
        ("clusters", None, Comparison("silhouette", "higher", 0.3, 0.4, 0.02), False),
        ("clusters", None, Comparison("silhouette", "higher", 0.39, 0.4, 0.02), True),
    ],
)
def test_a_candidate_serves_if_it_beats_its_baseline_and_is_not_worse(
    kind: ModelKind, beats: bool | None, comparison: Comparison | None, promoted: bool
) -> None:
    found = verdict(kind, beats_baseline=beats, comparison=comparison)
    assert found.promote is promoted
    assert found.note.startswith("promoted" if promoted else "not promoted")
