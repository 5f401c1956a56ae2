"""E7, E12, E14: PostgreSQL is killed, has no disk left, has no connection left."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random

import asyncpg
import pytest

from tests.chaos.conftest import Control, Shared, pace_of
from tests.support import postgres
from tests.support.balance import Balance
from tests.support.chaos import Experiment, connected
from tests.support.fault_table import FaultTable
from tests.support.instance import Instance
from tests.support.load import LONG_S, History, Load
from tests.support.local_system import a_local_system
from tests.support.mix import Mix
from tests.support.mutants import (
    Mutant,
    no_look_at_errors,
    no_name_for_full_servers,
    no_synchronous_commit,
)
from tests.support.postgres import DURABLE, Server, a_server
from tests.support.processes import kill_family
from tests.support.profile import Profile
from tests.support.small_disk import SmallDisk, a_small_disk
from tests.support.wait import wait_for_async

TRIES = 5


@asynccontextmanager
async def _begun(instance: Instance, name: str, history: Path) -> AsyncIterator[Experiment]:
    async with instance.client() as client:
        load = Load(client, Mix(name), history=History(history))
        yield await Experiment.begun(load, instance.state()["postgres"])


# --- E7: a backend, then all of PostgreSQL ------------------------------------------------------


async def test_e7_killed_backends_and_postmasters(
    instance: Instance, history_file: Path, profile: Profile, table: FaultTable
) -> None:
    async with _begun(instance, "e7", history_file) as experiment:
        async with experiment.load.running():
            for number in range(2 * profile.faults):
                # PostgreSQL ends every other session when one is killed, and recovers
                os.kill(await _backend(experiment.dsn, Random(number)), signal.SIGKILL)
                await experiment.recovery("backend")
                await experiment.load.progress(profile.between)
            for number in range(2 * profile.faults):
                (postmaster,) = instance.postmaster_pids()
                if number % 2:
                    await asyncio.to_thread(kill_family, postmaster)
                else:
                    os.kill(postmaster, signal.SIGKILL)  # its children end by themselves
                await experiment.recovery("postmaster")
                await experiment.load.progress(profile.between)
        balance = await experiment.balance()
    table.add("E7", f"kill -9 of backend and postmaster, {2 * profile.faults} times each", balance)
    assert balance.faults() == []


async def _backend(dsn: str, rng: Random) -> int:
    async with connected(dsn) as connection:
        return int(rng.choice(await connection.fetch(_BACKENDS))["pid"])


_BACKENDS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'crm-owner' ORDER BY pid"


@pytest.mark.parametrize("mutant", [None, no_synchronous_commit])
async def test_e7_notices_that_a_commit_is_not_waited_for(
    durable: Server, database: str, control: Control, mutant: Mutant | None
) -> None:
    async def run() -> Balance:
        history = History()
        async with a_local_system(database) as system:
            load = Load(system.client, Mix("e7"), history=history)
            sending = asyncio.create_task(load.send(1_000))

            async def some() -> bool:
                return history.answers["200"] >= 20

            await wait_for_async(some, "requests are acknowledged")
            await asyncio.to_thread(durable.kill)
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending
        durable.launch()
        await asyncio.to_thread(durable.wait_for_answers)
        async with a_local_system(database) as system:
            load = Load(system.client, Mix("e7"), history=history)
            return await (await Experiment.begun(load, database)).balance()

    await control("E7", mutant, run)


# --- E12: no disk left --------------------------------------------------------------------------


async def _e12(
    experiment: Experiment, disk: SmallDisk, what: str, then: Callable[[], Awaitable[None]]
) -> None:
    """Fill the disk and do `then`: all that comes must be refused until there is room."""
    load = experiment.load
    # no page has room for such events: each takes new blocks
    large = Mix(f"{load.mix.name}-full-{len(experiment.recoveries_s)}", padding=12_000)
    batches = [large.batch(20) for _ in range(TRIES)]
    await load.send(3)
    before = load.history.answers.copy()
    disk.fill()
    try:
        await then()
        for batch in batches:
            await load.post(batch)
    finally:
        disk.free()
    told = load.history.answers - before
    assert told.keys() == {"503"}, f"while the disk was full: {dict(told)}"
    await experiment.answered(what)
    for batch in batches:
        await load.deliver(batch)
    await load.send(3)


async def _nothing() -> None:
    pass


async def _no_file_to_log_to(instance: Instance) -> None:
    """Make PostgreSQL ask for new files to log to: it ends, and cannot be started again."""
    before = len(instance.logged("embedded_part_away"))
    async with connected(instance.state()["postgres"]) as connection:

        async def refused() -> bool:
            try:
                await connection.execute(_NEXT_FILE)  # some have been made ahead
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                return True
            return False

        await wait_for_async(refused, "PostgreSQL has no file to log to", every_s=0)

    async def tried_in_vain() -> bool:
        return len(instance.logged("embedded_part_away")) > before

    await wait_for_async(tried_in_vain, "the service has tried to start it", deadline_s=LONG_S)


_NEXT_FILE = "SELECT pg_logical_emit_message(true, '', ''), pg_switch_wal()"


async def test_e12_a_full_disk(
    shared: Shared, history_file: Path, profile: Profile, table: FaultTable
) -> None:
    if shared.disk is None:
        pytest.skip("only root can have a disk of its own")
    no_log = partial(_no_file_to_log_to, shared.instance)
    async with _begun(shared.instance, "e12", history_file) as experiment:
        for _ in range(profile.faults):
            await _e12(experiment, shared.disk, "full disk", _nothing)
            await _e12(experiment, shared.disk, "full WAL", no_log)
        balance = await experiment.balance()
    table.add("E12", f"disk of data and of WAL full, {profile.faults} times each", balance)
    assert balance.faults() == []


@pytest.fixture(scope="module")
def cramped() -> Iterator[tuple[Server, SmallDisk]]:
    """A server whose disk can be full."""
    with tempfile.TemporaryDirectory(prefix="crm-disk-", ignore_cleanup_errors=True) as folder:
        try:
            with a_small_disk(Path(folder) / "disk") as disk:
                Path(folder).chmod(0o711)  # the database's user passes through
                with a_server(DURABLE, disk.path / "data") as server:
                    yield server, disk
        except PermissionError:
            pytest.skip("only root can have a disk of its own")


@pytest.mark.parametrize("mutant", [None, no_look_at_errors, no_name_for_full_servers])
async def test_e12_notices_that_a_full_disk_is_not_looked_at_or_not_named(
    cramped: tuple[Server, SmallDisk], control: Control, mutant: Mutant | None
) -> None:
    server, disk = cramped
    dsn = await asyncio.to_thread(_a_database, server.dsn)

    async def run() -> Balance:
        async with a_local_system(dsn) as system:
            load = Load(system.client, Mix("e12"), pace_of(mutant))
            experiment = await Experiment.begun(load, dsn)
            await _e12(experiment, disk, "full disk", _nothing)
            return await experiment.balance()

    await control("E12", mutant, run)


def _a_database(dsn: str) -> str:
    return postgres.with_database(dsn, postgres.make_template(dsn))


# --- E14: no connection left --------------------------------------------------------------------


@asynccontextmanager
async def _no_connection_left(dsn: str) -> AsyncIterator[None]:
    """Hold every connection that the server has, those of the system too, for a block."""
    first = await asyncpg.connect(dsn)
    held = [first]
    try:

        async def all_held() -> bool:
            with suppress(asyncpg.exceptions.TooManyConnectionsError):
                while True:
                    held.append(await asyncpg.connect(dsn, timeout=5))
            return not await first.fetchval(_END_OURS)

        await wait_for_async(all_held, "every connection is held", every_s=0)
        yield
    finally:
        for connection in held:
            connection.terminate()


_END_OURS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE application_name IN ('crm-owner', 'crm-api')
"""


