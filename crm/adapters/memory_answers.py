"""Answers kept in this process: the twin of the cache in Redis."""

from __future__ import annotations

from collections.abc import Callable


class MemoryAnswers:
    """Keeps answers by key until their time is over on `monotonic`, in seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._kept: dict[str, tuple[bytes, float]] = {}

    async def get(self, key: str) -> bytes | None:
        """Return what is kept under a key."""
        answer, until = self._kept.get(key, (None, 0.0))
        return answer if self._monotonic() < until else None

    async def put(self, key: str, answer: bytes, keep_s: float) -> None:
        """Keep an answer for so long."""
        self._kept[key] = answer, self._monotonic() + keep_s
