"""The processes that own shards: one in each slot, watched, and succeeded when it dies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping, Set
from dataclasses import dataclass, replace
from typing import TypeVar

import ray
import structlog
from ray.exceptions import ActorDiedError, RayActorError, RayTaskError

from actors.feature_shard import OwnerSpec
from actors.processes import NAMESPACE, Handle, Process, Processes, kill
from actors.settings import ShardSettings
from actors.wire import OwnerState
from crm.domain.brands import Brand
from crm.domain.errors import ShardsWarming
from crm.domain.shards import SHARDS

log = structlog.get_logger(__name__)

START_SILENCE_S = 60  # a new process on a busy machine; a replay answers pings in between
STOP_S = 3.0
TAKE_OVER_S = 10.0  # an owner that answers late is better than a succession
FORMER_S = 120.0  # after so long a former owner that has not left by itself is ended
Result = TypeVar("Result")


@dataclass(frozen=True)
class SupervisorSpec:
    """What is handed to the supervisor, and by it to every owner."""

    brands: Mapping[str, Brand]
    dsn: str
    lake_uri: str
    shards: ShardSettings


@dataclass(frozen=True)
class Slot:
    """One owner's place, and the shards that belong there; `handle` changes with a successor."""

    name: str
    handle: Handle
    state: OwnerState
    shards: frozenset[int]
    successions: int = 0


@dataclass(frozen=True)
class Routes:
    """Who owns what: shard s belongs to `slots[slot_of[s]]`; `spare` waits for its turn.

    A slot keeps its number for as long as it is there. Empty until every shard has a slot.
    """

    slots: Mapping[int, Slot]
    slot_of: tuple[int, ...]
    spare: str | None = None


