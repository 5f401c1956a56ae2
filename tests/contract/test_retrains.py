"""The laws of a store of retrains, on the twin in memory and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from crm.adapters.memory_retrains import MemoryRetrains
from crm.adapters.postgres.retrains import open_retrains
from crm.domain.drift import Drift, Shift
from crm.domain.errors import DatabaseAway, KeyReused
from crm.domain.models import ModelKind
from crm.domain.retrains import (
    Outcome,
    Retrain,
    RetrainNotFound,
    RetrainOptions,
    RetrainRunning,
    new_retrain,
)
from crm.services.retrain_store import RetrainStore

AT = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
LATER = AT + timedelta(seconds=1)


def a_retrain(
    occasion: str = "o", *, kind: ModelKind = "clusters", brand: str = "demo", at: datetime = AT
) -> Retrain:
    return new_retrain(brand, kind, "schedule", occasion, at, RetrainOptions(7, 1.5, "never"))


class RetrainStoreLaws:
    """What any store of retrains does."""

    async def test_a_retrain_comes_back_as_it_was_asked_for(self, store: RetrainStore) -> None:
        asked = a_retrain()
        assert await store.ask(asked) == asked
        assert await store.get(asked.id) == asked
        with pytest.raises(RetrainNotFound):
            await store.get("retrain-none")

    async def test_the_same_occasion_is_one_retrain_whoever_asks_and_when(
        self, store: RetrainStore
    ) -> None:
        first = await store.ask(a_retrain())
        assert await store.ask(a_retrain(at=LATER)) == first
        await store.fail(first.id, "broken", LATER)
        assert (await store.ask(a_retrain(at=LATER))).state == "failed"

    async def test_of_many_who_ask_at_once_one_is_heard(self, store: RetrainStore) -> None:
        found = await asyncio.gather(
            *[store.ask(a_retrain(f"o{n}")) for n in range(8)], return_exceptions=True
        )
        heard = [one for one in found if isinstance(one, Retrain)]
        refused = [one for one in found if isinstance(one, RetrainRunning)]
        assert (len(heard), len(refused)) == (1, 7)
        assert {one.running for one in refused} == {heard[0].id}

    async def test_kinds_and_brands_do_not_wait_for_each_other(self, store: RetrainStore) -> None:
        for asked in (a_retrain(), a_retrain(kind="churn"), a_retrain(brand="other")):
            await store.ask(asked)
        assert len(await store.active()) == 3

    async def test_a_key_with_another_request_is_refused(self, store: RetrainStore) -> None:
        first = await store.ask(a_retrain(), b"request")
        assert await store.ask(a_retrain(), b"request") == first
        with pytest.raises(KeyReused):
            await store.ask(a_retrain(), b"another")

    async def test_only_one_job_begins_and_tells_its_end_once(self, store: RetrainStore) -> None:
        asked = await store.ask(a_retrain())
        begun = await asyncio.gather(*[store.begin(asked.id, LATER) for _ in range(5)])
        (one,) = [found for found in begun if found is not None]
        assert (one.state, one.started_at) == ("running", LATER)
        made = Outcome("m1", promoted=True, note="promoted: better")
        assert await store.finish(asked.id, made, LATER)
        assert not await store.finish(asked.id, made, LATER)
        assert not await store.fail(asked.id, "late", LATER)
        done = await store.get(asked.id)
        assert (done.state, done.model, done.promoted, done.note, done.ended_at) == (
            "done", "m1", True, "promoted: better", LATER,
        )  # fmt: skip
        assert await store.begin(asked.id, LATER) is None
        assert not await store.active()

    async def test_a_submission_that_is_told_late_changes_nothing(
        self, store: RetrainStore
    ) -> None:
        asked = await store.ask(a_retrain())
        await store.note_submitted(asked.id, LATER)
        assert (await store.get(asked.id)).state == "submitted"
        await store.begin(asked.id, LATER)
        await store.note_submitted(asked.id, LATER)
        assert (await store.get(asked.id)).state == "running"

    async def test_the_first_reason_counts_and_is_a_short_line(self, store: RetrainStore) -> None:
        asked = await store.ask(a_retrain())
        assert not await store.finish(asked.id, Outcome("m1", False, ""), AT), "it has not begun"
        assert await store.fail(asked.id, "two\nlines " + "x" * 1_000, LATER)
        assert not await store.fail(asked.id, "another", LATER)
        reason = (await store.get(asked.id)).reason
        assert reason is not None
        assert reason.startswith("two lines x")
        assert len(reason) == 500
        assert not await store.fail("retrain-none", "nobody", LATER)

    async def test_pages_are_by_brand_and_kind_the_newest_first(self, store: RetrainStore) -> None:
        made = []
        for number in range(5):
            kind: ModelKind = "churn" if number % 2 else "clusters"
            at = AT + timedelta(seconds=number // 2)
            one = await store.ask(a_retrain(str(number), kind=kind, at=at))
            await store.fail(one.id, "over", at)
            made.append(one)
        await store.ask(a_retrain("elsewhere", brand="other"))
        order = sorted(made, key=lambda one: (one.asked_at, one.id), reverse=True)
        paged: list[str] = []
        after: tuple[datetime, str] | None = None
        while page := await store.page("demo", None, after, 2):
            paged += [one.id for one in page]
            after = (page[-1].asked_at, page[-1].id)
        assert paged == [one.id for one in order]
        assert {one.kind for one in await store.page("demo", "churn", None, 9)} == {"churn"}
        assert await store.newest("demo", "clusters") == AT + timedelta(seconds=2)
        assert await store.newest("demo", "value") is None

    async def test_a_schedule_counts_from_when_it_was_first_seen(self, store: RetrainStore) -> None:
        assert await store.planned_since("demo", "churn", AT) == AT
        assert await store.planned_since("demo", "churn", LATER) == AT
        assert await store.planned_since("demo", "value", LATER) == LATER

    async def test_the_newest_look_at_a_model_counts(self, store: RetrainStore) -> None:
        shifts = [Shift("a", 0.5, 0.01)]
        newer = Drift("m1", "demo", "churn", LATER, 10, shifts, None, ["a"])
        older = Drift("m1", "demo", "churn", AT, 10, [], Shift("score", 0.1, 0.2), [])
        assert await store.drift("m1") is None
        for one in (older, newer, older):
            await store.note_drift(one)
        assert await store.drift("m1") == newer


class TestMemoryRetrains(RetrainStoreLaws):
    @pytest.fixture
    def store(self) -> RetrainStore:
        return MemoryRetrains()


class TestPostgresRetrains(RetrainStoreLaws):
    @pytest.fixture
    async def store(self, dsn: str) -> AsyncIterator[RetrainStore]:
        async with open_retrains(dsn) as store:
            yield store


async def test_a_database_that_is_away_is_named_as_such() -> None:
    async with open_retrains("postgresql://nobody@127.0.0.1:1/none") as store:
        with pytest.raises(DatabaseAway):
            await store.active()
