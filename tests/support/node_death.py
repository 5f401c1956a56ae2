"""Two nodes with an owner each; the second node is killed while events flow in (E3 of trust.md).

Run as `python -m tests.support.node_death DSN LAKE`: a Ray cluster of its own needs a process of
its own, which inherits Ray's flags from the test run. Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from actors import supervisor
from actors.gateway import ShardGateway
from actors.owners import Routes
from crm.domain.errors import ShardsWarming
from crm.domain.shards import SHARDS
from tests.support.ray import NAMESPACE
from tests.support.ray_shards import LONG_S, Sender, a_gateway, a_spec, faults
from tests.support.wait import wait_for_async

PLAYERS = 80


@contextmanager
def two_nodes(home: Path) -> Iterator[int]:
    """A cluster of two nodes on this machine, and this process on its head; yields a raylet."""
    (home / "ray").mkdir()
    os.environ["RAY_TMPDIR"] = str(home)  # where Ray notes the address of "the" cluster, too
    cluster = Cluster()
    try:
        room = {"crm-state": 4}
        cluster.add_node(num_cpus=2, resources=room, include_dashboard=False)
        second = cluster.add_node(num_cpus=2, resources=room)
        ray.init(cluster.address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False)
        (raylet,) = second.all_processes["raylet"]
        yield raylet.process.pid
        supervisor.stop()
        ray.shutdown()
    finally:
        with suppress(AssertionError):  # of the node that was killed
            cluster.shutdown()  # type: ignore[no-untyped-call]  # Ray has no types


async def _routes(gateway: ShardGateway, *, without: str = "") -> Routes:
    """Who owns what, once every shard is owned, and none on the node `without`."""

    async def served() -> Routes | None:
        with suppress(ShardsWarming):
            routes = await gateway.routes()
            states = [slot.state for slot in routes.slots.values()]
            owned = sorted(shard for state in states for shard in state.epochs)
            nodes = {state.node for state in states}
            return routes if owned == list(range(SHARDS)) and without not in nodes else None
        return None

    found = await wait_for_async(served, "every shard is served", deadline_s=LONG_S)
    assert found is not None
    return found


async def experiment(dsn: str, raylet: int) -> dict[str, object]:
    """Kill the second node under ingest; return what became of owners and events."""
    here = ray.get_runtime_context().get_node_id()
    async with a_gateway(dsn) as gateway:
        async with Sender(gateway, PLAYERS).running() as sender:
            before = {slot.state.node for slot in (await _routes(gateway)).slots.values()}
            (there,) = before - {here}
            os.kill(raylet, signal.SIGKILL)
            after = await _routes(gateway, without=there)
            await sender.progress()
        found = await faults(gateway, dsn, sender.acknowledged)
    return {
        "nodes_before": len(before),
        "nodes_after": len({slot.state.node for slot in after.slots.values()}),
        "attempted": sender.attempted,
        "acknowledged": len(sender.acknowledged),
        "asked_again": sender.failures,
        "longest_gap_s": round(sender.longest_gap_s, 2),
        "faults": found[:20],
    }


def main(dsn: str, lake: str) -> None:
    """Run the experiment."""
    home = Path(tempfile.mkdtemp(prefix="crm-ray-", dir="/tmp"))  # a socket's path is short
    try:
        with two_nodes(home) as raylet:
            supervisor.start(a_spec(dsn, Path(lake), owners=2))
            result = asyncio.run(experiment(dsn, raylet))
        sys.stdout.write(json.dumps(result) + "\n")
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