class Owners:
    """Keeps an owner in every slot. A false alarm costs a reload only: the epoch decides."""

    def __init__(self, spec: SupervisorSpec) -> None:
        self._spec = spec
        self.brands = spec.brands
        self.slots: dict[int, Slot] = {}
        self._next = 0
        self._moving: set[int] = set()  # shards that their slot need not own just now
        self.processes = Processes()
        self._tasks: dict[tuple[str, int], asyncio.Task[None]] = {}

    def routes(self) -> Routes:
        """Return who owns what, as far as is known now."""
        slot_of = {shard: number for number, slot in self.slots.items() for shard in slot.shards}
        if len(slot_of) < SHARDS:
            return Routes({}, ())
        spare = None if self.processes.spare is None else self.processes.spare.name
        of = tuple(slot_of[shard] for shard in range(SHARDS))
        return Routes({number: self.slots[number] for number in set(of)}, of, spare)

    # --- slots ----------------------------------------------------------------------------------

    async def open(self, shards: Set[int], process: Process | None = None) -> int:
        """Make a slot for `shards`, with an owner that has adopted them."""
        name, handle = process or self.processes.take()
        number = self._add(Slot(name, handle, OwnerState(False, {}, 0), frozenset(shards)))
        await self._start(number)
        self._watch(number)
        return number

    async def take_over(self, name: str, shards: Set[int]) -> bool:
        """Make a slot for `shards` with the owner of that name, if it is alive and serves."""
        try:
            handle: Handle = ray.get_actor(name, namespace=NAMESPACE)
            state = await asyncio.wait_for(handle.ping.remote(), TAKE_OVER_S)
        except (ValueError, RayActorError, RayTaskError, TimeoutError):
            return False
        if state.ready:
            self.brands = await handle.brands.remote()  # they may be newer than the service
            self._watch(self._add(Slot(name, handle, state, frozenset(shards))))
        return state.ready

    async def close(self, number: int) -> None:
        """End a slot that has no shards left."""
        for what in ("watch", "mend"):
            if (what, number) in self._tasks:
                self._tasks.pop((what, number)).cancel()
        slot = self.slots.pop(number)
        with contextlib.suppress(RayActorError, RayTaskError, TimeoutError):
            await asyncio.wait_for(slot.handle.stop.remote(), STOP_S)
        kill(slot.name)
        log.info("owner_ended", owner=slot.name)

    async def stop(self) -> None:
        """Stop watching, let every owner take its last snapshots, and end it."""
        for task in self._tasks.values():
            task.cancel()
        stopping = [asyncio.ensure_future(s.handle.stop.remote()) for s in self.slots.values()]
        if stopping:
            await asyncio.wait(stopping, timeout=STOP_S)  # whatever comes of it: the log is whole
        self.slots.clear()
        self.end_strays()

    def end_strays(self) -> None:
        """End the processes that have no slot."""
        self.processes.end_all_but({slot.name for slot in self.slots.values()})

    def _add(self, slot: Slot) -> int:
        number, self._next = self._next, self._next + 1
        self.slots[number] = slot
        return number

    # --- owners ---------------------------------------------------------------------------------

    async def _start(self, number: int) -> None:
        """Start owners for a slot until one is ready; a claim fences all before it."""
        pause_s = 0.2
        while True:
            slot = self.slots[number]
            try:
                state = await self._started(slot)
            except Exception as error:  # noqa: BLE001 - whatever it was, the answer is another try
                log.warning("owner_failed_to_start", owner=slot.name, error=reason(error))
                kill(slot.name)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, 10)
                self._replace(number)
                continue
            self.slots[number] = replace(self.slots[number], state=state)
            log.info("owner_ready", owner=slot.name, successions=slot.successions)
            return

    async def _succeed(self, number: int) -> None:
        """Start a successor of a slot's owner."""
        former = self.slots[number].name
        log.warning("owner_lost", owner=former)
        self._replace(number, successions=1)
        await self._start(number)
        asyncio.get_running_loop().call_later(FORMER_S, kill, former)
        self.processes.prepare_spare()

    def _replace(self, number: int, *, successions: int = 0) -> None:
        """Put another process into a slot."""
        name, handle = self.processes.take()
        slot = self.slots[number]
        self.slots[number] = Slot(
            name, handle, OwnerState(False, {}, 0), slot.shards, slot.successions + successions
        )

    async def _started(self, slot: Slot) -> OwnerState:
        """Wait as long as the owner answers pings: a replay may be long, a stopped process not."""
        spec = OwnerSpec(
            name=slot.name,
            brands=self.brands,
            dsn=self._spec.dsn,
            lake_uri=self._spec.lake_uri,
            snapshot_age_s=self._spec.shards.snapshot_age_s,
            coalesce=self._spec.shards.coalesce,
        )
        starting = asyncio.ensure_future(slot.handle.start.remote(spec, sorted(slot.shards)))
        try:
            while not (await asyncio.wait({starting}, timeout=self._spec.shards.ping_s))[0]:
                await asyncio.wait_for(slot.handle.ping.remote(), START_SILENCE_S)
            return starting.result()
        finally:
            starting.cancel()

    # --- watching -------------------------------------------------------------------------------

    def _watch(self, number: int) -> None:
        self._tasks["watch", number] = asyncio.create_task(self._watch_forever(number))

    async def _watch_forever(self, number: int) -> None:
        """Ping the slot's owner; a death or several misses in a row start a successor."""
        settings = self._spec.shards
        misses = 0
        while True:
            await asyncio.sleep(settings.ping_s)
            slot = self.slots[number]
            try:
                state = await asyncio.wait_for(slot.handle.ping.remote(), settings.ping_s)
                misses = 0 if state.ready else settings.misses
                self._learn(number, slot, state)
            except TimeoutError:
                misses += 1
            except ActorDiedError:
                misses = settings.misses
            except Exception as error:  # noqa: BLE001 - whatever it was, the watch goes on
                log.warning("ping_failed", owner=slot.name, error=reason(error))
                misses += 1
            if misses >= settings.misses:
                await self._succeed(number)
                misses = 0

    def _learn(self, number: int, asked: Slot, state: OwnerState) -> None:
        """Note what an owner says of itself; have it adopt what it lacks."""
        slot = self.slots[number]
        if slot.name != asked.name:
            return
        self.slots[number] = replace(slot, state=state)
        mending = self._tasks.get(("mend", number))
        if state.ready and self._missing(number) and (mending is None or mending.done()):
            self._tasks["mend", number] = asyncio.create_task(self._mend(number))

    def _missing(self, number: int) -> frozenset[int]:
        slot = self.slots[number]
        return slot.shards - slot.state.epochs.keys() - self._moving

    async def _mend(self, number: int) -> None:
        """Have an owner adopt what it lacks, once: the next ping sees whether it has."""
        slot, missing = self.slots[number], self._missing(number)
        log.warning("shards_missing", owner=slot.name, shards=len(missing))
        try:
            await self._answer(number, slot, slot.handle.adopt.remote(sorted(missing), False))
        except Exception as error:  # noqa: BLE001 - whatever it was, it is tried again
            log.warning("adopt_failed", owner=slot.name, error=reason(error))

    # --- moving ---------------------------------------------------------------------------------

    async def prepare(self, number: int, shards: Set[int]) -> None:
        """Have a slot's owner count what it will lack of shards; without that their move is longer.

        It is asked while the former owner serves them.
        """
        slot = self.slots[number]
        try:
            await self._answer(number, slot, slot.handle.prepare.remote(sorted(shards)))
        except Exception as error:  # noqa: BLE001 - whatever it was, the adoption does it again
            log.warning("prepare_failed", owner=slot.name, error=reason(error))

    async def move(self, shards: Set[int], source: int, target: int) -> float:
        """Hand shards over from slot to slot; return for how long (s) none served them.

        The map says `target` only once the former owner has let go, or has been replaced.
        """
        self._moving |= shards
        try:
            released = await self._release(source, shards)
            since = asyncio.get_running_loop().time()
            giving, taking = self.slots[source], self.slots[target]
            self.slots[source] = replace(giving, shards=giving.shards - shards)
            self.slots[target] = replace(taking, shards=taking.shards | shards)
            await self._adopt(target, shards, released=released)
            return asyncio.get_running_loop().time() - since
        finally:
            self._moving -= shards

    async def _release(self, number: int, shards: Set[int]) -> bool:
        """Have a slot's owner let go; return whether it had them all, and so nobody has now."""
        while True:
            slot = self.slots[number]
            try:
                releasing = slot.handle.release.remote(sorted(shards))
                released = await self._answer(number, slot, releasing)
            except Exception as error:  # noqa: BLE001 - it may be dead: its successor is asked
                log.warning("release_failed", owner=slot.name, error=reason(error))
                await asyncio.sleep(self._spec.shards.ping_s)
                continue
            return shards <= set(released)

    async def _adopt(self, number: int, shards: Set[int], *, released: bool) -> None:
        """Have a slot's owner, or whoever succeeds it, serve shards."""
        while True:
            slot = self.slots[number]
            try:
                adopting = slot.handle.adopt.remote(sorted(shards), released)
                state = await self._answer(number, slot, adopting)
            except Exception as error:  # noqa: BLE001 - it may be dead: its successor is asked
                log.warning("adopt_failed", owner=slot.name, error=reason(error))
            else:
                self.slots[number] = replace(self.slots[number], state=state)
                if shards <= state.epochs.keys():
                    return
            released = False  # whoever has failed may have served in between
            await asyncio.sleep(self._spec.shards.ping_s)

    async def _answer(self, number: int, slot: Slot, call: Awaitable[Result]) -> Result:
        """Wait for an owner's answer for as long as it is the slot's; its watch sees if it dies."""
        answer = asyncio.ensure_future(call)
        try:
            while not (await asyncio.wait({answer}, timeout=self._spec.shards.ping_s))[0]:
                if self.slots[number].name != slot.name:
                    break
            if self.slots[number].name != slot.name:
                raise ShardsWarming("the owner was replaced meanwhile")
            return answer.result()
        finally:
            answer.cancel()


def reason(error: Exception) -> str:
    """Return what went wrong, in one line for the log."""
    cause = getattr(error, "cause", error)
    return f"{type(cause).__name__}: {cause}"
