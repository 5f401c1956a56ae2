"""The supervisor: how many owners there are, which shards are whose, and how they move."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import ray
import structlog
from ray.actor import ActorProxy
from ray.exceptions import RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.owners import Owners, Routes, SupervisorSpec, reason
from actors.processes import NAMESPACE, kill
from crm.adapters import clock
from crm.adapters.postgres.events import PostgresEventLog
from crm.domain.brands import Brand
from crm.domain.errors import CrmError, ResizeRefused, ShardsWarming
from crm.domain.shards import SHARDS, rebalanced, shards_of_slot

log = structlog.get_logger(__name__)

NAME = "supervisor"
POLL_S = 0.2
SLICE = 4  # shards that move at once: each of them waits for all
BREATH_S = 0.3  # between two moves every shard is served, so that counts get their turn


@dataclass(frozen=True)
class Resized:
    """What a resize did; `longest_pause_s` is how long a moved shard was not served, at most."""

    owners: int
    moved: int
    longest_pause_s: float


@dataclass(frozen=True)
class Progress:
    """How many shards have moved, of those that shall."""

    moved: int
    to_move: int


class Supervisor:
    """Divides the virtual shards among owners; one alone does. The truth is in PostgreSQL."""

    def __init__(self, spec: SupervisorSpec) -> None:
        self._spec = spec
        self._owners = Owners(spec)
        self._started = False
        self._starting = asyncio.Lock()
        self._resizing = asyncio.Lock()
        self._progress = Progress(0, 0)
        if ray.get_runtime_context().was_current_actor_reconstructed:
            # Ray has restarted this process, and nobody else calls start again
            self._again = asyncio.get_running_loop().create_task(self._start_again())

    @ray.method
    async def start(self) -> None:
        """Bring owners up, as many as the settings say (once); they are watched from then on.

        What a former service left is ended first: it knows neither these brands nor this code.
        """
        async with self._starting:
            if self._started:
                return
            self._owners.end_strays()
            count = self._spec.shards.owners
            shards = [shards_of_slot(slot, count) for slot in range(count)]
            await asyncio.gather(*[self._owners.open(set(of_slot)) for of_slot in shards])
            self._owners.processes.prepare_spare()
            self._started = True

    async def _start_again(self) -> None:
        """Take over the owners that there are, however long the database is away."""
        async with self._starting:
            while not self._started:
                try:
                    await self._take_over()
                except Exception as error:  # noqa: BLE001 - whatever it was, it is tried again
                    log.warning("supervisor_failed_to_start", error=reason(error))
                    await asyncio.sleep(self._spec.shards.ping_s)

    async def _take_over(self) -> None:
        """Find who owns what, evenly divided or not; the dead get successors."""
        owned: dict[str, set[int]] = {}
        names = await self._names()
        for shard in range(SHARDS):
            # without an owner yet: the start itself was cut short
            name = names.get(shard, f"{shard % self._spec.shards.owners}")
            owned.setdefault(name, set()).add(shard)

        async def take_over(name: str, shards: set[int]) -> None:
            if not await self._owners.take_over(name, shards):
                await self._owners.open(shards)

        await asyncio.gather(*[take_over(name, shards) for name, shards in owned.items()])
        self._owners.end_strays()
        self._owners.processes.prepare_spare()
        self._started = True

    async def _names(self) -> Mapping[int, str]:
        """Return the name that PostgreSQL holds for each shard's owner: some may be alive."""
        log_of_events = PostgresEventLog(self._spec.dsn, clock.now)
        try:
            return await log_of_events.owners()
        finally:
            await log_of_events.close()

    @ray.method
    async def routes(self) -> Routes:
        """Return who owns what, as far as is known now; no slots until every shard has one."""
        return self._owners.routes()

    @ray.method
    async def resize(self, owners: int) -> Resized:
        """Divide the shards among so many owners, a few at a time, while all others are served.

        Raises ResizeRefused, and then nothing is changed.
        """
        if not 1 <= owners <= SHARDS:
            raise ResizeRefused(f"there can be 1 to {SHARDS} shard owners, not {owners}")
        if not self._started or self._resizing.locked():
            raise ResizeRefused("the shards are on their way to other owners already; try later")
        async with self._resizing:
            self._progress = Progress(0, 0)
            further = await self._owners.processes.further(owners - len(self._owners.slots))
            await asyncio.gather(*[self._owners.open(set(), process) for process in further])
            self._owners.processes.prepare_spare()
            owned = {number: slot.shards for number, slot in self._owners.slots.items()}
            moves, left = rebalanced(owned, owners)
            longest_s = await self._move(moves)
            for number in left:
                await self._owners.close(number)
            log.info("owners_resized", owners=owners, moved=len(moves), longest_pause_s=longest_s)
            return Resized(owners, len(moves), longest_s)

    @ray.method
    async def renew(self, brands: Mapping[str, Brand]) -> Resized:
        """Bring a new process, which knows these brands, into each owner's place.

        One owner after the other, a few shards at a time, while all others are served: what the
        brands' new measures add up to is counted before a shard moves. Raises ResizeRefused, and
        then nothing is changed.
        """
        if not self._started or self._resizing.locked():
            raise ResizeRefused("the shards are on their way to other owners already; try later")
        async with self._resizing:
            self._progress = Progress(0, 0)
            (process,) = await self._owners.processes.further(1)
            self._owners.brands = brands  # of every owner from now on, whoever dies
            former, moved, longest_s = list(self._owners.slots), 0, 0.0
            for number in former:
                target = await self._owners.open(set(), process)
                shards = self._owners.slots[number].shards
                await self._owners.prepare(target, shards)
                longest_s = max(longest_s, await self._move(dict.fromkeys(shards, target)))
                await self._owners.close(number)
                moved += len(shards)
                if number != former[-1]:
                    process = self._owners.processes.take()
            self._owners.processes.prepare_spare()
            log.info("owners_renewed", owners=len(former), longest_pause_s=longest_s)
            return Resized(len(former), moved, longest_s)

    async def _move(self, moves: Mapping[int, int]) -> float:
        """Move shards, each to its slot; return the longest pause of one (s)."""
        longest_s = 0.0
        self._progress = Progress(0, len(moves))
        for source, target, shards in _slices(self._owners.routes().slot_of, moves):
            longest_s = max(longest_s, await self._owners.move(shards, source, target))
            moved = self._progress.moved + len(shards)
            self._progress = Progress(moved, len(moves))
            await asyncio.sleep(BREATH_S)
        return longest_s

    @ray.method
    async def progress(self) -> Progress:
        """Return how far the latest resize is."""
        return self._progress

    @ray.method
    async def stop(self) -> None:
        """Stop watching, let every owner take its last snapshots, and end it."""
        await self._owners.stop()


