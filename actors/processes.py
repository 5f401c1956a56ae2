"""Processes that may own shards: started where there is room, one of them ahead of its need."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Set
from typing import NamedTuple

import ray
from ray.actor import ActorProxy
from ray.exceptions import RayActorError

from actors.feature_shard import FeatureShard, FeatureShardActor
from crm.domain.errors import ResizeRefused

NAMESPACE = "crm"
PREFIX = "shards-"  # begins the name of every actor that owns shards, or may
STATE = {"crm-state": 1}  # what an owner asks of a node; see ray-cluster.yaml
ROOM_S = 30  # so long may processes for further owners take to start
Handle = ActorProxy[FeatureShard]


class Process(NamedTuple):
    """An actor of ours, by the name that it keeps."""

    name: str
    handle: Handle


class Processes:
    """Hands out processes; the `spare` waits for its turn."""

    def __init__(self) -> None:
        self.spare: Process | None = None
        self._preparing: asyncio.Task[None] | None = None

    def take(self) -> Process:
        """Return a process that owns nothing yet, the spare if there is one."""
        spare, self.spare = self.spare, None
        return spare or _new()

    def prepare_spare(self) -> None:
        """Have a process ready for the next succession: its start takes longer than the loading."""
        if self.spare is not None or (self._preparing and not self._preparing.done()):
            return

        async def prepare() -> None:
            with contextlib.suppress(RayActorError):
                process = _new()
                await process.handle.ping.remote()
                self.spare = process

        self._preparing = asyncio.create_task(prepare())

    async def further(self, count: int) -> list[Process]:
        """Start processes for further owners; raises ResizeRefused if there is no room for all."""
        found = [self.take() for _ in range(count)]
        try:
            async with asyncio.timeout(ROOM_S):
                for process in found:
                    await process.handle.ping.remote()
        except (TimeoutError, RayActorError) as error:
            for process in found:
                kill(process.name)
            self.prepare_spare()
            raise ResizeRefused(
                f"{count} further owners did not start within {ROOM_S} s: each asks a node for"
                " `crm-state: 1`; add nodes, or choose fewer owners"
            ) from error
        return found

    def end_all_but(self, kept: Set[str]) -> None:
        """End actors of ours that are nobody's: a spare, or an owner of another division."""
        if self._preparing is not None:
            self._preparing.cancel()
        self.spare = self._preparing = None
        for name in ray.util.list_named_actors():
            if name.startswith(PREFIX) and name not in kept:
                kill(name)


def _new() -> Process:
    """Start a process; the nodes take turns."""
    name = PREFIX + secrets.token_hex(6)
    actor = FeatureShardActor.options(
        name=name,
        namespace=NAMESPACE,
        lifetime="detached",
        resources=STATE,
        scheduling_strategy="SPREAD",
    )
    return Process(name, actor.remote())


def kill(name: str) -> None:
    """End an actor of ours, if it is there."""
    with contextlib.suppress(ValueError, RayActorError):
        ray.kill(ray.get_actor(name, namespace=NAMESPACE), no_restart=True)
