"""Twins in memory of the stores: for tests, and to read how a store must behave."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence

from crm.domain.appending import AppendPlan, Group, plan_append
from crm.domain.errors import CommitUnknown, DatabaseAway
from crm.domain.events import LoggedEvent
from crm.domain.live_scores import NO_SCORES, ServingScores
from crm.domain.membership import Transition, Watched
from crm.domain.ports import Appended, Claim, SnapshotName
from crm.domain.shards import SHARDS, shard_of
from crm.domain.telling import NOTHING, SILENCE, Telling, Told

KEPT_SNAPSHOTS = 2  # of a shard: the newest may be damaged


class MemoryEventLog:
    """The log's laws without a database; `away` and `lose_commit` are its faults."""

    def __init__(self) -> None:
        self.events: dict[int, list[LoggedEvent]] = {shard: [] for shard in range(SHARDS)}
        self.stale_refusals = 0
        self.away = False
        self.lose_commit: str | None = None  # "before" or "after" it happened
        self._ids: dict[tuple[str, str], bytes] = {}
        self._epochs = dict.fromkeys(range(SHARDS), 0)
        self._snapshots: list[tuple[SnapshotName, int]] = []
        self.transitions: dict[tuple[object, ...], Transition] = {}  # by what makes each unique
        self._clocks: dict[str, int] = {}  # by owner
        self._stand: dict[int, int | None] = {}  # of a shard that does not stand where its owner is
        self._owners: dict[int, str] = {}

    async def claim(self, shards: Sequence[int], owner: str) -> dict[int, Claim]:
        """Raise the epochs of `shards`."""
        self._must_answer()
        found = {}
        for shard in shards:
            self._epochs[shard] += 1
            former = self._clocks.get(self._owners.get(shard, ""))
            self._stand[shard] = self._stand.get(shard) or former
            self._owners[shard] = owner
            claim = Claim(self._epochs[shard], len(self.events[shard]), self._stand[shard])
            found[shard] = claim
        return found

    async def append(
        self, epochs: Mapping[int, int], groups: Sequence[Group], telling: Telling = SILENCE
    ) -> Appended:
        """Store what is new under the epochs."""
        self._must_answer()
        lost_before, self.lose_commit = (
            self.lose_commit == "before",
            (None if self.lose_commit == "before" else self.lose_commit),
        )
        if lost_before:
            raise CommitUnknown("lost before the commit")
        plan, seqs, told, lost = self._planned(epochs, groups, telling)
        for event in plan.new:
            self.events[event.shard].append(event)
            self._ids[event.brand, event.event_id] = event.fingerprint
        self._keep(told)
        if self.lose_commit == "after":
            self.lose_commit = None
            raise CommitUnknown("lost after the commit")
        return Appended(plan.verdicts, plan.new, seqs, sorted(lost))

    def _planned(
        self, epochs: Mapping[int, int], groups: Sequence[Group], telling: Telling
    ) -> tuple[AppendPlan, list[int], Told, set[int]]:
        """Return what is written, once the rows of all its shards could be held."""
        lost: set[int] = set()
        while True:
            plan = plan_append(groups, epochs.keys() - lost, self._ids)
            counts = plan.counts()
            held = counts.keys() | (telling.shards & epochs.keys() - lost)
            refused = {shard for shard in held if epochs[shard] != self._epochs[shard]}
            self.stale_refusals += len(refused)
            lost |= refused
            if refused:
                continue
            heads = {shard: len(self.events[shard]) + more for shard, more in counts.items()}
            seqs = plan.seqs(heads)
            due = bool(plan.new) or telling.due
            told = telling.of(plan.new, seqs, lost) if due else NOTHING
            if told is not None:
                return plan, seqs, told, lost

    def _keep(self, told: Told) -> None:
        for one in told.transitions:
            key = (one.segment, one.version, one.player_id, one.at, one.seq)
            self.transitions.setdefault(key, one)
        for shard in told.arrived:
            self._stand[shard] = None
        if told.clock_us is not None:
            self._clocks[told.owner] = told.clock_us

    async def read_after(
        self, after: Mapping[int, int]
    ) -> AsyncIterator[list[tuple[int, LoggedEvent]]]:
        """Yield the events above each shard's seq."""
        self._must_answer()
        for shard, seq in after.items():
            if events := self.events[shard][seq:]:
                yield list(enumerate(events, seq + 1))

    async def heads(self, shards: Sequence[int]) -> dict[int, int]:
        """Return the last seq of each of `shards`."""
        self._must_answer()
        return {shard: len(self.events[shard]) for shard in shards}

    async def epochs(self) -> dict[int, int]:
        """Return the current epoch of every shard."""
        self._must_answer()
        return dict(self._epochs)

    async def count_stale_refusals(self, shards: Iterable[int]) -> None:
        """Count refused writes."""
        self.stale_refusals += len(list(shards))

    async def snapshots(self, shards: Sequence[int]) -> list[SnapshotName]:
        """Return the snapshots of `shards`, best first."""
        self._must_answer()
        found = [(s, epoch) for s, epoch in self._snapshots if s.shard in set(shards)]
        return [
            s for s, _ in sorted(found, key=lambda item: (item[0].shard, -item[0].seq, -item[1]))
        ]

    async def record_snapshot(self, snapshot: SnapshotName, epoch: int, size: int) -> list[str]:
        """List a snapshot under the epoch."""
        del size
        self._must_answer()
        if self._epochs[snapshot.shard] == epoch:
            self._snapshots.append((snapshot, epoch))
        replaced = (await self.snapshots([snapshot.shard]))[KEPT_SNAPSHOTS:]
        self._snapshots = [item for item in self._snapshots if item[0] not in replaced]
        return [item.name for item in replaced]

    async def close(self) -> None:
        """Nothing to let go of."""

    def _must_answer(self) -> None:
        if self.away:
            raise DatabaseAway("the store is away")


class MemoryWatched:
    """Live segments as they are set; each change raises the revision."""

    def __init__(self, live: Watched | None = None) -> None:
        self._live = live or Watched()
        self._revision = 0

    def set(self, live: Watched) -> None:
        """Have these live."""
        self._live = live
        self._revision += 1

    async def revision(self) -> int:
        """Return how often they were set."""
        return self._revision

    async def live(self, shards: Collection[int]) -> Watched:
        """Return them, with the players of lists that are of these shards."""
        lists = {
            brand: {
                name: frozenset(one for one in players if shard_of(brand, one) in shards)
                for name, players in of_brand.items()
            }
            for brand, of_brand in self._live.lists.items()
        }
        return Watched(self._live.segments, lists)


class MemoryServing:
    """Serving models, opened, as they are set."""

    def __init__(self, live: Mapping[str, ServingScores] | None = None) -> None:
        self._live = live or {}

    def now(self, brand: str) -> ServingScores:
        """Return what serves."""
        return self._live.get(brand, NO_SCORES)

    def set(self, live: Mapping[str, ServingScores]) -> None:
        """Have these serve."""
        self._live = live

    async def live(self) -> Mapping[str, ServingScores]:
        """Return them."""
        return self._live


class MemoryFiles:
    """Files by name."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def write(self, name: str, data: bytes) -> None:
        """Store `data`."""
        self.files[name] = data

    def read(self, name: str) -> bytes:
        """Return the bytes; raises FileNotFoundError."""
        if name not in self.files:
            raise FileNotFoundError(name)
        return self.files[name]

    def delete(self, name: str) -> None:
        """Forget a file."""
        self.files.pop(name, None)
