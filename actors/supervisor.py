"""The supervisor: starts the shard owners, watches them, and starts successors. It alone does."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace

import ray
import structlog
from ray.actor import ActorProxy
from ray.exceptions import ActorDiedError, RayActorError, RayTaskError

from actors.feature_shard import FeatureShard, FeatureShardActor, OwnerSpec
from actors.settings import ShardSettings
from actors.wire import OwnerState
from crm.adapters import clock
from crm.adapters.postgres.events import PostgresEventLog
from crm.domain.brands import Brand
from crm.domain.shards import shards_of_slot

log = structlog.get_logger(__name__)

NAME = "supervisor"
NAMESPACE = "crm"
PREFIX = "shards-"  # begins the name of every actor that owns shards, or may
STATE = {"crm-state": 1}  # what an owner asks of a node; see ray-cluster.yaml
START_SILENCE_S = 60  # a new process on a busy machine; a replay answers pings in between
STOP_S = 3.0
FORMER_S = 120.0  # after so long a former owner that has not left by itself is ended
Handle = ActorProxy[FeatureShard]


@dataclass(frozen=True)
class SupervisorSpec:
    """What is handed to the supervisor, and by it to every owner."""

    brands: Mapping[str, Brand]
    dsn: str
    lake_uri: str
    shards: ShardSettings


@dataclass(frozen=True)
class Slot:
    """One owner's place: `handle` changes when a successor takes it."""

    name: str
    handle: Handle
    state: OwnerState
    successions: int = 0


@dataclass(frozen=True)
class Routes:
    """Who owns what: shard s is of `slots[s % len(slots)]`; `spare` waits for its turn."""

    slots: tuple[Slot, ...]
    spare: str | None = None


