"""The owner of virtual shards: one writer per player, group commit, live features.

Plain asyncio, no Ray: actors/feature_shard.py is its shell. Features change only after the commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
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
from crm.domain.events import LoggedEvent
from crm.domain.feature_table import FeatureTable
from crm.domain.live_scores import ServingScores
from crm.domain.membership import Watched
from crm.domain.ports import Appended, Claim, EventLog, Files, Past, SnapshotName
from crm.domain.times import from_us, to_us
from crm.services.measure_backfill import MeasureBackfill
from crm.services.shard_adoption import Adoption, newest_snapshots
from crm.services.shard_members import (
    ModelSource,
    OwnersTelling,
    SegmentSource,
    ShardMembers,
)
from crm.services.shard_snapshots import ShardSnapshot
from crm.services.shard_tables import ShardTables
from crm.services.watched_models import NoModels
from crm.services.write_queue import WriteQueue

log = structlog.get_logger(__name__)

MAX_BATCH = 4_000  # events a transaction: larger ones only add latency
MAX_WAITING = 100_000  # events in the queue: beyond, callers are asked to wait
# An owner believes itself for so long after it asked PostgreSQL, and a successor waits as long
# before it serves: what it has acknowledged is in every answer.
LEASE_S = 1.0
_SNAPSHOT_PACE = 0.8  # of the age that is allowed: one that is written meanwhile is older
MAX_LEAD = timedelta(seconds=2)
SCORED_AT_ONCE = 1_024  # players, before others have their turn: some 10 ms
_SCORE_EVERY_S = 0.1  # a call of a model costs as much as some hundred players


@dataclass(frozen=True)
class Stores:
    """What an owner stands on: connections of which none waits behind another.

    `log` is the writer's; `side` asks for the epochs; `history` claims shards, and `past` has their
    events, however old.
    """

    log: EventLog
    side: EventLog
    history: EventLog
    past: Past
    files: Files
    segments: SegmentSource
    models: ModelSource = field(default_factory=NoModels)


class ShardOwner:
    """Owns the shards that it has adopted, until it releases them or another owner claims them."""

    def __init__(
        self,
        name: str,
        brands: Mapping[str, Brand],
        stores: Stores,
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = name
        self.brands = brands
        self._stores = stores
        self._now = now
        self._sleep = sleep
        self.max_batch = MAX_BATCH  # 1: each caller has a transaction of its own
        self.scored_at_once = SCORED_AT_ONCE
        self.epochs: dict[int, int] = {}  # of the shards that are served
        self.heads: dict[int, int] = {}
        self._arriving: dict[int, int] = {}  # epochs of shards that are claimed, not yet served
        self._tables = ShardTables(brands, now)
        self._members = ShardMembers(name, brands, self._tables)
        self._live: tuple[int, Watched] | None = None  # with their revision
        self._serving: Mapping[str, ServingScores] = {}
        self._listed: frozenset[int] = frozenset()  # shards whose players are on its lists
        self._learning = asyncio.Lock()
        self._wanted: set[int] = set()  # shards that are to be adopted, claimed or not yet
        self._writing = asyncio.Lock()
        self._snapshot_seqs: dict[int, int] = {}
        self._backfill = MeasureBackfill(ShardTables(brands, now))
        self._queue = WriteQueue()
        self._moving = asyncio.Lock()
        self.lost_all = asyncio.Event()
        self._doubtful = False  # a commit's outcome is unknown
        self._in_doubt: OwnersTelling | None = None  # what was told with it
        self._verified = _loop_time()
        self._former: set[int] = set()

    # --- shards come and go ---------------------------------------------------------------------

    async def adopt(self, shards: Iterable[int], *, released: bool = False) -> None:
        """Claim shards, bring them in beside what is served, and serve them too.

        `released`: their former owner has said that it lets go of them. Without that word it may
        still believe itself, and is waited for. Shards that are served already stay as they are.
        """
        async with self._moving:
            if self.lost_all.is_set():
                raise ShardsWarming("this owner is about to leave")
            wanted = sorted(set(shards) - self.epochs.keys())
            if not wanted:
                return
            stores = self._stores
            self._wanted = set(wanted)
            try:
                await self._learn_segments()
                if self._asks_scores():  # else they are learnt while it serves
                    await self._learn_models()
                claims = await stores.history.claim(wanted, self.name)
                claimed = _loop_time()
                self._arriving = {shard: claim.epoch for shard, claim in claims.items()}
                adoptions = [
                    Adoption(some, self._tables_at(clock_us), self._backfill)
                    for clock_us, some in _by_clock(claims).items()
                ]
                replayed = 0
                for adoption in adoptions:
                    replayed += await adoption.run(stores.history, stores.past, stores.files)
                    await self._score_arriving(adoption)
                if not released and any(claim.epoch > 1 for claim in claims.values()):
                    await self._sleep(max(0.0, claimed + LEASE_S - _loop_time()))
                for adoption in adoptions:
                    await self._serve(adoption)
            finally:
                self._arriving, self._wanted = {}, set()
        log.info("shards_ready", owner=self.name, shards=len(wanted), replayed=replayed)

    async def prepare(self, shards: Sequence[int]) -> None:
        """Count, ahead of an adoption, what the shards' snapshots lack of this owner's measures.

        Whoever serves them goes on meanwhile; the adoption counts only what has come since.
        """
        async with self._moving:
            stores = self._stores
            newest = newest_snapshots(stores.history, stores.files, shards)
            lacking = [snapshot async for snapshot in newest if self._tables.lacking(snapshot)]
            await self._backfill.count(stores.past, lacking)

    async def _serve(self, adoption: Adoption) -> None:
        """Serve what has arrived: each shard whole between two awaits, the first all at once."""
        members = self._members_of(adoption)
        first = not self.epochs
        if first:
            self._tables, self._members = adoption.tables, members
            self._tables.serve(self._serving)
            gone = adoption.claims.keys() - self._arriving.keys()
            self._tables.drop(gone)
            self._members.drop(gone)
        elif self._live is not None:
            self._members.list_more(self._live[1])
        pending = members.leave()
        for shard, claim in adoption.claims.items():
            if not first:
                await self._agree(adoption, members)
                pending += members.leave()  # what was caused before it went over to other models
            if shard not in self._arriving:  # lost again
                continue
            if not first:
                self._tables.take(shard, adoption.tables)
                self._members.take(shard, members)
            self._members.arrive([shard], [one for one in pending if one.shard == shard])
            self.epochs[shard] = self._arriving.pop(shard)
            self.heads[shard] = claim.seq
            self._snapshot_seqs[shard] = adoption.snapshot_seqs.get(shard, 0)
            self._former.discard(shard)
            if not first:
                await asyncio.sleep(0)

    def _tables_at(self, clock_us: int | None) -> ShardTables:
        """Return tables whose clock stands where the shards' transitions do; None: nowhere yet."""
        at = None if clock_us is None else from_us(clock_us)
        return ShardTables(self.brands, self._now if at is None else lambda: at)

    def _members_of(self, adoption: Adoption) -> ShardMembers:
        """Return who is in as it was told; what the clock has caused since is pending."""
        members = ShardMembers(self.name, self.brands, adoption.tables)
        if self._live is not None and self._live[1]:
            members.use(self._live[1])
        adoption.tables.follow(self._now)
        adoption.tables.advance()
        members.tick()
        return members

    async def release(self, shards: Iterable[int]) -> list[int]:
        """Stop owning shards, after a fresh snapshot of each; return those that were owned.

        From then on this owner answers nothing about them, and writes to them are `moved`.
        """
        async with self._moving:
            asked = list(shards)
            for shard in asked:
                await self._snapshot_if_changed(shard)
            await self._verify()  # what somebody else has claimed is not ours to release
            released = [shard for shard in asked if shard in self.epochs]
            self._forget(released)
        log.info("shards_released", owner=self.name, shards=len(released))
        return released

    def give_up(self) -> None:
        """Let go of every shard: a successor starts afresh."""
        self._lose([*self.epochs, *self._arriving])

    def _lose(self, lost: Sequence[int]) -> None:
        """Forget shards that have another owner."""
        log.warning("shards_lost", owner=self.name, shards=len(lost))
        self._former.update(lost)
        self._forget(lost)
        if not self.epochs and not self._arriving:
            self.lost_all.set()

    def _forget(self, shards: Sequence[int]) -> None:
        for shard in shards:
            for known in (self.epochs, self.heads, self._arriving, self._snapshot_seqs):
                known.pop(shard, None)
        self._tables.drop(shards)
        self._members.drop(shards)

    # --- writing --------------------------------------------------------------------------------

    async def append(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        """Store groups of events durably; returns a verdict per event after the commit."""
        if self._queue.events > MAX_WAITING:
            raise ShardsWarming("the shard's queue is full; try again")
        if unknown := {group[0].brand for group in groups} - self.brands.keys():
            raise BrandNotFound(
                f"the running service has no brand {min(unknown)!r}: run `crm apply`"
            )
        return await self._queue.put(groups)

    async def write_forever(self) -> None:
        """Commit what waits, many callers at a time; without a shard left, all is `moved`."""
        while True:
            batch = await self._queue.take(self.max_batch)
            try:
                async with self._writing:
                    batch.answer(await self._commit(batch.groups))
            except Exception as error:
                if isinstance(error, CrmError) and not isinstance(error, LogGap):
                    batch.fail(error)
                    await asyncio.sleep(0.05)  # a database that is away is not asked without pause
                    if self._doubtful:  # reads wait for the answer, whether anybody writes or not
                        self._queue.wake()
                    continue
                # nobody foresaw it, so nobody knows what was applied: a successor starts afresh
                log.exception("writer_failed", owner=self.name)
                self.give_up()
                batch.fail(ShardsWarming("the shard's owner is being replaced; try again"))

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
        stale = {event.shard for group in groups for event in group} & self._former
        if appended.lost:
            self._lose(appended.lost)
        if stale:  # of a shard that was known to be lost: the log saw no epoch to refuse
            with suppress(DatabaseAway):  # the others' events are committed all the same
                await self._stores.side.count_stale_refusals(stale)
        return [_as_first_told(*told, ours) for told in zip(groups, appended.verdicts, strict=True)]

    async def _append(self, groups: list[Group]) -> Appended:
        """Append and apply."""
        await self._score_in_slices()
        self._use_segments()
        self._take_scores()
        epochs, telling = dict(self.epochs), self._members.telling()
        if not groups and not telling.due:
            return Appended([], [], [], [])
        try:
            appended = await self._stores.log.append(epochs, groups, telling)
        except (CommitUnknown, asyncio.CancelledError):  # who stops may do so during a commit
            self._doubtful, self._in_doubt = True, telling
            raise
        self._advance(list(zip(appended.seqs, appended.new, strict=True)), epochs, telling)
        return appended

    async def _settle(self) -> set[EventKey]:
        """Read the log above the heads after an unknown commit; returns the ids found.

        The commit may still be under way in PostgreSQL: `heads` waits for its end.
        """
        if not self._doubtful:
            return set()
        epochs, heads = dict(self.epochs), dict(self.heads)
        reached = await self._stores.log.heads(list(epochs))
        await self._verify()
        # all of it before any of it: chunks come in no order, and the heads pass only what is whole
        found = [item async for chunk in self._stores.log.read_after(heads) for item in chunk]
        found.sort(key=lambda item: item[0])
        # all of a transaction or nothing: what was told with it, stands with its events
        self._advance(found, epochs, self._in_doubt if found else None)
        if any(self.heads.get(shard, seq) < seq for shard, seq in reached.items()):
            raise LogGap("the log lacks events that a commit has numbered")
        self._doubtful, self._in_doubt = False, None
        log.info("commit_settled", owner=self.name, committed=len(found))
        return {(event.brand, event.event_id) for _, event in found}

    def _advance(
        self,
        committed: Sequence[tuple[int, LoggedEvent]],
        epochs: Mapping[int, int],
        telling: OwnersTelling | None,
    ) -> None:
        """Apply what is committed under `epochs`, each shard's in order.

        Not what is of a shard that has gone since, or that has gone and come back with it.
        """
        kept = {shard for shard, epoch in epochs.items() if self.epochs.get(shard) == epoch}
        ours = [(seq, event) for seq, event in committed if event.shard in kept]
        for seq, event in ours:
            if seq != self.heads[event.shard] + 1:
                raise LogGap(f"shard {event.shard} goes from {self.heads[event.shard]} to {seq}")
            self.heads[event.shard] = seq
        applied = [event for _, event in ours]
        self._tables.apply(applied)
        if telling is not None:
            self._members.settle(telling, applied)

    # --- segments -------------------------------------------------------------------------------

    async def _learn_segments(self) -> None:
        """Read the live segments again, if any has changed; the writer goes over to them.

        And the lists of those that there are, if further shards need them.
        """
        source = self._stores.segments
        async with self._learning:  # what was asked for fewer shards must not come last
            shards = frozenset(self._wanted | self.epochs.keys())
            while True:
                revision, known = await source.revision(), self._live
                if known is not None and known[0] == revision and shards <= self._listed:
                    return
                live = await source.live(shards)
                if known is None or known[0] != revision:
                    self._live, self._listed = (revision, live), shards
                elif await source.revision() == revision:  # else the lists may be newer than it
                    known[1].lists, self._listed = live.lists, shards

    def _use_segments(self) -> None:
        if self._live is not None and self._members.live is not self._live[1]:
            self._members.use(self._live[1])

    # --- scores ---------------------------------------------------------------------------------

    async def _learn_models(self) -> None:
        """Know which models serve; where others do than before, they score all in slices."""
        self._serving = await self._stores.models.live()
        self._tables.serve(self._serving)

    def _take_scores(self) -> None:
        """Go over to the scores of new models that have scored all players."""
        for brand in self._tables.scored(self.scored_at_once):
            self._members.take_scores(brand)
            log.info("scores_changed", owner=self.name, brand=brand)

    async def _score_arriving(self, adoption: Adoption) -> None:
        """Score shards that arrive by the clock up to which all is told, if a segment asks."""
        if self._asks_scores():
            await self._score_as_here(adoption.tables)
            adoption.tables.take_scores()

    async def _agree(self, adoption: Adoption, members: ShardMembers) -> None:
        """Have what arrives go over to the models that are read here, without a word.

        They may be others than those it was scored with; what the clock has caused by those, is
        told. There is no await after the last look: what comes next, finds both sides agreed.
        """
        while members.live.asking and (others := adoption.tables.reading_others(self._reading())):
            await self._score_as_here(adoption.tables)
            for brand in others:
                members.take_scores(brand)

    async def _score_as_here(self, tables: ShardTables) -> None:
        """Score all players of `tables` with the models that are read here, in slices."""
        tables.serve(self._reading())
        more = True
        while more:
            more = tables.renew_scores(self.scored_at_once)
            await asyncio.sleep(0)

    def _reading(self) -> Mapping[str, ServingScores]:
        """Return the models whose scores are read; before there is a shard: will be read."""
        return self._tables.reading() if self.epochs else self._serving

    def _asks_scores(self) -> bool:
        return self._live is not None and bool(self._live[1].asking)

    async def _score_in_slices(self) -> None:
        """Leave few players whose scores are not those of their features, as after a midnight.

        Of the brands alone whose segments ask for scores: a commit waits for nobody else's.
        """
        self._tables.advance()
        more = self._tables.renew_late(self._members.live.asking, self.scored_at_once)
        while more:
            await asyncio.sleep(0)
            more = self._tables.renew_late(self._members.live.asking, self.scored_at_once)

    async def score_forever(self) -> None:
        """Score who has changed, a slice at a time, so that readers find little to do."""
        asked = -LEASE_S
        while not self.lost_all.is_set():
            if _loop_time() - asked > LEASE_S / 4:
                asked = _loop_time()
                with suppress(DatabaseAway):  # whoever renews the lease says so
                    await self._learn_models()
            more = self._tables.renew_scores(self.scored_at_once)
            if self._tables.scored(self.scored_at_once):
                self._queue.wake()  # the writer goes over to them
            await asyncio.sleep(0 if more else _SCORE_EVERY_S)

    async def _tell_until(self, clock_us: int) -> None:
        """Have all transitions written up to a moment that has passed."""
        while self._members.live and self._members.told_us < clock_us:
            async with self._writing:
                self._members.must_tell()
                await self._commit([])

    # --- reading --------------------------------------------------------------------------------

    async def table(self, brand: str, as_of: datetime | None = None) -> FeatureTable:
        """Return the brand's table, advanced to `as_of` (default: now), if we may be believed.

        The table's own clock may be past `as_of`; read nothing after the next await.
        """
        await self._trust()
        if self._doubtful:
            raise ShardsWarming("the outcome of a commit is being read back; try again")
        now = self._now()
        if as_of is not None and as_of > now + MAX_LEAD:
            raise ShardsWarming("the caller's clock is ahead of the shard's")
        table = self._tables.of(brand)
        table.advance(to_us(as_of or now))
        return table

    async def scored_table(self, brand: str, as_of: datetime | None = None) -> FeatureTable:
        """Return the brand's table as `table` does, for a reader of scores: few are to be made."""
        table = await self.table(brand, as_of)
        table.age_scores()  # who has not been looked at for a day, is late too
        while table.scores.late > self.scored_at_once:
            table.renew_scores(self.scored_at_once)
            await asyncio.sleep(0)
            table = await self.table(brand, as_of)
            table.age_scores()
        return table

    @property
    def players(self) -> int:
        """How many players of all brands are held."""
        return self._tables.players

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
        held = {**self._arriving, **self.epochs}
        # what was asked before a claim may be answered after it: epochs only rise
        lost = [shard for shard, epoch in held.items() if current[shard] > epoch]
        if lost:
            self._lose(lost)

    async def beat_forever(self) -> None:
        """Renew the lease, let windows move on, notice that a shard is lost."""
        while not self.lost_all.is_set():
            try:
                await self._verify()
                await self._learn_segments()
            except CrmError as error:
                log.warning("ownership_unverified", owner=self.name, error=error.code)
            self._tables.advance()
            live = None if self._live is None else self._live[1]
            if live is not None and (live or self._members.live is not live):
                self._queue.wake()  # the clock may have caused something, or a list has come
            await asyncio.sleep(LEASE_S / 4)

    # --- snapshots ------------------------------------------------------------------------------

    async def snapshot_forever(self, age_s: float) -> None:
        """Write the shards that changed in turn: no snapshot is older than about `age_s`.

        What was dropped is tidied up at the same pace.
        """
        while not self.lost_all.is_set():
            due, shards = _loop_time(), list(self.epochs)
            for shard in shards:
                due += _SNAPSHOT_PACE * age_s / len(shards)
                await asyncio.sleep(max(due - _loop_time(), 0))
                await self._snapshot_if_changed(shard)
                self._tables.tidy()
            if not shards:
                await asyncio.sleep(age_s)

    async def _snapshot_if_changed(self, shard: int) -> None:
        """Write a shard's snapshot if its newest is older; what fails is tried again in time."""
        if self.heads.get(shard, 0) <= self._snapshot_seqs.get(shard, 0):
            return
        try:
            await self.snapshot(shard)
        except Exception as error:  # noqa: BLE001 - the next may succeed; the log is whole
            log.warning("snapshot_failed", shard=shard, error=type(error).__name__)

    async def snapshot(self, shard: int) -> None:
        """Write one shard's features to the lake, then list them under the epoch."""
        if self._doubtful or shard not in self.epochs:
            return
        epoch, seq = self.epochs[shard], self.heads[shard]
        snapshot = self._tables.snapshot(shard, seq)
        found = SnapshotName(shard, seq, f"snapshots/{shard:03d}/{epoch}-{seq}.snap")
        data = await asyncio.to_thread(self._write, found.name, snapshot)
        await self._tell_until(snapshot.now_us)  # so that no snapshot is ahead of what is told
        for name in await self._stores.side.record_snapshot(found, epoch, len(data)):
            await asyncio.to_thread(self._stores.files.delete, name)
        if self.epochs.get(shard) == epoch:
            self._snapshot_seqs[shard] = seq

    def _write(self, name: str, snapshot: ShardSnapshot) -> bytes:
        data = snapshot.encode()
        self._stores.files.write(name, data)
        return data

    async def stop(self) -> None:
        """Snapshot what changed, so that the next start is quick, and let go of the stores."""
        for shard in list(self.epochs):
            await self._snapshot_if_changed(shard)
        for store in (self._stores.log, self._stores.side, self._stores.history):
            await store.close()


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _by_clock(claims: Mapping[int, Claim]) -> dict[int | None, dict[int, Claim]]:
    """Return the claims by where their shards' transitions stand."""
    found: dict[int | None, dict[int, Claim]] = {}
    for shard, claim in claims.items():
        found.setdefault(claim.clock_us, {})[shard] = claim
    return found


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
