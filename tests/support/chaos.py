"""Fault experiments: a load, what hits it, the balance at the end, and the table of a run."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import asyncpg
import httpx

from crm.domain.errors import CrmError
from crm.domain.features import FEATURES
from crm.services.player_features import for_reading
from tests.support.balance import MEASURES, Balance, Sent, Totals, totals_of
from tests.support.builders import a_brand
from tests.support.load import Load, tried_again
from tests.support.recount import Features, recount

BRAND = a_brand()
READERS = 8
LOOKS = 3  # a window may move between a reading and its recount
Page = dict[str, Any]


@dataclass
class Experiment:
    """A load on a system whose database is at `dsn`, and what was done to it."""

    load: Load
    dsn: str
    recoveries_s: list[tuple[str, float]] = field(default_factory=list)
    _refused_before: int = 0

    @classmethod
    async def begun(cls, load: Load, dsn: str) -> Experiment:
        """Note where the system stands."""
        return cls(load, dsn, _refused_before=await value(dsn, _REFUSED))

    async def recovery(self, what: str) -> float:
        """After a fault: wait until every client is answered again, and note how long it took."""
        self.recoveries_s.append((what, await self.load.recovery()))
        return self.recoveries_s[-1][1]

    async def answered(self, what: str) -> None:
        """As recovery, where no client is running: send until there is an answer."""
        began = asyncio.get_running_loop().time()
        await self.load.send(1)
        self.recoveries_s.append((what, asyncio.get_running_loop().time() - began))

    async def refused(self) -> int:
        """How many writes of former owners were refused since it began."""
        return await value(self.dsn, _REFUSED) - self._refused_before

    async def balance(self, also: Sequence[Sent] = ()) -> Balance:
        """Draw the balance, once nothing is under way; `also` was acknowledged to others."""
        history = self.load.history
        events = [*history.acknowledged.values(), *also]
        stored, players = await _stored(self.dsn, "" if also else f"{self.load.mix.name}-")
        pages = await _pages(self.load.client, players | {event.player_id for event in events})
        return Balance(
            acknowledged=frozenset(event.event_id for event in events),
            stored=stored,
            sent=totals_of(events),
            live={player: _totals(page) for player, page in pages.items()},
            differences=await _differences(self.load.client, self.dsn, pages),
            unknown=frozenset(history.unknown - history.acknowledged.keys()),
            attempted=history.attempted + len(also),
            errors=history.answers.total() - history.answers["200"],
            stale_reads=self.load.stale_reads,
            stale_refusals=await self.refused(),
            recoveries_s=self.recoveries_s,
        )


_REFUSED = "SELECT sum(stale_refusals)::bigint FROM virtual_shards"
_STORED = """
SELECT player_id, event_id FROM user_transactions WHERE starts_with(player_id, $1) UNION ALL
SELECT player_id, event_id FROM user_sessions WHERE starts_with(player_id, $1)
"""


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection for the length of a block; it may be cut in there."""
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        yield connection
    finally:
        connection.terminate()


async def value(dsn: str, sql: str) -> int:
    """The one number that a query answers."""
    async with connected(dsn) as connection:
        return int(await connection.fetchval(sql))


async def _stored(dsn: str, name: str) -> tuple[Counter[str], set[str]]:
    """How often each event of players whose id begins so is stored, and these players."""
    async with connected(dsn) as connection:
        rows = await connection.fetch(_STORED, name)
    return Counter(row["event_id"] for row in rows), {row["player_id"] for row in rows}


async def _pages(client: httpx.AsyncClient, players: Iterable[str]) -> dict[str, Page]:
    """What the door says of each player; nothing of those it does not know."""
    places = asyncio.Semaphore(READERS)

    async def page(player: str) -> tuple[str, Page]:
        async with places:
            url = f"/v1/players/{player}/features?brand={BRAND.id}"
            answer = await tried_again(lambda: client.get(url))
        return player, answer.json() if answer.status_code == httpx.codes.OK else {}

    found = await asyncio.gather(*[page(player) for player in sorted(players)])
    return {player: told for player, told in found if told}


def _totals(page: Page) -> Totals:
    values = page["features"]
    return Counter({
        name: int(Decimal(values[f"{name}_lifetime"]) * (100 if name.endswith("amount") else 1))
        for name in MEASURES
    })  # fmt: skip


async def _differences(client: httpx.AsyncClient, dsn: str, pages: dict[str, Page]) -> list[str]:
    """Every feature of every page that SQL counts otherwise; a page that differs is read again."""
    lines: list[str] = []
    for _ in range(LOOKS):
        if not pages:
            return []
        as_of = max(datetime.fromisoformat(page["as_of"]) for page in pages.values())
        again = await recount(dsn, BRAND, as_of)
        wrong = {player: _unlike(pages[player], again) for player in pages}
        lines = [line for found in wrong.values() for line in found]
        pages = await _pages(client, [player for player, found in wrong.items() if found])
    return lines


def _unlike(page: Page, again: Features) -> list[str]:
    raw = again.get(page["player_id"], {})
    expected = for_reading(BRAND, {name: raw.get(name) for name in FEATURES})
    return [
        f"{page['player_id']}.{name}: {page['features'][name]}, not {value}"
        for name, value in expected.items()
        if page["features"][name] != value
    ]


async def what_is_found(experiment: Callable[[], Awaitable[Balance]]) -> list[str]:
    """The faults of an experiment; that it got stuck, or a check on the way, is one of them."""
    try:
        return (await experiment()).faults()
    except (AssertionError, CrmError) as stuck:
        return [str(stuck)]
    except BaseExceptionGroup as stuck:
        return [str(error) for error in _leaves(stuck)]


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