def _slices(
    slot_of: tuple[int, ...], moves: Mapping[int, int]
) -> Iterator[tuple[int, int, set[int]]]:
    """Yield (source, target, shards): up to SLICE shards of one way at a time."""
    ways: dict[tuple[int, int], list[int]] = {}
    for shard, target in moves.items():
        ways.setdefault((slot_of[shard], target), []).append(shard)
    for (source, target), shards in ways.items():
        for start in range(0, len(shards), SLICE):
            yield source, target, set(shards[start : start + SLICE])


SupervisorActor = ray.remote(max_restarts=-1, max_task_retries=0, num_cpus=0)(Supervisor)


def start(spec: SupervisorSpec) -> None:
    """Start the supervisor and the shard owners; returns when every shard is served.

    The supervisor runs on this node if it can: it need not die with a node of the owners.
    """
    stop()  # of a service that was killed: it would go on with its own brands and addresses
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    supervisor = SupervisorActor.options(
        name=NAME, namespace=NAMESPACE, lifetime="detached", get_if_exists=True,
        scheduling_strategy=here,
    ).remote(spec)  # fmt: skip
    ray.get(supervisor.start.remote())


def stop() -> None:
    """End the owners after their last snapshots, so that the next start is quick and all new."""
    with contextlib.suppress(ValueError, RayActorError):
        supervisor: ActorProxy[Supervisor] = ray.get_actor(NAME, namespace=NAMESPACE)
        try:
            ray.get(supervisor.stop.remote(), timeout=5)
        except (ray.exceptions.GetTimeoutError, RayTaskError) as error:
            log.warning("supervisor_stop_failed", error=reason(error))
        finally:
            kill(NAME)


def routes() -> Routes:
    """Return who owns what; raises ShardsWarming while that is not known."""
    with _supervisor() as supervisor:
        found: Routes = ray.get(supervisor.routes.remote())
    if not found.slots:
        raise ShardsWarming("the shards are not being served yet; try again")
    return found


def resize(owners: int, tell: Callable[[Progress], None]) -> Resized:
    """Divide the shards among so many owners; `tell` hears how far that is. Or ResizeRefused."""
    with _supervisor() as supervisor:
        return _told(supervisor, supervisor.resize.remote(owners), tell)


def renew(brands: Mapping[str, Brand], tell: Callable[[Progress], None]) -> Resized:
    """Have the owners know other brands, or other measures of them, while they serve.

    Raises ResizeRefused, and then nothing is changed; or ShardsWarming.
    """
    with _supervisor() as supervisor:
        return _told(supervisor, supervisor.renew.remote(brands), tell)


def _told(
    supervisor: ActorProxy[Supervisor],
    work: ray.ObjectRef[Resized],
    tell: Callable[[Progress], None],
) -> Resized:
    """Wait for a move of shards, and tell how far it is."""
    while not ray.wait([work], timeout=POLL_S)[0]:
        tell(ray.get(supervisor.progress.remote()))
    done: Resized = ray.get(work)
    return done


@contextlib.contextmanager
def _supervisor() -> Iterator[ActorProxy[Supervisor]]:
    """Lend the supervisor; what goes wrong is a fact of the domain."""
    try:
        yield ray.get_actor(NAME, namespace=NAMESPACE)
    except (ValueError, RayActorError) as error:
        raise ShardsWarming("the supervisor is being restarted; look again, and ask again") from (
            error
        )
    except RayTaskError as error:
        if isinstance(error.cause, CrmError):
            raise error.cause from error
        raise
