"""A segment's preview over HTTP, beside DuckDB and PostgreSQL, and how it grows with players.

    .venv/bin/python bench/segments.py [--quick]

Ours counts what is live, at the moment of the question, and says what each term matches and
removes. The references count over a table that somebody has made ready of the same players'
features, behind a route of the same kind. Each request states another rule of six conditions, as
somebody does who types. Counts, matches and removals of the three are held against each other.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench.count_peers import commands, running
from bench.environments import version_of
from bench.filled import a_filled_service
from bench.frame import Row, Size, at_most, main
from bench.load import Server, Times, send_all, send_at
from bench.memory import DAY_US
from bench.players import BRAND, posts, some_events
from crm.domain.times import to_us
from tests.support.instance import Instance

PLAYERS = 1_000_000
SMALLEST = 100_000
MOST_PLAYERS = 4_000_000  # more would take longer to fill than everything else together
BYTES_A_PLAYER = 4_500  # what filling a table takes at its peak, at most
CHECKED = 40  # rules whose counts are compared
ASKED, WARM_UP = 400, 30  # of a reference half as many
CONNECTIONS = 4
EVENTS_A_S, A_REQUEST = 2_000, 100
P95_MS = 30
PREVIEW = "/v1/segments/preview"


@dataclass(frozen=True)
class Asked:
    """The literals of six conditions; money in minor units."""

    deposits: int
    days: int
    bets: int
    stakes: int
    ggr: int
    sessions: int

    @property
    def rule(self) -> str:
        """As somebody writes it."""
        return (
            f"deposit_amount_30d >= {self.deposits / 100} and days_since_last_bet > {self.days}"
            f" and bet_count_90d >= {self.bets} and stake_amount_lifetime > {self.stakes / 100}"
            f" and ggr_amount_30d > {self.ggr / 100} and session_count_7d < {self.sessions}"
        )

    def literals(self, as_of_us: int) -> list[int]:
        """As SQL takes them: no bet in so many whole days is a time of the last one."""
        last = as_of_us - (self.days + 1) * DAY_US
        return [self.deposits, last, self.bets, self.stakes, self.ggr, self.sessions]


def some_rules(count: int, seed: int) -> list[Asked]:
    """Rules of which hardly any comes twice."""
    chance = random.Random(seed)
    return [
        Asked(
            chance.randrange(40_000), chance.randrange(20), chance.randrange(1, 30),
            chance.randrange(100_000), chance.randrange(-20_000, 20_000), chance.randrange(1, 9),
        )
        for _ in range(count)
    ]  # fmt: skip


def measure(size: Size) -> Iterator[Row]:
    """Measure beside the references, then the curve."""
    smallest, usual, largest = (
        (2_000, 4_000, 6_000) if size == "quick" else (SMALLEST, PLAYERS, _largest())
    )
    asked = 10 if size == "quick" else ASKED
    with a_filled_service(usual) as (instance, server):
        beside = list(_beside_references(instance, server, usual, asked))
    yield from beside
    p95s = {usual: beside[0].figure}
    for players in (smallest, usual, largest):
        if players not in p95s:
            with a_filled_service(players) as (_, server):
                p95s[players] = asyncio.run(_typed(server, asked)).percentile_ms(0.95)
        yield Row(f"{players:,} players: p95", p95s[players], "ms", f"{smallest:,} players",
                  p95s[smallest])  # fmt: skip


def _largest() -> int:
    """Return how many players fit, in round numbers."""
    fit = psutil.virtual_memory().available // BYTES_A_PLAYER
    return min(fit, MOST_PLAYERS) // 100_000 * 100_000


def _beside_references(
    instance: Instance, server: Server, players: int, asked: int
) -> Iterator[Row]:
    what = f"{players:,} players, six conditions"
    alone = asyncio.run(_typed(server, asked))
    many = asyncio.run(_typed(server, asked, CONNECTIONS))
    found = asyncio.run(_answers(server, players))  # before any event comes in
    with tempfile.TemporaryDirectory(prefix="crm-segments-") as folder:
        peers = {}
        for name, command in commands(instance, Path(folder)).items():
            with running(command) as peer:
                wrong = asyncio.run(_differing(peer, found))
                at_us = _moment(found[-1][1])
                of_peer = [asyncio.run(_counted(peer, asked // 2, at_us, t)) for t in (False, True)]
            peers[name] = (wrong, *of_peer)
    busy = asyncio.run(_while_events_come(server, players, asked))
    for name, (wrong, counts, terms) in peers.items():
        yield Row(f"{what}: p95", alone.percentile_ms(0.95), "ms", f"{name}, the count alone",
                  counts.percentile_ms(0.95), (at_most(P95_MS),),
                  f"{_median(alone)}; {name} {_median(counts)}")  # fmt: skip
        yield Row(f"{what}: p95", alone.percentile_ms(0.95), "ms", f"{name}, with the terms",
                  terms.percentile_ms(0.95), note=f"{name} {_median(terms)}")  # fmt: skip
        yield Row(f"{what}: answers that differ from {name}'s, of {len(found)}", wrong, "answers",
                  targets=(at_most(0),), note="counts, matches and removals")  # fmt: skip
    yield Row(f"{what}, {CONNECTIONS} connections: p95", many.percentile_ms(0.95), "ms",
              note=f"{_median(many)}; {many.rate:.0f} req/s")  # fmt: skip
    yield Row(f"{what}, while {EVENTS_A_S:,} events/s come in: p95", busy.percentile_ms(0.95), "ms",
              note=_median(busy))  # fmt: skip


def _median(times: Times) -> str:
    errors = f", {times.errors} errors" if times.errors else ""
    return f"p50 {times.percentile_ms(0.5):.1f} ms{errors}"


# --- asking ---------------------------------------------------------------------------------------


async def _typed(server: Server, count: int, connections: int = 1) -> Times:
    """Send rules one after the other, none of them known to anybody."""
    await send_all(server, _previews(server, WARM_UP), connections)
    return await send_all(server, _previews(server, count), connections)


def _previews(server: Server, count: int) -> list[bytes]:
    rules = some_rules(count, random.randrange(2**32))
    bodies = [json.dumps({"brand": BRAND, "rule": rule.rule}).encode() for rule in rules]
    return [server.post(PREVIEW, body) for body in bodies]


async def _while_events_come(server: Server, players: int, count: int) -> Times:
    events = some_events(EVENTS_A_S * 30, players)
    requests = posts(server, events, A_REQUEST)
    coming = asyncio.create_task(send_at(server, requests, EVENTS_A_S / A_REQUEST, 8))
    found = await _typed(server, count)
    coming.cancel()
    return found


async def _answers(server: Server, players: int) -> list[tuple[Asked, dict[str, Any]]]:
    """Return some rules, and what is said of them; raises SystemExit if it is not all players."""
    headers = {"Authorization": f"Bearer {server.key}"}
    url, found = f"http://127.0.0.1:{server.port}", []
    async with httpx.AsyncClient(base_url=url, headers=headers) as client:
        for asked in some_rules(min(CHECKED, players), 1):
            said = await client.post(PREVIEW, json={"brand": BRAND, "rule": asked.rule})
            answer = said.raise_for_status().json()
            if answer["breakdown"]["players"] != players:
                raise SystemExit(f"not all players are there: {answer['breakdown']}")
            found.append((asked, answer))
    return found


# --- the references -------------------------------------------------------------------------------


def _moment(answer: dict[str, Any]) -> int:
    return to_us(datetime.fromisoformat(answer["as_of"]))


async def _counted(peer: Server, count: int, at_us: int, terms: bool) -> Times:
    def requests(number: int) -> list[bytes]:
        rules = some_rules(number, random.randrange(2**32))
        bodies = [{"literals": rule.literals(at_us), "terms": terms} for rule in rules]
        return [peer.post("/count", json.dumps(body).encode()) for body in bodies]

    await send_all(peer, requests(WARM_UP), 1)
    return await send_all(peer, requests(count), 1)


async def _differing(peer: Server, found: Sequence[tuple[Asked, dict[str, Any]]]) -> int:
    """Return how many of our answers are not the reference's, at the moment of each."""
    differing = 0
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{peer.port}") as client:
        for asked, answer in found:
            said = await client.post(
                "/count", json={"literals": asked.literals(_moment(answer)), "terms": True}
            )
            terms = answer["breakdown"]["terms"]
            ours = [answer["count"], *[t["matches"] for t in terms], *[t["removes"] for t in terms]]
            differing += ours != said.raise_for_status().json()
    return differing


if __name__ == "__main__":
    main(
        "segments", "A segment's preview over HTTP", measure,
        partial(version_of, "duckdb", "duckdb"),
    )  # fmt: skip
