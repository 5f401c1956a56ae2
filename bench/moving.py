"""What moving shards costs: pauses of a moved shard and of the event loop, at 250,000 players.

Two shard owners in one process, over the log's twin and files in memory: PostgreSQL would add a few
round trips to each move. Run as `python bench/moving.py`.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import structlog

sys.path.insert(0, str(Path(__file__).parents[1]))

from crm.adapters.memory import MemoryEventLog, MemoryFiles
from crm.domain.event_columns import KINDS, EventColumns
from crm.domain.events import LoggedEvent
from crm.domain.ports import Claim
from crm.domain.shards import SHARDS, shard_of
from crm.domain.times import to_us
from crm.services.shard_owner import ShardOwner, Stores
from tests.support.builders import a_brand

PLAYERS = 250_000
EVENTS = 1_000_000
CHUNK = 20_000
SLICE = 4  # as actors/supervisor.py
NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
BRAND = a_brand(time_zone="UTC")


class Log(MemoryEventLog):
    """A log whose events are all in the snapshots."""

    async def claim(self, shards: list[int], owner: str) -> dict[int, Claim]:
        """Raise the epochs; one event was written."""
        return {s: Claim(c.epoch, 1) for s, c in (await super().claim(shards, owner)).items()}

    async def read_after(
        self, after: Mapping[int, int]
    ) -> AsyncIterator[list[tuple[int, LoggedEvent]]]:
        """Yield the one event of a shard without a snapshot: nothing that counts."""
        for _ in after:
            yield []


class Times:
    """Milliseconds by what took them: on the clock, and of this thread's CPU."""

    def __init__(self) -> None:
        self.of: dict[str, list[tuple[float, float]]] = {}

    @contextmanager
    def measured(self, what: str) -> Iterator[None]:
        """Measure a block."""
        clock, cpu = time.perf_counter(), time.thread_time()
        yield
        took = (time.perf_counter() - clock) * 1000, (time.thread_time() - cpu) * 1000
        self.of.setdefault(what, []).append(took)

    def show(self) -> None:
        """Print a table."""
        print(f"{'milliseconds':46} {'times':>7}   median  longest   of CPU  longest")
        for what, found in self.of.items():
            columns = zip(np.median(found, axis=0), np.max(found, axis=0), strict=True)
            numbers = " ".join(f"{ms:8.1f}" for pair in columns for ms in pair)
            print(f"{what:46} {len(found):7} {numbers}")


def _fill(owner: ShardOwner) -> None:
    rng = np.random.default_rng(1)
    ids = [f"player-{n}" for n in range(PLAYERS)]
    shards = np.array([shard_of(BRAND.id, player) for player in ids])
    now_us = to_us(NOW)
    for _ in range(0, EVENTS, CHUNK):
        players = rng.integers(0, PLAYERS, CHUNK)
        at = now_us - rng.integers(0, 100 * 86_400_000_000, CHUNK)
        amounts = rng.integers(1, 10_000, CHUNK)
        columns = EventColumns(
            (),  # none of them waits for the clock
            [ids[player] for player in players.tolist()], shards[players],
            rng.integers(0, len(KINDS), CHUNK), amounts, amounts % 3_600, at,
            at // 86_400_000_000 + 719_163,
        )  # fmt: skip
        owner._tables.of(BRAND.id).apply(columns)
    owner.heads = dict.fromkeys(range(SHARDS), 1)


@asynccontextmanager
async def _loop_pauses(times: Times, what: str) -> AsyncIterator[None]:
    """Measure how long the event loop does not come round."""

    async def tick() -> None:
        while True:
            with times.measured(what):
                await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    yield
    ticking.cancel()


async def _move(times: Times, giving: ShardOwner, taking: ShardOwner, shards: list[int]) -> None:
    async with _loop_pauses(times, "event loop while shards move"):
        for start in range(0, len(shards), SLICE):
            some = shards[start : start + SLICE]
            for shard in some:
                giving._snapshot_seqs[shard] = 0  # as if it had changed
            with times.measured(f"release of {SLICE} shards, served until the end"):
                await giving.release(some)
            with times.measured(f"pause of a moved shard ({SLICE} at once)"):
                await taking.adopt(some, released=True)


def _each_call(times: Times, owner: ShardOwner) -> None:
    """Measure the parts that block."""

    def measure(what: str, call: Callable[..., object]) -> Callable[..., object]:
        def measured(*args: object) -> object:
            with times.measured(what):
                return call(*args)

        return measured

    tables = owner._tables
    tables.take = measure("merge of one shard", tables.take)
    tables.drop = measure(f"drop of {SLICE} shards", tables.drop)


def _show_size(what: str, owner: ShardOwner) -> None:
    table = owner._tables.of(BRAND.id)
    dead, mib = table.dead_rows, table.nbytes / 2**20
    print(f"giver {what}: {len(table):,} players, {dead:,} dead rows, {mib:.0f} MiB")


async def main() -> None:
    """Fill one owner, move two thirds of its shards to another and some of these back."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    log, files, times = Log(), MemoryFiles(), Times()
    stores = Stores(log, log, log, log, files)
    giving, taking = (ShardOwner(name, {BRAND.id: BRAND}, stores, lambda: NOW) for name in "ab")
    claims = await log.claim(list(range(SHARDS)), giving.name)
    giving.epochs = {shard: claim.epoch for shard, claim in claims.items()}
    with times.measured("filling"):
        _fill(giving)
    _each_call(times, giving)
    shards = list(range(170))
    await _move(times, giving, taking, shards[:SLICE])
    _each_call(times, taking)  # its tables by now
    await _move(times, giving, taking, shards[SLICE:])
    _show_size("after", giving)
    with times.measured("giver: a column of the players left"):
        giving._tables.of(BRAND.id).column("bet_count_30d")
    more = True
    while more:
        with times.measured("tidying: one step"):
            more = giving._tables.tidy()
    _show_size("tidied", giving)
    await _move(times, taking, giving, shards[:80])
    print(f"{platform.machine()}, {PLAYERS:,} players, {EVENTS:,} events")
    times.show()


if __name__ == "__main__":
    asyncio.run(main())
