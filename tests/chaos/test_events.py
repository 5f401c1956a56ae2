"""E16, E18, E19, E22: jumping clocks, deliveries twice and out of order, bad rows, cut commits."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

import httpx
import pytest

from crm.domain.errors import ShardsWarming
from crm.services import shard_owner
from crm.services.shard_owner import ShardOwner
from tests.chaos.conftest import Control, pace_of
from tests.support.balance import Balance
from tests.support.builders import NOON
from tests.support.chaos import Experiment, value
from tests.support.clock import Clock
from tests.support.fault_table import FaultTable
from tests.support.instance import Instance
from tests.support.load import Load, Pace, losing_answers
from tests.support.local_system import a_local_system
from tests.support.mix import Mix
from tests.support.mutants import (
    Mutant,
    no_deduplication,
    no_late_events,
    no_monotone_windows,
    no_order_but_of_arrival,
    no_quarantine,
    no_read_back,
    no_wait_for_the_commit,
    seen_as,
    without_the_key,
)
from tests.support.profile import Profile
from tests.support.proxy import Fault, a_proxy
from tests.support.wait import wait_for_async

BATCH = 500  # events, with one bad row
JUMPS_H = (-1, 2, 24, -25)  # from where the clock is: -1, 1, 25 hours from the true time, and 0


# --- E16: the clock jumps -----------------------------------------------------------------------


async def _e16(dsn: str, rounds: int, pace: Pace) -> Balance:
    """Load, jump, succeed: what an owner and its successor say never goes back in time."""
    clock = Clock(NOON)
    async with a_local_system(dsn, now=clock) as system:
        mix = Mix("e16", clock=clock, late=timedelta(hours=30))
        load = Load(system.client, mix, pace)
        experiment = await Experiment.begun(load, dsn)
        for hours in JUMPS_H * rounds:
            await load.send(2)
            owner = system.shards.owner
            for shard in [shard for shard, head in owner.heads.items() if head]:
                await owner.snapshot(shard)
            clock.move(hours=hours)
            await load.send(2)
            former = await system.succeed()
            await load.send(2)
            await _is_not_believed(former, pace)
        return await experiment.balance()


async def _is_not_believed(former: ShardOwner, pace: Pace) -> None:
    async def refused() -> bool:
        try:
            await former.table("demo")
        except ShardsWarming:
            return True
        return False

    await wait_for_async(refused, "the former owner is silent", deadline_s=pace.patience_s)


async def test_e16_jumping_clocks(database: str, profile: Profile, table: FaultTable) -> None:
    balance = await _e16(database, profile.faults, Pace())
    table.add("E16", "the clock jumps to -1 h, 1 h, 25 h and back", balance)
    assert balance.faults() == []


@seen_as("the former owner is silent")
def no_monotonic_lease(patch: pytest.MonkeyPatch) -> None:
    """A lease runs by the wall clock, which has jumped."""
    whole = ShardOwner.__init__

    def init(self: ShardOwner, *args: Any) -> None:
        whole(self, *args)
        self._verified = self._now().timestamp()
        patch.setattr(shard_owner, "_loop_time", lambda: self._now().timestamp())

    patch.setattr(ShardOwner, "__init__", init)


@pytest.mark.parametrize("mutant", [no_monotone_windows, no_monotonic_lease])
async def test_e16_notices_a_window_or_a_lease_that_follows_the_clock(
    database: str, control: Control, mutant: Mutant
) -> None:
    await control("E16", mutant, lambda: _e16(database, 1, pace_of(mutant)))


# --- E18: delivered twice, answers lost ---------------------------------------------------------


async def _e18(client: httpx.AsyncClient, dsn: str, requests: int, pace: Pace) -> Balance:
    load = Load(client, Mix("e18"), replace(pace, repeated=0.3, pause_s=0))
    experiment = await Experiment.begun(load, dsn)
    async with losing_answers(client, Random(18), 0.1), load.running():
        await load.progress(requests)
    assert load.history.answers["ReadError"] > 0
    return await experiment.balance()


async def test_e18_every_third_request_twice_and_answers_lost(
    instance: Instance, profile: Profile, table: FaultTable
) -> None:
    async with instance.client() as client:
        balance = await _e18(client, instance.state()["postgres"], profile.requests * 5, Pace())
    table.add("E18", "30 % delivered twice, 10 % of answers lost", balance)
    assert balance.faults() == []


@pytest.mark.parametrize("mutant", [None, no_deduplication])
async def test_e18_notices_that_duplicates_are_stored(
    database: str, control: Control, mutant: Mutant | None
) -> None:
    async def run() -> Balance:
        async with a_local_system(database) as system:
            return await _e18(system.client, database, 40, pace_of(mutant))

    if mutant is not None:
        await without_the_key(database)
    await control("E18", mutant, run)


# --- E19: out of order, and late ----------------------------------------------------------------


async def _e19(client: httpx.AsyncClient, dsn: str, windows: int) -> Balance:
    """Two days of events in their order, shuffled within windows of a thousand."""
    mix = Mix("e19", late=timedelta(hours=48))
    load = Load(client, mix, Pace(size=200))
    experiment = await Experiment.begun(load, dsn)
    events = sorted(mix.batch(1_000 * windows), key=lambda event: str(event["occurred_at"]))
    for start in range(0, len(events), 1_000):
        window = events[start : start + 1_000]
        mix.rng.shuffle(window)
        for place in range(0, len(window), load.pace.size):
            await load.deliver(window[place : place + load.pace.size])
    return await experiment.balance()


async def test_e19_out_of_order_and_two_days_late(
    instance: Instance, profile: Profile, table: FaultTable
) -> None:
    async with instance.client() as client:
        balance = await _e19(client, instance.state()["postgres"], profile.requests // 5)
    table.add("E19", "shuffled in windows of 1,000, up to 48 h late", balance)
    assert balance.faults() == []


@pytest.mark.parametrize("mutant", [None, no_late_events, no_order_but_of_arrival])
async def test_e19_notices_that_late_events_or_their_order_are_lost(
    database: str, control: Control, mutant: Mutant | None
) -> None:
    async def run() -> Balance:
        async with a_local_system(database) as system:
            return await _e19(system.client, database, 2)

    await control("E19", mutant, run)


# --- E22: one bad row, and commits that are cut -------------------------------------------------


async def _e22_bad_row(client: httpx.AsyncClient, dsn: str, batches: int) -> Balance:
    """Of 500 events one is refused, by its place; the others are stored; again changes nothing."""
    load = Load(client, Mix("e22"))
    experiment = await Experiment.begun(load, dsn)
    for number in range(batches):
        events = load.mix.batch(BATCH)
        bad = load.mix.rng.randrange(BATCH)
        events[bad] = events[bad] | {"amount": "-1", "type": "bet.placed", "currency": "EUR"}
        good = [*events[:bad], *events[bad + 1 :]]
        for accepted in (BATCH - 1, 0):
            load.history.invoke(0, good)
            answer = await client.post("/v1/events", json={"events": events})
            told = answer.json()
            assert (told["accepted"], told["duplicates"]) == (accepted, BATCH - 1 - accepted)
            (refusal,) = told["rejected"]
            assert (refusal["index"], refusal["code"]) == (bad, "invalid_amount")
            assert refusal["event_id"] == events[bad]["event_id"]
            load.history.ok(0, good)
        assert await value(dsn, _QUARANTINED) == number + 1, (
            "the quarantine holds each refused row once"
        )
    return await experiment.balance()


_QUARANTINED = "SELECT count(*) FROM quarantine"


async def test_e22_one_bad_row_of_five_hundred(
    instance: Instance, profile: Profile, table: FaultTable
) -> None:
    async with instance.client() as client:
        dsn = instance.state()["postgres"]
        balance = await _e22_bad_row(client, dsn, profile.requests // 5)
    table.add("E22", "one bad row of 500, all sent twice", balance)
    assert balance.faults() == []


@pytest.mark.parametrize("mutant", [None, no_quarantine])
async def test_e22_notices_that_a_refused_row_is_not_kept(
    database: str, control: Control, mutant: Mutant | None
) -> None:
    async def run() -> Balance:
        async with a_local_system(database) as system:
            return await _e22_bad_row(system.client, database, 2)

    await control("E22", mutant, run)


async def _e22_cut_commits(dsn: str, requests: int, pace: Pace) -> Balance:
    """Commits in the middle of batches never arrive, or their answers never do."""
    rng = Random(22)
    kinds: list[Fault] = ["none", "before", "after"]
    async with a_proxy(dsn) as proxy, a_local_system(dsn, log_dsn=proxy.dsn) as system:
        load = Load(system.client, Mix("e22"), replace(pace, size=100))
        experiment = await Experiment.begun(load, dsn)
        await load.send(1)
        for _ in range(requests):
            proxy.faults = rng.choices(kinds, k=2)
            await load.send(1)
        proxy.faults = []
        await load.send(1)
        return await experiment.balance()


async def test_e22_commits_cut_in_mid_batch(
    database: str, profile: Profile, table: FaultTable
) -> None:
    balance = await _e22_cut_commits(database, profile.requests, Pace())
    table.add("E22", "the connection is cut before or after a COMMIT", balance)
    assert balance.faults() == []


@pytest.mark.parametrize("mutant", [no_read_back, no_wait_for_the_commit])
async def test_e22_notices_that_a_cut_commit_is_not_looked_after(
    database: str, control: Control, mutant: Mutant
) -> None:
    await control("E22", mutant, lambda: _e22_cut_commits(database, 10, pace_of(mutant)))
