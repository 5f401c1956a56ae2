"""The owner of virtual shards: one writer per player, group commit, live features, recovery.

Plain asyncio, no Ray: actors/feature_shard.py is its shell. Features change only after the commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from crm.domain.appending import EventKey, Group, Verdict
from crm.domain.brands import Brand
from crm.domain.errors import (
    BrandNotFound,
    CommitUnknown,
    CrmError,
    DatabaseAway,
    LogGap,
    ShardsWarming,
)
from crm.domain.event_columns import EventColumns
from crm.domain.events import LoggedEvent
from crm.domain.feature_table import FeatureTable
from crm.domain.ports import Appended, EventLog, Files, SnapshotName
from crm.domain.times import to_us
from crm.services.shard_snapshots import ShardSnapshot

log = structlog.get_logger(__name__)

MAX_BATCH = 4_000  # events a transaction: larger ones only add latency
MAX_WAITING = 100_000  # events in the queue: beyond, callers are asked to wait
# An owner believes itself for so long after it asked PostgreSQL, and a successor waits as long
# before it serves: what it has acknowledged is in every answer.
LEASE_S = 1.0
MAX_LEAD = timedelta(seconds=2)


@dataclass(frozen=True)
class Stores:
    """What an owner stands on; `side` is a connection that never waits behind the writer."""

    log: EventLog
    side: EventLog
    files: Files


@dataclass
class _Waiting:
    groups: Sequence[Group]
    size: int
    done: asyncio.Future[list[list[Verdict]]]


class ShardOwner:
    """Owns `shards` from `start` on, until another owner claims them."""

    def __init__(
        self,
        name: str,
        shards: Sequence[int],
        brands: Mapping[str, Brand],
        stores: Stores,
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = name
        self._shards = list(shards)
        self._brands = brands
        self._stores = stores
        self._now = now
        self._sleep = sleep
        self.epochs: dict[int, int] = {}
        self.heads: dict[int, int] = {}
        self._tables: dict[str, FeatureTable] = {}
        self._snapshot_seqs: dict[int, int] = {}
        self._queue: list[_Waiting] = []
        self._queued = 0
        self._arrived = asyncio.Event()
        self.lost_all = asyncio.Event()
        self._ready = False
        self._doubtful = False  # a commit's outcome is unknown
        self._verified = _loop_time()
        self._former: set[int] = set()

    # --- becoming the owner ---------------------------------------------------------------------

    async def start(self) -> None:
        """Claim the shards, load their newest snapshots and replay the log above them."""
        claims = await self._stores.log.claim(self._shards, self.name)
        claimed = _loop_time()
        self.epochs = {shard: claim.epoch for shard, claim in claims.items()}
        self.heads = dict.fromkeys(self._shards, 0)
        await self._load_snapshots()
        replayed = await self._replay({shard: claim.seq for shard, claim in claims.items()})
        if any(claim.epoch > 1 for claim in claims.values()):  # a former owner may still answer
            await self._sleep(max(0.0, claimed + LEASE_S - _loop_time()))
        self._ready = True
        log.info("shards_ready", owner=self.name, shards=len(self._shards), replayed=replayed)

    async def _load_snapshots(self) -> None:
        """Load the newest readable snapshot of each shard; without one the replay is longer."""
        for found in await self._stores.log.snapshots(self._shards):
            if self.heads[found.shard]:
                continue
            try:
                data = await asyncio.to_thread(self._stores.files.read, found.name)
                snapshot = ShardSnapshot.decode(data)
            except (OSError, ValueError) as error:
                log.warning("snapshot_unreadable", name=found.name, error=type(error).__name__)
                continue
            self._load(snapshot)

    def _load(self, snapshot: ShardSnapshot) -> None:
        for brand, part in snapshot.brands.items():
            table = self._table(brand)
            table.advance(snapshot.now_us)  # its buckets are those of its own clock
            table.load(snapshot.shard, part)
        self.heads[snapshot.shard] = self._snapshot_seqs[snapshot.shard] = snapshot.seq

    async def _replay(self, seqs: Mapping[int, int]) -> int:
        """Apply the log above the heads, which must hold each number up to `seqs` just once."""
        seen = {shard: bytearray(max(0, seq - self.heads[shard])) for shard, seq in seqs.items()}
        replayed = 0
        async for chunk in self._stores.log.read_after(self.heads):
            for seq, event in chunk:
                numbers, place = seen[event.shard], seq - self.heads[event.shard] - 1
                if place >= len(numbers) or numbers[place]:
                    raise LogGap(f"shard {event.shard} has {seq} twice, or beyond the log's end")
                numbers[place] = 1
            self._apply([event for _, event in chunk])
            replayed += len(chunk)
            await asyncio.sleep(0)  # a ping may come in between
        broken = [s for s, seq in seqs.items() if seq < self.heads[s] or 0 in seen[s]]
        if broken:
            raise LogGap(f"the log of shards {broken} lacks events that were acknowledged")
        self.heads = dict(seqs)
        return replayed

    # --- writing --------------------------------------------------------------------------------

    async def append(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        """Store groups of events durably; returns a verdict per event after the commit."""
        self._must_be_ready()
        if self._queued > MAX_WAITING:
            raise ShardsWarming("the shard's queue is full; try again")
        if unknown := {group[0].brand for group in groups} - self._brands.keys():
            raise BrandNotFound(f"the running service has no brand {min(unknown)!r}; restart it")
        waiting = _Waiting(
            groups, sum(map(len, groups)), asyncio.get_running_loop().create_future()
        )
        self._queue.append(waiting)
        self._queued += waiting.size
        self._arrived.set()
        return await waiting.done

    async def write_forever(self) -> None:
        """Commit what waits, many callers at a time; without a shard left, all is `moved`."""
        while True:
            await self._arrived.wait()
            batch = self._next_batch()
            try:
                verdicts = await self._commit([group for item in batch for group in item.groups])
            except Exception as error:
                if isinstance(error, CrmError) and not isinstance(error, LogGap):
                    _fail(batch, error)
                    await asyncio.sleep(0.05)  # a database that is away is not asked without pause
                    if self._doubtful:  # reads wait for the answer, whether anybody writes or not
                        self._arrived.set()
                    continue
                # nobody foresaw it, so nobody knows what was applied: a successor starts afresh
                log.exception("writer_failed", owner=self.name)
                self.give_up()
                _fail(batch, ShardsWarming("the shard's owner is being replaced; try again"))
                continue
            start = 0
            for item in batch:
                if not item.done.done():
                    item.done.set_result(verdicts[start : start + len(item.groups)])
                start += len(item.groups)

    def _next_batch(self) -> list[_Waiting]:
        size = taken = 0
        while taken < len(self._queue) and (
            not taken or size + self._queue[taken].size <= MAX_BATCH
        ):
            size += self._queue[taken].size
            taken += 1
        batch, self._queue = self._queue[:taken], self._queue[taken:]
        self._queued -= size
        if not self._queue:
            self._arrived.clear()
        return batch

    async def _commit(self, groups: list[Group]) -> list[list[Verdict]]:
        """Append under the epochs, then apply; settles an earlier doubt first."""
        ours = await self._settle()
        try:
            appended = await self._append(groups)
        except CommitUnknown:
            log.warning("commit_unknown", owner=self.name)
            ours |= await self._settle()
            appended = await self._append(groups)
        except DatabaseAway:
            # once more over a new connection: the old one may have been cut while it was idle, or
            # by a successor, and then this is where the epoch refuses us
            appended = await self._append(groups)
        self._advance(list(zip(appended.seqs, appended.new, strict=True)))
        stale = {event.shard for group in groups for event in group} & self._former
        if appended.lost:
            self._drop(appended.lost)
        if stale:  # of a shard that was known to be lost: the log saw no epoch to refuse
            with suppress(DatabaseAway):  # the others' events are committed all the same
                await self._stores.side.count_stale_refusals(stale)
        return [_as_first_told(*told, ours) for told in zip(groups, appended.verdicts, strict=True)]

    async def _append(self, groups: list[Group]) -> Appended:
        try:
            return await self._stores.log.append(dict(self.epochs), groups)
        except CommitUnknown:
            self._doubtful = True
            raise

    async def _settle(self) -> set[EventKey]:
        """Read the log above the heads after an unknown commit; returns the ids found.

        The commit may still be under way in PostgreSQL: `heads` waits for its end.
        """
        if not self._doubtful:
            return set()
        reached = await self._stores.log.heads(list(self.epochs))
        await self._verify()
        # all of it before any of it: chunks come in no order, and the heads pass only what is whole
        found = [item async for chunk in self._stores.log.read_after(self.heads) for item in chunk]
        found.sort(key=lambda item: item[0])
        self._advance(found)
        if any(self.heads[shard] < reached[shard] for shard in self.epochs):
            raise LogGap("the log lacks events that a commit has numbered")
        self._doubtful = False
        log.info("commit_settled", owner=self.name, committed=len(found))
        return {(event.brand, event.event_id) for _, event in found}

    def _advance(self, committed: Sequence[tuple[int, LoggedEvent]]) -> None:
        """Apply what is committed, each shard's in order, but for shards lost meanwhile."""
        ours = [(seq, event) for seq, event in committed if event.shard in self.epochs]
        for seq, event in ours:
            if seq != self.heads[event.shard] + 1:
                raise LogGap(f"shard {event.shard} goes from {self.heads[event.shard]} to {seq}")
            self.heads[event.shard] = seq
        self._apply([event for _, event in ours])

    def _apply(self, events: Sequence[LoggedEvent]) -> None:
        now_us = to_us(self._now())
        by_brand: dict[str, list[LoggedEvent]] = {}
        for event in events:
            by_brand.setdefault(event.brand, []).append(event)
        for brand, of_brand in by_brand.items():
            table = self._table(brand)
            table.advance(now_us)
            table.apply(EventColumns.of(of_brand))

    # --- reading --------------------------------------------------------------------------------

    async def table(self, brand: str, as_of: datetime | None = None) -> FeatureTable:
        """Return the brand's table, advanced to `as_of` (default: now), if we may be believed.

        The table's own clock may be past `as_of`; read nothing after the next await.
        """
        self._must_be_ready()
        await self._trust()
        if self._doubtful:
            raise ShardsWarming("the outcome of a commit is being read back; try again")
        now = self._now()
        if as_of is not None and as_of > now + MAX_LEAD:
            raise ShardsWarming("the caller's clock is ahead of the shard's")
        table = self._table(brand)
        table.advance(to_us(as_of or now))
        return table

    @property
    def players(self) -> int:
        """How many players of all brands are held."""
        return sum(map(len, self._tables.values()))

    def owns(self, shard: int) -> bool:
        """Whether `shard` is this owner's, as far as it knows."""
        return shard in self.epochs

    async def _trust(self) -> None:
        """Make sure that nobody else may be the owner by now; a process may have been stopped."""
        if self._lease_is_over():
            await self._verify()
        if self._lease_is_over() or not self.epochs:
            raise ShardsWarming("these shards may have another owner; try again")

    def _lease_is_over(self) -> bool:
        return _loop_time() - self._verified > LEASE_S

    async def _verify(self) -> None:
        asked = _loop_time()
        current = await self._stores.side.epochs()
        self._verified = asked
        lost = [shard for shard, epoch in self.epochs.items() if current[shard] != epoch]
        if lost:
            self._drop(lost)

    def give_up(self) -> None:
        """Let go of every shard: a successor starts afresh."""
        self._drop(list(self.epochs))

    def _drop(self, lost: Sequence[int]) -> None:
        """Forget shards that have another owner."""
        log.warning("shards_lost", owner=self.name, shards=len(lost))
        self._former.update(lost)
        for shard in lost:
            self.epochs.pop(shard, None)
            self.heads.pop(shard, None)
        if not self.epochs:
            self._tables.clear()
            self.lost_all.set()
        for brand, table in self._tables.items():
            self._tables[brand] = table.without(lost)

    async def beat_forever(self) -> None:
        """Renew the lease, let windows move on, notice that a shard is lost."""
        while self.epochs or not self._ready:
            try:
                await self._verify()
            except CrmError as error:
                log.warning("ownership_unverified", owner=self.name, error=error.code)
            now_us = to_us(self._now())
            for table in self._tables.values():
                table.advance(now_us)
            await asyncio.sleep(LEASE_S / 4)

    def _must_be_ready(self) -> None:
        if not self._ready:
            raise ShardsWarming("the shard's features are being loaded; try again")

    def _table(self, brand: str) -> FeatureTable:
        table = self._tables.get(brand)
        if table is None:
            table = FeatureTable(self._brands[brand].zone, to_us(self._now()))
            self._tables[brand] = table
        return table

    # --- snapshots ------------------------------------------------------------------------------

    async def snapshot_forever(self, age_s: float) -> None:
        """Write the shards that changed in turn: no snapshot is older than about `age_s`."""
        while self.epochs or not self._ready:
            for shard in list(self.epochs):
                await asyncio.sleep(age_s / max(len(self.epochs), 1))
                if self._ready and self.heads.get(shard, 0) > self._snapshot_seqs.get(shard, 0):
                    try:
                        await self.snapshot(shard)
                    except Exception as error:  # noqa: BLE001 - the next may succeed; the log is whole
                        log.warning("snapshot_failed", shard=shard, error=type(error).__name__)

    async def snapshot(self, shard: int) -> None:
        """Write one shard's features to the lake, then list them under the epoch."""
        if self._doubtful or shard not in self.epochs:
            return
        epoch, seq = self.epochs[shard], self.heads[shard]
        parts = {brand: table.export(shard) for brand, table in self._tables.items()}
        now_us = max((table.now_us for table in self._tables.values()), default=0)
        snapshot = ShardSnapshot(
            shard, seq, now_us, {b: p for b, p in parts.items() if p.player_ids or p.ahead}
        )
        found = SnapshotName(shard, seq, f"snapshots/{shard:03d}/{epoch}-{seq}.snap")
        data = await asyncio.to_thread(self._write, found.name, snapshot)
        for name in await self._stores.side.record_snapshot(found, epoch, len(data)):
            await asyncio.to_thread(self._stores.files.delete, name)
        self._snapshot_seqs[shard] = seq

    def _write(self, name: str, snapshot: ShardSnapshot) -> bytes:
        data = snapshot.encode()
        self._stores.files.write(name, data)
        return data

    async def stop(self) -> None:
        """Snapshot what changed, so that the next start is quick, and let go of the stores."""
        for shard in list(self.epochs):
            if self.heads[shard] > self._snapshot_seqs.get(shard, 0):
                await self.snapshot(shard)
        await self._stores.log.close()
        await self._stores.side.close()


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _fail(batch: Sequence[_Waiting], error: CrmError) -> None:
    for item in batch:
        if not item.done.done():
            item.done.set_exception(error)


def _as_first_told(group: Group, verdicts: list[Verdict], ours: set[EventKey]) -> list[Verdict]:
    """Return what the commit of unknown outcome would have told: its events are new, once each."""
    if not ours or "conflict" in verdicts:
        return verdicts
    told: list[Verdict] = []
    for event, verdict in zip(group, verdicts, strict=True):
        key = (event.brand, event.event_id)
        told.append("accepted" if verdict == "duplicate" and key in ours else verdict)
        ours.discard(key)
    return told