async def _e14(experiment: Experiment) -> None:
    load = experiment.load
    batches = [load.mix.batch(20) for _ in range(TRIES)]
    await load.send(3)
    before = load.history.answers.copy()
    async with _no_connection_left(experiment.dsn):
        for batch in batches:
            await load.post(batch)
    told = load.history.answers - before
    assert told.keys() == {"503"}, f"without a connection: {dict(told)}"
    await experiment.answered("no connection")
    for batch in batches:
        await load.deliver(batch)
    await load.send(3)


async def test_e14_no_connection_left(
    instance: Instance, history_file: Path, profile: Profile, table: FaultTable
) -> None:
    async with _begun(instance, "e14", history_file) as experiment:
        for _ in range(profile.faults):
            await _e14(experiment)
        balance = await experiment.balance()
    table.add("E14", f"all connections of PostgreSQL taken, {profile.faults} times", balance)
    assert balance.faults() == []


@pytest.mark.parametrize("mutant", [None, no_name_for_full_servers])
async def test_e14_notices_that_a_lack_of_connections_is_not_named(
    database: str, control: Control, mutant: Mutant | None
) -> None:
    async def run() -> Balance:
        async with a_local_system(database) as system:
            load = Load(system.client, Mix("e14"), pace_of(mutant))
            experiment = await Experiment.begun(load, database)
            await _e14(experiment)
            return await experiment.balance()

    await control("E14", mutant, run)