class Supervisor:
    """Keeps an owner in every slot. A false alarm costs a reload only: the epoch decides."""

    def __init__(self, spec: SupervisorSpec) -> None:
        self._spec = spec
        self._slots: dict[int, Slot] = {}
        self._spare: tuple[str, Handle] | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._watches: list[asyncio.Task[None]] = []
        self._starting = asyncio.Lock()
        if ray.get_runtime_context().was_current_actor_reconstructed:
            # Ray has restarted this process, and nobody else calls start again
            self._again = asyncio.get_running_loop().create_task(self._start_again())

    @ray.method
    async def start(self) -> None:
        """Bring an owner into every slot (once), and watch them from then on.

        What a former service left is ended first: it knows neither these brands nor this code.
        """
        if not self._watches:
            self._end_strays()
        await self._fill_slots()

    async def _fill_slots(self) -> None:
        async with self._starting:
            if self._watches:
                return
            former = await self._former_owners()
            places = range(self._spec.shards.owners)
            await asyncio.gather(*[self._adopt_or_start(slot, former) for slot in places])
            self._end_strays()
            self._prepare_spare()
            self._watches = [asyncio.create_task(self._watch(slot)) for slot in places]

    async def _start_again(self) -> None:
        """Adopt the owners, however long the database is away."""
        while not self._watches:
            try:
                await self._fill_slots()
            except Exception as error:  # noqa: BLE001 - whatever it was, the answer is another try
                log.warning("supervisor_failed_to_start", error=_reason(error))
                await asyncio.sleep(self._spec.shards.ping_s)

    @ray.method
    async def routes(self) -> Routes:
        """Return who owns what, as far as is known now; no slots until every one has an owner."""
        if len(self._slots) < self._spec.shards.owners:
            return Routes(())
        spare = None if self._spare is None else self._spare[0]
        return Routes(tuple(self._slots[slot] for slot in sorted(self._slots)), spare)

    @ray.method
    async def stop(self) -> None:
        """Stop watching, let every owner take its last snapshots, and end it."""
        for watch in self._watches:
            watch.cancel()
        if self._preparing is not None:
            self._preparing.cancel()
        stopping = [asyncio.ensure_future(s.handle.stop.remote()) for s in self._slots.values()]
        if stopping:
            await asyncio.wait(stopping, timeout=STOP_S)  # whatever comes of it: the log is whole
        self._slots.clear()
        self._end_strays()

    async def _former_owners(self) -> dict[int, str]:
        """Return the name that PostgreSQL holds for each shard's owner: some may be alive."""
        log_of_events = PostgresEventLog(self._spec.dsn, clock.now)
        try:
            return await log_of_events.owners()
        finally:
            await log_of_events.close()

    async def _adopt_or_start(self, slot: int, former: Mapping[int, str]) -> None:
        """Take over who owns exactly this slot's shards, else start an owner."""
        shards = set(shards_of_slot(slot, self._spec.shards.owners))
        for name in {former[shard] for shard in shards if shard in former}:
            with contextlib.suppress(ValueError, RayActorError, TimeoutError):
                handle: Handle = ray.get_actor(name, namespace=NAMESPACE)
                state = await asyncio.wait_for(handle.ping.remote(), self._spec.shards.ping_s * 3)
                if state.ready and state.epochs.keys() == shards:
                    self._slots[slot] = Slot(name, handle, state)
                    return
        await self._start_owner(slot)

    def _end_strays(self) -> None:
        """End actors of ours that are nobody's: a spare, or an owner of another division."""
        kept = {slot.name for slot in self._slots.values()}
        for name in ray.util.list_named_actors():
            if name.startswith(PREFIX) and name not in kept:
                _kill(name)

    def _prepare_spare(self) -> None:
        """Have a process ready for the next succession: its start takes longer than the loading."""
        if self._spare is not None or (self._preparing and not self._preparing.done()):
            return

        async def prepare() -> None:
            with contextlib.suppress(RayActorError):
                name, handle = _new_actor()
                await handle.ping.remote()
                self._spare = (name, handle)

        self._preparing = asyncio.create_task(prepare())

    def _take_actor(self) -> tuple[str, Handle]:
        spare, self._spare = self._spare, None
        return spare or _new_actor()

    async def _start_owner(self, slot: int) -> None:
        """Start owners for a slot until one is ready; a claim fences all before it."""
        pause_s = 0.2
        before = self._slots.get(slot)
        successions = before.successions + 1 if before else 0
        while True:
            name = ""
            try:
                name, handle = self._take_actor()
                self._slots[slot] = Slot(name, handle, OwnerState(False, {}, 0), successions)
                state = await self._started(handle, self._owner_spec(name, slot))
            except Exception as error:  # noqa: BLE001 - whatever it was, the answer is another try
                log.warning("owner_failed_to_start", owner=name, error=_reason(error))
                _kill(name)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, 10)
                continue
            self._slots[slot] = replace(self._slots[slot], state=state)
            log.info("owner_ready", owner=name, successions=successions)
            if before:
                asyncio.get_running_loop().call_later(FORMER_S, _kill, before.name)
                self._prepare_spare()
            return

    def _owner_spec(self, name: str, slot: int) -> OwnerSpec:
        return OwnerSpec(
            name=name,
            shards=shards_of_slot(slot, self._spec.shards.owners),
            brands=self._spec.brands,
            dsn=self._spec.dsn,
            lake_uri=self._spec.lake_uri,
            snapshot_age_s=self._spec.shards.snapshot_age_s,
        )

    async def _started(self, handle: Handle, spec: OwnerSpec) -> OwnerState:
        """Wait as long as the owner answers pings: a replay may be long, a stopped process not."""
        starting = asyncio.ensure_future(handle.start.remote(spec))
        try:
            while not (await asyncio.wait({starting}, timeout=self._spec.shards.ping_s))[0]:
                await asyncio.wait_for(handle.ping.remote(), START_SILENCE_S)
            return starting.result()
        finally:
            starting.cancel()

    async def _watch(self, slot: int) -> None:
        """Ping the slot's owner; a death or several misses in a row start a successor."""
        settings = self._spec.shards
        misses = 0
        while True:
            await asyncio.sleep(settings.ping_s)
            owner = self._slots[slot]
            try:
                state = await asyncio.wait_for(owner.handle.ping.remote(), settings.ping_s)
                self._slots[slot] = replace(owner, state=state)
                misses = 0 if state.epochs else settings.misses
            except TimeoutError:
                misses += 1
            except ActorDiedError:
                misses = settings.misses
            except Exception as error:  # noqa: BLE001 - whatever it was, the watch goes on
                log.warning("ping_failed", owner=owner.name, error=_reason(error))
                misses += 1
            if misses >= settings.misses:
                log.warning("owner_lost", owner=owner.name)
                await self._start_owner(slot)
                misses = 0


def _new_actor() -> tuple[str, Handle]:
    name = PREFIX + secrets.token_hex(6)
    actor = FeatureShardActor.options(
        name=name, namespace=NAMESPACE, lifetime="detached", resources=STATE
    )
    return name, actor.remote()


def _kill(name: str) -> None:
    """End an actor of ours, if it is there."""
    with contextlib.suppress(ValueError, RayActorError):
        ray.kill(ray.get_actor(name, namespace=NAMESPACE), no_restart=True)


def _reason(error: Exception) -> str:
    cause = getattr(error, "cause", error)
    return f"{type(cause).__name__}: {cause}"


SupervisorActor = ray.remote(max_restarts=-1, max_task_retries=0, num_cpus=0)(Supervisor)


def start(spec: SupervisorSpec) -> None:
    """Start the supervisor and the shard owners; returns when every shard is served."""
    stop()  # of a service that was killed: it would go on with its own brands and addresses
    supervisor = SupervisorActor.options(
        name=NAME, namespace=NAMESPACE, lifetime="detached", get_if_exists=True
    ).remote(spec)
    ray.get(supervisor.start.remote())


def stop() -> None:
    """End the owners after their last snapshots, so that the next start is quick and all new."""
    with contextlib.suppress(ValueError, RayActorError):
        supervisor: ActorProxy[Supervisor] = ray.get_actor(NAME, namespace=NAMESPACE)
        try:
            ray.get(supervisor.stop.remote(), timeout=5)
        except (ray.exceptions.GetTimeoutError, RayTaskError) as error:
            log.warning("supervisor_stop_failed", error=_reason(error))
        finally:
            _kill(NAME)
