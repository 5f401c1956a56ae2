"""Answers in Redis that may be a little old (the dashboards' cache, L4): every process has them."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)

TIMEOUT_S = 0.25  # asking the owners again takes less than a longer wait
PAUSE_S = 5.0  # so long a Redis that has failed is left alone
_PREFIX = "crm:answers:"


class RedisAnswers:
    """Keeps answers by key; without Redis nothing is kept, and nothing is found."""

    def __init__(self, url: str, monotonic: Callable[[], float]) -> None:
        self._redis = Redis.from_url(
            url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
        )
        self._monotonic = monotonic
        self._away_until = float("-inf")

    async def get(self, key: str) -> bytes | None:
        """Return what is kept under a key."""
        if self._monotonic() < self._away_until:
            return None
        try:
            found = await self._redis.get(_PREFIX + key)
        except (RedisError, OSError) as error:
            self._leave_alone(error)
            return None
        return found if isinstance(found, bytes) else None

    async def put(self, key: str, answer: bytes, keep_s: float) -> None:
        """Keep an answer for so long."""
        if self._monotonic() < self._away_until:
            return
        try:
            await self._redis.set(_PREFIX + key, answer, px=int(keep_s * 1000))
        except (RedisError, OSError) as error:
            self._leave_alone(error)

    async def close(self) -> None:
        """Let go of Redis."""
        await self._redis.aclose()

    def _leave_alone(self, error: Exception) -> None:
        self._away_until = self._monotonic() + PAUSE_S
        log.warning("redis_away", error=type(error).__name__)
