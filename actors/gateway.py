"""The gateway: all virtual shards as one `FeatureShards`. Handles live here and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from heapq import merge
from itertools import islice
from typing import Any, Protocol, TypeVar

import numpy as np
import ray
import structlog
from ray.actor import ActorProxy
from ray.exceptions import RayActorError, RayTaskError

from actors.owners import Routes, Slot
from actors.processes import NAMESPACE, Handle
from actors.supervisor import NAME, Supervisor
from actors.wire import (
    AppendCall,
    ColumnsPart,
    CountCall,
    CountPart,
    FeaturesOf,
    KnownPart,
    MembersPart,
    PlayersPart,
    TotalsPart,
    decode_count,
    decode_verdicts,
    encode,
)
from crm.adapters import clock
from crm.adapters.postgres.events import PostgresEventLog
from crm.adapters.postgres.settings import PostgresSettings
from crm.domain.appending import Group, Verdict
from crm.domain.brands import Brand
from crm.domain.day_totals import Days, DayTotals, joined
from crm.domain.errors import CrmError, ShardsWarming
from crm.domain.ports import (
    Columns,
    Count,
    EventLog,
    Explained,
    Members,
    PlayerFeatures,
    ShardFeatures,
    SomePlayers,
)
from crm.domain.rules import Rule
from crm.domain.shards import SHARDS, shard_of
from crm.domain.times import from_us, to_us
from crm.services.coalescing import Coalescer
from crm.services.player_features import in_order
from crm.services.segments import SAMPLE, by_cluster, summed

log = structlog.get_logger(__name__)

SILENCE_S = 1.0  # after so long without an answer: is it still the owner?
WAIT_S = 5.0  # how long a call waits for a shard that is being replaced (design.md 4)
PAUSE_S = 0.1
EVENTS_A_CALL = 2_000
CALLS_IN_FLIGHT = 2  # an owner: one is written while the next is on its way,
WORTH_A_CALL = 25  # if it carries so much; single events rather gather
READS_A_CALL = 16  # a call costs more than a read; an owner does nothing else meanwhile
LEAD_US = 20_000  # all owners answer at one moment, just ahead of the one that asks:
MOST_LEAD_US = 500_000  # further where it would be past by the time when they hear of it
MOMENTS_TRIED = 6
Result = TypeVar("Result")
Part = TypeVar("Part", CountPart, ColumnsPart, MembersPart, KnownPart, PlayersPart, TotalsPart)
Found = PlayerFeatures | CrmError


class HasPostgres(Protocol):
    """Any settings that say where PostgreSQL is."""

    @property
    def postgres(self) -> PostgresSettings:
        """Where PostgreSQL is."""


def connect(settings: HasPostgres, brands: Mapping[str, Brand]) -> ShardGateway:
    """Return a gateway; this process is connected to Ray, and uses it within one event loop."""
    if settings.postgres.dsn is None:
        raise CrmError("the address of PostgreSQL is not known: is the service running?")
    return ShardGateway(brands, PostgresEventLog(settings.postgres.dsn, clock.now))


class ShardGateway:
    """Routes calls to owners, waits for successors, and believes only current epochs."""

    def __init__(
        self,
        brands: Mapping[str, Brand],
        log: EventLog,
        ask_routes: Callable[[], Awaitable[Routes]] | None = None,
        *,
        coalesce: bool = True,
        now: Callable[[], datetime] = clock.now,
    ) -> None:
        self._brands = brands
        self._log = log
        self._ask_routes = ask_routes or _ask_supervisor
        self._coalesce = coalesce
        self._now = now
        self._lead_us = LEAD_US
        self._routes: Routes | None = None
        self._refreshing: asyncio.Future[Routes] | None = None
        self._coalescers: dict[int, Coalescer[Group, list[Verdict]]] = {}
        self._readers: dict[int, Coalescer[FeaturesOf, Found]] = {}

    # --- writing --------------------------------------------------------------------------------

    async def append(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        """Store groups of events durably, each by the owner of its shard."""
        verdicts: list[list[Verdict]] = [["moved"]] * len(groups)

        async def store(indexes: list[int]) -> None:
            """Append until nothing is `moved`, trying again only what is, at its owner then."""

            async def attempt() -> None:
                left = [index for index in indexes if "moved" in verdicts[index]]
                by_slot = _by_slot(await self._known_routes(), groups, left)
                ways = [send(slot, some) for slot, some in by_slot.items()]
                for failed in await asyncio.gather(*ways, return_exceptions=True):
                    if failed is not None:
                        raise failed
                if any("moved" in verdicts[index] for index in left):
                    raise ShardsWarming("a shard has another owner now")

            await self._patiently(attempt)

        async def send(slot: int, indexes: list[int]) -> None:
            results = await self._submit(slot, [groups[index] for index in indexes])
            for index, result in zip(indexes, results, strict=True):
                verdicts[index] = result

        # each owner's are stored apart: they do not wait for another owner's successor
        by_slot = _by_slot(await self._known_routes(), groups, range(len(groups)))
        await asyncio.gather(*[store(indexes) for indexes in by_slot.values()])
        return verdicts

    async def _submit(self, slot: int, groups: Sequence[Group]) -> Sequence[list[Verdict]]:
        if not self._coalesce:
            return await self._send(slot, groups)
        return await self._coalescer(slot).submit(groups)

    def _coalescer(self, slot: int) -> Coalescer[Group, list[Verdict]]:
        if slot not in self._coalescers:
            self._coalescers[slot] = Coalescer(
                partial(self._send, slot),
                most=EVENTS_A_CALL,
                in_flight=CALLS_IN_FLIGHT,
                worth=WORTH_A_CALL,
            )
        return self._coalescers[slot]

    async def _send(self, slot: int, groups: Sequence[Group]) -> list[list[Verdict]]:
        call = encode(AppendCall([list(group) for group in groups]))
        return decode_verdicts(await self._ask(slot, lambda owner: owner.append.remote(call)))

    # --- reading --------------------------------------------------------------------------------

    async def features(self, brand: str, player_id: str) -> PlayerFeatures:
        """Return all features of a player, live; raises PlayerNotFound."""
        shard = shard_of(brand, player_id)

        async def attempt() -> PlayerFeatures:
            slot = (await self._known_routes()).slot_of[shard]
            (found,) = await self._reader(slot).submit([FeaturesOf(brand, player_id, shard)])
            if isinstance(found, CrmError):
                raise found
            routes = await self._known_routes()
            if found.epoch < routes.slots[routes.slot_of[shard]].state.epochs.get(shard, 0):
                raise ShardsWarming("an answer of a former owner")
            return found

        return await self._patiently(attempt)

    def _reader(self, slot: int) -> Coalescer[FeaturesOf, Found]:
        if slot not in self._readers:
            self._readers[slot] = Coalescer(
                partial(self._read, slot),
                most=READS_A_CALL, in_flight=CALLS_IN_FLIGHT, worth=READS_A_CALL,
            )  # fmt: skip
        return self._readers[slot]

    async def _read(self, slot: int, asked: Sequence[FeaturesOf]) -> Sequence[Found]:
        return await self._ask(slot, lambda owner: owner.features.remote(asked))

    async def count(self, brand: str, rule: Rule) -> Count:
        """Count the players that match `rule`, each of the 256 shards once, at one moment."""

        async def ask(handle: Handle, as_of_us: int) -> CountPart:
            return decode_count(await handle.count.remote(encode(CountCall(brand, rule, as_of_us))))

        parts = await self._patiently(partial(self._all_owners, ask))
        sample = [player for part in parts for player in part.sample]
        return Count(
            count=sum(part.count for part in parts),
            total=sum(part.total for part in parts),
            as_of=from_us(parts[0].as_of_us),
            sample=sorted(sample)[:SAMPLE],
            terms=summed([part.terms for part in parts]),
            clusters=by_cluster([part.clusters for part in parts]),
        )

    async def members(self, brand: str, rule: str, after: str, limit: int) -> Members:
        """Return the first players after `after` that match, of all shards at one moment."""

        def ask(handle: Handle, as_of_us: int) -> Awaitable[MembersPart]:
            return handle.members.remote(self._brands[brand], rule, after, limit, as_of_us)

        parts = await self._patiently(partial(self._all_owners, ask))
        in_order = merge(*[part.player_ids for part in parts])
        return Members(from_us(parts[0].as_of_us), list(islice(in_order, limit)))

    async def known(self, brand: str, player_ids: Sequence[str]) -> int:
        """Count those of `player_ids` that some owner knows."""

        def ask(handle: Handle, as_of_us: int) -> Awaitable[KnownPart]:
            return handle.known.remote(brand, player_ids, as_of_us)

        return sum(part.known for part in await self._patiently(partial(self._all_owners, ask)))

    async def explain(self, brand: str, rule: str, player_id: str) -> Explained:
        """Explain a rule for a player, live; raises PlayerNotFound, InvalidRule."""
        shard = shard_of(brand, player_id)

        async def attempt() -> Explained:
            slot = (await self._known_routes()).slot_of[shard]
            of_brand = self._brands[brand]
            found = await self._ask(
                slot, lambda owner: owner.explain.remote(of_brand, rule, player_id, shard)
            )
            routes = await self._known_routes()
            if found.epoch < routes.slots[routes.slot_of[shard]].state.epochs.get(shard, 0):
                raise ShardsWarming("an answer of a former owner")
            return found

        return await self._patiently(attempt)

    async def columns(self, brand: str, names: Sequence[str]) -> Columns:
        """Return features of all players of a brand at one moment."""

        def ask(handle: Handle, as_of_us: int) -> Awaitable[ColumnsPart]:
            return handle.columns.remote(brand, list(names), as_of_us)

        parts = await self._patiently(partial(self._all_owners, ask))
        return Columns(
            as_of=from_us(parts[0].as_of_us),
            player_ids=[player for part in parts for player in part.player_ids],
            values={n: np.concatenate([part.values[n] for part in parts]) for n in names},
            missing={
                n: np.concatenate([part.missing[n] for part in parts])
                for n in names
                if n in parts[0].missing
            },
        )

    async def day_totals(
        self, brand: str, asked: Days, spans: Sequence[Days]
    ) -> tuple[datetime, DayTotals]:
        """Return what all players did by day, each of the 256 shards once, and at which moment."""

        def ask(handle: Handle, as_of_us: int) -> Awaitable[TotalsPart]:
            return handle.day_totals.remote(self._brands[brand], asked, spans, as_of_us)

        parts = await self._patiently(partial(self._all_owners, ask))
        return from_us(parts[0].as_of_us), joined([part.totals for part in parts])

    async def of_players(
        self, brand: str, player_ids: Sequence[str], names: Sequence[str]
    ) -> SomePlayers:
        """Return features of some players, each by the owner of its shard, at one moment."""
        asked = [FeaturesOf(brand, player, shard_of(brand, player)) for player in player_ids]

        async def attempt() -> SomePlayers:
            routes = await self._known_routes()
            places: dict[int, list[int]] = {}
            for place, one in enumerate(asked):
                places.setdefault(routes.slot_of[one.shard], []).append(place)
            parts = await self._of_slots(
                {slot: [asked[place] for place in some] for slot, some in places.items()}, names
            )
            as_of = from_us(parts[0].as_of_us) if parts else self._now()
            found = [(part.known, part.values, part.missing) for part in parts]
            return in_order(
                as_of, len(asked), names, list(zip(places.values(), found, strict=True))
            )

        return await self._patiently(attempt)

    async def _of_slots(
        self, asked: Mapping[int, Sequence[FeaturesOf]], names: Sequence[str]
    ) -> list[PlayersPart]:
        """Ask the owners of some players, at one moment; of one owner that is its own now."""

        async def ask(as_of_us: int | None) -> list[PlayersPart]:
            return await asyncio.gather(
                *[self._ask(slot, _players(some, names, as_of_us)) for slot, some in asked.items()]
            )

        parts = await (ask(None) if len(asked) <= 1 else self._at_one_moment(ask))
        routes = await self._known_routes()
        for part in parts:
            for shard, epoch in part.epochs.items():
                if epoch < routes.slots[routes.slot_of[shard]].state.epochs.get(shard, 0):
                    raise ShardsWarming("an answer of a former owner")
        return parts

    async def of_shard(self, brand: str, shard: int) -> ShardFeatures:
        """Return all features of a shard's players of a brand, in one copy."""

        async def attempt() -> ShardFeatures:
            slot = (await self._known_routes()).slot_of[shard]
            found = await self._ask(slot, lambda owner: owner.shard_features.remote(brand, shard))
            if found.epoch != (await self._log.epochs())[shard]:
                raise ShardsWarming("an answer of a former owner")
            return found

        return await self._patiently(attempt)

    async def _all_owners(self, ask: Callable[[Handle, int], Awaitable[Part]]) -> list[Part]:
        """Ask every owner at one moment; each shard must answer once, in its current epoch.

        The epochs are asked for meanwhile: an owner's lease says of the moment of its answer what
        the epochs say of the moment of the question (docs/decisions/0003).
        """
        current: dict[int, int] = {}

        async def ask_all(as_of_us: int) -> list[Part]:
            slots = sorted(set((await self._known_routes()).slot_of))
            one = partial(_asking, ask, as_of_us)
            asked = asyncio.gather(*[self._ask(slot, one) for slot in slots])
            epochs, parts = await asyncio.gather(self._log.epochs(), asked)
            current.update(epochs)
            return parts

        parts = await self._at_one_moment(ask_all)
        epochs = {s: epoch for part in parts for s, epoch in part.epochs.items()}
        if sum(len(part.epochs) for part in parts) != SHARDS or epochs != current:
            raise ShardsWarming("not every shard is served by its owner; try again")
        return parts

    async def _at_one_moment(self, ask: Callable[[int], Awaitable[list[Part]]]) -> list[Part]:
        """Ask until all answers are of one moment, a little ahead of now."""
        as_of_us = 0
        for _ in range(MOMENTS_TRIED):
            began_us = to_us(self._now())
            as_of_us = max(as_of_us, _next_moment(began_us + self._lead_us))
            parts = await ask(as_of_us)
            latest = max(part.as_of_us for part in parts)
            if all(part.as_of_us == latest for part in parts):
                self._lead_us = max(LEAD_US, self._lead_us * 7 // 8)
                return parts
            # what would have been far enough, for the next one too: busy owners stay busy a while
            self._lead_us = min(latest - began_us + LEAD_US, MOST_LEAD_US)
            as_of_us = latest + LEAD_US
        raise ShardsWarming("the owners' clocks do not agree; try again")

    # --- owners ---------------------------------------------------------------------------------

    async def routes(self) -> Routes:
        """Return who owns what, freshly asked."""
        return await self._refresh()

    async def _ask(self, slot: int, call: Callable[[Handle], Awaitable[Result]]) -> Result:
        """Return the answer of a slot's owner, given up once it is no longer the owner.

        A process that is stopped (SIGSTOP, swapping, a lost node) never answers and never fails.
        """
        asked = _slot(await self._known_routes(), slot)
        answer = asyncio.ensure_future(call(asked.handle))
        try:
            while not (await asyncio.wait({answer}, timeout=SILENCE_S))[0]:
                if _slot(await self._refresh(), slot).name != asked.name:
                    raise ShardsWarming("the shard's owner was replaced; try again")
            return answer.result()
        finally:
            answer.cancel()

    async def _patiently(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Try until the shards are served, for at most WAIT_S; then ShardsWarming is the answer."""
        deadline = asyncio.get_running_loop().time() + WAIT_S
        while True:
            try:
                return await attempt()
            except (RayActorError, RayTaskError, ShardsWarming) as error:
                cause = _domain_error(error)
                if not isinstance(cause, ShardsWarming):
                    raise cause from error
                if asyncio.get_running_loop().time() > deadline:
                    raise cause from error
            await asyncio.sleep(PAUSE_S)
            with suppress(ShardsWarming):  # nobody is known yet: there is time left
                await self._refresh()

    async def _known_routes(self) -> Routes:
        return self._routes if self._routes is not None else await self._refresh()

    async def _refresh(self) -> Routes:
        """Ask the supervisor who owns what; concurrent callers share one question."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.ensure_future(self._ask_routes())
        try:
            # shielded: a caller that gives up must not take the others' answer away
            routes = await asyncio.shield(self._refreshing)
            if routes.slots:
                self._routes = routes
                gone = {*self._coalescers, *self._readers} - routes.slots.keys()
                for slot in gone:  # its number never comes back
                    self._coalescers.pop(slot, None)
                    self._readers.pop(slot, None)
        except (RayActorError, ValueError, TimeoutError):
            log.warning("supervisor_away")
        if self._routes is None:
            raise ShardsWarming("the shards are not being served yet; try again")
        return self._routes


async def _ask_supervisor() -> Routes:
    supervisor: ActorProxy[Supervisor] = ray.get_actor(NAME, namespace=NAMESPACE)
    return await asyncio.wait_for(supervisor.routes.remote(), WAIT_S)


def _by_slot(
    routes: Routes, groups: Sequence[Group], indexes: Iterable[int]
) -> dict[int, list[int]]:
    by_slot: dict[int, list[int]] = {}
    for index in indexes:
        by_slot.setdefault(routes.slot_of[groups[index][0].shard], []).append(index)
    return by_slot


def _slot(routes: Routes, slot: int) -> Slot:
    """Return a slot, which may have been given up since the caller learned of it."""
    if slot not in routes.slots:
        raise ShardsWarming("these shards have gone to another owner; try again")
    return routes.slots[slot]


def _next_moment(us: int) -> int:
    """Return the next moment of a grid: the same for all who ask at about the same time.

    Counts that overlap would else push the owners' clocks past each other's moments.
    """
    return (us // LEAD_US + 1) * LEAD_US


def _asking(
    ask: Callable[[Handle, int], Awaitable[Part]], as_of_us: int, owner: Handle
) -> Awaitable[Part]:
    return ask(owner, as_of_us)


def _players(
    asked: Sequence[FeaturesOf], names: Sequence[str], as_of_us: int | None
) -> Callable[[Handle], Awaitable[PlayersPart]]:
    return lambda owner: owner.of_players.remote(asked[0].brand, asked, names, as_of_us)


def _domain_error(error: Exception) -> Exception:
    """Return the fact behind Ray's error: what the owner raised, or that it is gone."""
    if isinstance(error, RayActorError):
        return ShardsWarming("the shard's owner is being replaced; try again")
    cause: Any = getattr(error, "cause", None)
    return cause if isinstance(cause, CrmError) else error
