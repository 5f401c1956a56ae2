"""Shards move between owners on Ray and PostgreSQL while events flow; some owners are killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest
import ray

from actors import supervisor
from actors.gateway import ShardGateway
from actors.owners import Routes
from actors.processes import NAMESPACE
from actors.supervisor import NAME, Progress, Resized
from crm.adapters import clock
from crm.adapters.postgres.events import PostgresEventLog
from crm.domain.errors import ResizeRefused, ShardsWarming
from crm.domain.shards import SHARDS
from tests.support.ray_shards import LONG_S, Sender, a_gateway, a_spec, faults, running_shards
from tests.support.wait import wait_for_async

pytestmark = pytest.mark.one_server

PLAYERS = 80  # each with an event on its way at any time


@pytest.fixture
def shards(ray_cluster: None, dsn: str, tmp_path: Path) -> Iterator[str]:
    """One owner of all virtual shards over an empty database: yields its DSN."""
    with running_shards(a_spec(dsn, tmp_path, owners=1)):
        yield dsn


class Resizing:
    """A resize that runs beside the test, as `crm shards resize` runs it."""

    def __init__(self, owners: int) -> None:
        self._progress = Progress(0, 0)
        self.done = asyncio.ensure_future(asyncio.to_thread(supervisor.resize, owners, self._note))

    def _note(self, progress: Progress) -> None:
        self._progress = progress

    async def begun(self) -> None:
        """Wait until some shards have moved, and others have not."""

        async def moved() -> bool:
            assert not self.done.done(), "all have moved before the test looked"
            return 0 < self._progress.moved < self._progress.to_move

        await wait_for_async(moved, "shards have moved", deadline_s=LONG_S)


async def _resized(owners: int) -> Resized:
    return await Resizing(owners).done


async def _sizes(gateway: ShardGateway) -> list[int]:
    """How many shards each owner owns, by its own word, once all are owned."""

    async def routes() -> Routes | None:
        with suppress(ShardsWarming):
            found = await gateway.routes()
            owned = [s for slot in found.slots.values() for s in slot.state.epochs]
            return found if sorted(owned) == list(range(SHARDS)) else None
        return None

    found = await wait_for_async(routes, "every shard has its one owner", deadline_s=LONG_S)
    assert found is not None
    return sorted(len(slot.state.epochs) for slot in found.slots.values())


async def _balance(gateway: ShardGateway, dsn: str, sender: Sender) -> None:
    """Print what became of the events: none is lost or counts twice, all is as recounted."""
    found = await faults(gateway, dsn, sender.acknowledged)
    connection = await asyncpg.connect(dsn)
    ids = await connection.fetchval("SELECT count(*) FROM event_ids")
    rows = await connection.fetchval("SELECT count(*) FROM user_transactions")
    await connection.close()
    lost = sum("is lost" in fault for fault in found)
    print(  # noqa: T201 - the balance of a fault experiment
        f"attempted {sender.attempted}, acknowledged {len(sender.acknowledged)}, lost {lost},"
        f" twice {rows - ids}, asked again {sender.failures},"
        f" longest gap of a shard {sender.longest_gap_s:.2f} s"
    )
    assert found == []
    assert len(sender.acknowledged) == sender.attempted == ids == rows


async def test_from_one_owner_to_three_to_two_under_ingest_nothing_is_lost_or_counted_twice(
    shards: str,
) -> None:
    async with a_gateway(shards) as gateway:
        async with Sender(gateway, PLAYERS).running() as sender:
            assert await _sizes(gateway) == [256]
            first = (await gateway.routes()).slots[0].name
            grown = await _resized(3)
            assert (grown.owners, grown.moved) == (3, 170)
            assert await _sizes(gateway) == [85, 85, 86]
            assert (await gateway.routes()).slots[0].name == first  # it kept what it need not give
            await sender.progress()
            shrunk = await _resized(2)
            assert (shrunk.owners, shrunk.moved) == (2, 85)
            assert await _sizes(gateway) == [128, 128]
            assert (await _resized(2)).moved == 0
        print(f"pauses by the supervisor: {grown}, {shrunk}")  # noqa: T201 - as the balance
        await _balance(gateway, shards, sender)


@pytest.mark.parametrize("killed", ["the giving owner", "a taking owner"])
async def test_an_owner_killed_in_the_middle_of_a_resize_changes_nothing_in_the_end(
    shards: str, killed: str
) -> None:
    async with a_gateway(shards) as gateway:
        async with Sender(gateway, PLAYERS).running() as sender:
            resizing = Resizing(2)
            await resizing.begun()
            slots = (await gateway.routes()).slots
            number = min(slots) if killed == "the giving owner" else max(slots)
            os.kill(slots[number].state.pid, signal.SIGKILL)
            assert (await resizing.done).moved == 128
            assert await _sizes(gateway) == [128, 128]
            assert (await gateway.routes()).slots[number].successions >= 1
        await _balance(gateway, shards, sender)


async def test_a_supervisor_killed_in_the_middle_of_a_resize_finds_every_shard_again(
    shards: str,
) -> None:
    async with a_gateway(shards) as gateway:
        async with Sender(gateway, PLAYERS).running() as sender:
            resizing = Resizing(3)
            await resizing.begun()
            ray.kill(ray.get_actor(NAME, namespace=NAMESPACE), no_restart=False)
            with pytest.raises(ShardsWarming, match="supervisor"):
                await resizing.done
            async with a_gateway(shards) as stranger:  # one that has no routes of former times
                sizes = await _sizes(stranger)  # uneven: as far as the moves had come
            assert sum(sizes) == SHARDS
            assert len(sizes) >= 2
            await sender.progress()

            async def again() -> Resized | None:
                with suppress(ResizeRefused, ShardsWarming):
                    return await _resized(3)
                return None

            await wait_for_async(again, "the resize is done again", deadline_s=LONG_S)
            assert await _sizes(gateway) == [85, 85, 86]
        await _balance(gateway, shards, sender)


async def test_shards_that_their_owner_lost_come_back_to_it_while_it_serves_the_others(
    shards: str,
) -> None:
    async with a_gateway(shards) as gateway:
        async with Sender(gateway, PLAYERS).running() as sender:
            owner = (await gateway.routes()).slots[0]
            log = PostgresEventLog(shards, clock.now)
            lost = await log.claim(range(0, SHARDS, 4), "a stranger that dies at once")

            async def back() -> bool:
                slot = (await gateway.routes()).slots[0]
                epochs = slot.state.epochs
                return all(epochs.get(s, 0) > claim.epoch for s, claim in lost.items())

            await wait_for_async(back, "the shards are back", deadline_s=LONG_S)
            await log.close()
            assert await _sizes(gateway) == [256]
            assert (await gateway.routes()).slots[0].name == owner.name
        await _balance(gateway, shards, sender)


async def test_what_cannot_be_is_refused_in_one_sentence_and_changes_nothing(
    shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_gateway(shards) as gateway:
        for owners in (0, SHARDS + 1):
            with pytest.raises(ResizeRefused, match="1 to 256"):
                await _resized(owners)
        assert await _sizes(gateway) == [256]
        resizing = Resizing(2)
        await resizing.begun()
        with pytest.raises(ResizeRefused, match="already"):
            await _resized(3)
        assert (await resizing.done).owners == 2


def test_when_a_node_dies_its_shards_come_back_on_the_other(dsn: str, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.support.node_death", dsn, str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=LONG_S * 2,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    print(found)  # noqa: T201 - the balance of a fault experiment
    assert found["faults"] == []
    assert found["acknowledged"] == found["attempted"] > 0
    assert (found["nodes_before"], found["nodes_after"]) == (2, 1)
