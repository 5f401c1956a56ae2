"""The laws of the streams of facts, on the twin in memory and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from crm.adapters.memory_facts import MemoryFacts
from crm.adapters.postgres import facts as postgres_facts
from crm.adapters.postgres.facts import PostgresFacts
from crm.adapters.postgres.pool import Pool
from crm.domain.errors import DatabaseAway
from crm.domain.facts import NewFact
from crm.services.model_registry import Facts
from tests.support.wait import wait_for_async

ONE = NewFact("model.retrained", "demo", {"model": "m1", "number": 1, "auc": 0.5, "why": None})
TWO = NewFact("clustering.updated", "other", {})


class FactsLaws:
    """What any stream of facts does."""

    async def test_a_stream_begins_empty(self, facts: Facts) -> None:
        assert await facts.head("models") == 0
        assert await facts.after("models", 0, 9) == []

    async def test_facts_come_back_in_order_and_are_counted_without_gaps(
        self, facts: Facts
    ) -> None:
        await facts.tell("models", [ONE, TWO])
        await facts.tell("models", [])
        await facts.tell("models", [ONE])
        found = await facts.after("models", 0, 9)
        assert [(one.seq, one.kind, one.brand, one.body) for one in found] == [
            (1, *ONE), (2, *TWO), (3, *ONE),
        ]  # fmt: skip
        assert await facts.head("models") == 3
        assert await facts.after("models", 1, 1) == found[1:2]
        assert await facts.after("models", 3, 9) == []

    async def test_whoever_follows_by_cursor_misses_nothing_of_what_is_told_at_once(
        self, facts: Facts
    ) -> None:
        told = asyncio.gather(*[facts.tell("models", [ONE, TWO]) for _ in range(20)])
        seen: list[int] = []
        while len(seen) < 40:
            seen += [one.seq for one in await facts.after("models", len(seen), 7)]
            await asyncio.sleep(0)
        await told
        assert seen == list(range(1, 41))


class TestMemoryFacts(FactsLaws):
    @pytest.fixture
    def facts(self) -> Facts:
        return MemoryFacts()

    async def test_it_can_be_away(self) -> None:
        twin = MemoryFacts()
        twin.away = True
        with pytest.raises(DatabaseAway):
            await twin.head("models")


class TestPostgresFacts(FactsLaws):
    @pytest.fixture
    async def facts(self, dsn: str) -> AsyncIterator[Facts]:
        pool = Pool(dsn)
        try:
            yield PostgresFacts(pool)
        finally:
            await pool.close()


async def test_a_later_fact_waits_for_an_earlier_one_that_is_not_committed_yet(dsn: str) -> None:
    """Off (a sequence in the place of the counter), the reader would see 2, and never 1."""
    pool = Pool(dsn)
    facts = PostgresFacts(pool)
    watcher = await asyncpg.connect(dsn)
    try:
        async with pool.using() as connection:
            first = connection.transaction()
            await first.start()
            await postgres_facts.tell(connection, "models", [ONE])
            second = asyncio.create_task(facts.tell("models", [TWO]))

            async def waits() -> bool:
                return bool(
                    await watcher.fetchval(
                        "SELECT count(*) FROM pg_stat_activity"
                        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
                    )
                )

            await wait_for_async(waits, "the second waits for the counter")
            assert await facts.after("models", 0, 9) == []
            await first.commit()
        await second
        assert [one.kind for one in await facts.after("models", 0, 9)] == [ONE.kind, TWO.kind]
    finally:
        await watcher.close()
        await pool.close()
