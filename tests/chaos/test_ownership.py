"""E1, E2, E5, E6: owners, replicas and the front are killed, stopped, cut off from callers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random

import httpx
import psutil
import pytest

from crm.domain.errors import ShardsWarming
from tests.chaos.conftest import Control, pace_of
from tests.support.balance import Balance
from tests.support.builders import a_logged_event
from tests.support.chaos import Experiment, value
from tests.support.fault_table import FaultTable
from tests.support.instance import Instance
from tests.support.load import LONG_S, History, Load, losing_answers
from tests.support.local_system import a_local_system
from tests.support.mix import Mix
from tests.support.mutants import (
    Mutant,
    no_deduplication,
    no_epoch_check,
    no_lease,
    no_replay,
    without_the_key,
)
from tests.support.ports import free_port
from tests.support.profile import Profile
from tests.support.wait import wait_for_async


@asynccontextmanager
async def _begun(
    instance: Instance, name: str, history: Path, url: str = ""
) -> AsyncIterator[Experiment]:
    async with instance.client(url) as client:
        load = Load(client, Mix(name), history=History(history))
        yield await Experiment.begun(load, instance.state()["postgres"])


async def _killed(
    experiment: Experiment, what: str, pids: Callable[[], list[int]], times: int, between: int
) -> None:
    """Kill one of the processes at a time; wait after each until every client is answered."""
    rng = Random(what)
    for _ in range(times):
        os.kill(rng.choice(await _found(what, pids)), signal.SIGKILL)
        await experiment.recovery(what)
        await experiment.load.progress(between)


async def _found(what: str, pids: Callable[[], list[int]]) -> list[int]:
    async def some() -> list[int]:
        return pids()

    return await wait_for_async(some, f"there is an {what}", deadline_s=LONG_S)


async def test_e1_killed_owners(
    instance: Instance, history_file: Path, profile: Profile, table: FaultTable
) -> None:
    async with _begun(instance, "e1", history_file) as experiment:
        async with experiment.load.running():
            await _killed(experiment, "owner", instance.owner_pids, profile.kills, profile.between)
        balance = await experiment.balance()
    table.add("E1", f"kill -9 of an owner, {profile.kills} times", balance)
    assert balance.faults() == []


async def test_e2_killed_replicas_and_front(
    instance: Instance, history_file: Path, profile: Profile, table: FaultTable
) -> None:
    async with _begun(instance, "e2", history_file) as experiment:
        async with experiment.load.running():
            for what, pids in (
                ("replica", lambda: instance.pids("ray::ServeReplica")),
                ("front", instance.front_pids),
            ):
                await _killed(experiment, what, pids, profile.faults, profile.between)
        balance = await experiment.balance()
    table.add("E2", f"kill -9 of replica and HAProxy, {profile.faults} times each", balance)
    assert balance.faults() == []


async def test_e5_a_stopped_owner_wakes_up_after_its_successors_claim(
    instance: Instance, history_file: Path, profile: Profile, table: FaultTable
) -> None:
    async with _begun(instance, "e5", history_file) as experiment:
        async with experiment.load.running():
            for number in range(profile.faults):
                owners = await _found("owner", instance.owner_pids)
                former = psutil.Process(Random(number).choice(owners))
                before = await value(experiment.dsn, _EPOCHS)
                former.suspend()
                try:
                    await wait_for_async(
                        partial(_claimed, experiment.dsn, before), "a successor claims",
                        deadline_s=LONG_S,
                    )  # fmt: skip
                finally:
                    former.resume()  # with the writes that hung at it, before anybody has them
                await experiment.recovery("stopped owner")
                await asyncio.to_thread(former.wait, LONG_S)  # it leaves by itself
                await experiment.load.progress(profile.between)
        balance = await experiment.balance()
    table.add("E5", f"SIGSTOP of an owner, SIGCONT, {profile.faults} times", balance)
    assert balance.stale_refusals > 0
    assert balance.faults() == []


_EPOCHS = "SELECT sum(epoch)::bigint FROM virtual_shards"


async def _claimed(dsn: str, before: int) -> bool:
    return await value(dsn, _EPOCHS) > before


async def test_e6_lost_answers_of_owners(
    instance: Instance, history_file: Path, profile: Profile, table: FaultTable
) -> None:
    async with (
        _a_door_that_loses_answers(instance) as url,
        _begun(instance, "e6", history_file, url) as experiment,
    ):
        async with experiment.load.running():
            await experiment.load.progress(profile.between)
        balance = await experiment.balance()
    table.add("E6", "3 % of calls to owners lost, 15 % of answers", balance)
    assert experiment.load.history.repeats > 0  # an answer was lost, and its events came twice
    assert balance.faults() == []


_LOST = {
    "CoreWorkerService.grpc_client.PushTask": {
        "num_failures": -1, "req_failure_prob": 3, "resp_failure_prob": 12,
        "in_flight_failure_prob": 3,
    }
}  # fmt: skip


@asynccontextmanager
async def _a_door_that_loses_answers(instance: Instance) -> AsyncIterator[str]:
    url = f"http://127.0.0.1:{free_port()}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.second_door", url.rpartition(":")[2],
        env=instance.environment(RAY_testing_rpc_failure=json.dumps(_LOST)),
    )  # fmt: skip

    async def answers() -> bool:
        assert process.returncode is None, "the second door has ended"
        try:
            async with httpx.AsyncClient() as client:
                return (await client.get(f"{url}/healthz")).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    try:
        await wait_for_async(answers, "the second door answers", deadline_s=LONG_S)
        yield url
    finally:
        process.kill()
        await process.wait()


# --- controls: the same checks, in one process, with the mechanism off --------------------------


@pytest.mark.parametrize("mutant", [None, no_replay])
async def test_e1_notices_a_successor_that_does_not_replay(
    database: str, control: Control, mutant: Mutant | None
) -> None:
    async def run() -> Balance:
        async with a_local_system(database) as system:
            load = Load(system.client, Mix("c1"), pace_of(mutant))
            experiment = await Experiment.begun(load, database)
            await load.send(5)
            await system.succeed()
            await load.send(5)
            return await experiment.balance()

    await control("E1", mutant, run)


@pytest.mark.parametrize("experiment", ["E2", "E6"])
@pytest.mark.parametrize("mutant", [None, no_deduplication])
async def test_e2_and_e6_notice_that_what_is_sent_again_is_stored_again(
    database: str, control: Control, mutant: Mutant | None, experiment: str
) -> None:
    async def run() -> Balance:
        async with a_local_system(database) as system:
            load = Load(system.client, Mix("c2"), pace_of(mutant))
            begun = await Experiment.begun(load, database)
            async with losing_answers(system.client, Random(2), 0.3):
                await load.send(10)
            assert load.history.answers["ReadError"] > 0
            return await begun.balance()

    if mutant is not None:
        await without_the_key(database)
    await control(experiment, mutant, run)


@pytest.mark.parametrize("mutant", [None, no_epoch_check])
async def test_e5_notices_a_stale_writer(
    database: str, control: Control, mutant: Mutant | None
) -> None:
    late = a_logged_event(event_id="c5-late", player_id="c5-p1")

    async def run() -> Balance:
        async with a_local_system(database) as system:
            load = Load(system.client, Mix("c5"), pace_of(mutant))
            experiment = await Experiment.begun(load, database)
            await load.send(3)
            former = await system.succeed()
            await load.send(3)
            verdicts = None
            with suppress(ShardsWarming):  # it may notice afterwards that it is not alone
                verdicts = await former.append([[late]])
            written = await value(
                database, "SELECT count(*) FROM event_ids WHERE event_id = 'c5-late'"
            )
            assert not written, "a former owner has written"
            assert verdicts == [["moved"]]
            assert await experiment.refused() > 0
            return await experiment.balance()

    await control("E5", mutant, run)


@pytest.mark.parametrize("mutant", [None, no_lease])
async def test_e5_notices_a_stale_answer(
    database: str, control: Control, mutant: Mutant | None
) -> None:
    async def run() -> Balance:
        async with a_local_system(database) as system:
            load = Load(system.client, Mix("c5", players=1), pace_of(mutant))
            experiment = await Experiment.begun(load, database)
            await load.send(3)
            former = await system.succeed()
            await load.send(3)
            successor, system.shards.owner = system.shards.owner, former
            await load.read("c5-p0")
            system.shards.owner = successor
            return await experiment.balance()

    await control("E5", mutant, run)
