"""Redis: it caches, and the service answers without it."""

from __future__ import annotations

from redis.asyncio import Redis

_TIMEOUT_S = 1.0


class RedisCache:
    """A process's connection to Redis."""

    def __init__(self, url: str) -> None:
        self._redis = Redis.from_url(
            url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S
        )

    async def ping(self) -> None:
        """Return if Redis answers; raises redis.RedisError."""
        await self._redis.ping()
