"""Laws of the cache of answers, on the twin in memory and on Redis."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from crm.adapters.memory_answers import MemoryAnswers
from crm.adapters.redis.answers import PAUSE_S, RedisAnswers
from crm.domain.ports import AnswerCache
from tests.support.wait import wait_for_async


@pytest.fixture(params=["memory", "redis"])
async def cache(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[AnswerCache]:
    if request.param == "memory":
        yield MemoryAnswers(time.monotonic)
        return
    answers = RedisAnswers(redis_url, time.monotonic)
    yield answers
    await answers.close()


async def test_an_answer_is_there_until_its_time_is_over(cache: AnswerCache) -> None:
    assert await cache.get("a") is None
    await cache.put("a", b"\x00one", 60)
    await cache.put("b", b"two", 60)
    assert (await cache.get("a"), await cache.get("b")) == (b"\x00one", b"two")
    await cache.put("b", b"short", 0.01)

    async def gone() -> bool:
        return await cache.get("b") is None

    await wait_for_async(gone, "the short answer is gone")
    assert await cache.get("a") == b"\x00one"


async def test_without_redis_nothing_is_kept_and_it_is_asked_again_after_a_pause(
    tmp_path: Path,
) -> None:
    seconds = [0.0]
    answers = RedisAnswers(f"unix://{tmp_path}/nobody.sock", lambda: seconds[0])
    await answers.put("a", b"one", 60)
    assert await answers.get("a") is None
    assert answers._away_until == PAUSE_S
    seconds[0] = 2 * PAUSE_S
    assert await answers.get("a") is None
    assert answers._away_until == 3 * PAUSE_S
    await answers.close()
