"""The twin in memory of the streams of facts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from crm.adapters import clock
from crm.domain.errors import DatabaseAway
from crm.domain.facts import Fact, NewFact, Stream


class MemoryFacts:
    """Facts without a database; `away` is its fault."""

    def __init__(self, now: Callable[[], datetime] = clock.now) -> None:
        self.away = False
        self._now = now
        self._facts: dict[Stream, list[Fact]] = {}

    async def tell(self, stream: Stream, facts: Iterable[NewFact]) -> None:
        """Append facts to a stream."""
        self._must_answer()
        told = self._facts.setdefault(stream, [])
        for kind, brand, body in facts:
            told.append(Fact(stream, len(told) + 1, kind, brand, self._now(), dict(body)))

    async def after(self, stream: Stream, seq: int, limit: int) -> list[Fact]:
        """Return at most `limit` facts behind `seq`, in order; nothing comes late before one."""
        self._must_answer()
        return self._facts.get(stream, [])[seq : seq + limit]

    async def head(self, stream: Stream) -> int:
        """Return the seq of a stream's newest fact, 0 before the first."""
        self._must_answer()
        return len(self._facts.get(stream, []))

    def _must_answer(self) -> None:
        if self.away:
            raise DatabaseAway("the store is away")
