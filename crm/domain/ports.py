"""Ports: what the use cases need from the world, and what adapters and actors provide."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from crm.domain.appending import Group, Verdict
from crm.domain.day_totals import Days, DayTotals
from crm.domain.events import LoggedEvent
from crm.domain.lake_files import LakeFile
from crm.domain.rules import Rule
from crm.domain.saved_segments import Why
from crm.domain.telling import SILENCE, Telling


class PlayerFeatures(msgspec.Struct):
    """Raw features of one player: money in minor units, times in microseconds, None missing."""

    brand: str
    player_id: str
    shard: int
    epoch: int
    as_of: datetime
    values: dict[str, int | None]


class Columns(msgspec.Struct):
    """Features of all players of a brand at one `as_of`: int64 arrays of one length, in one order.

    `missing[name]` is a mask of where the value is missing; a name without a mask has none.
    """

    as_of: datetime
    player_ids: list[str]
    values: Mapping[str, NDArray[np.int64]]
    missing: Mapping[str, NDArray[np.bool_]]


class SomePlayers(msgspec.Struct):
    """Features of the players asked for, in their order, all at one `as_of`.

    `known` says of each whether any event has told of them; who is not known has 0 everywhere.
    Values are int64 arrays; `missing[name]` masks where one is missing.
    """

    as_of: datetime
    known: NDArray[np.bool_]
    values: Mapping[str, NDArray[np.int64]]
    missing: Mapping[str, NDArray[np.bool_]]


class ShardFeatures(msgspec.Struct):
    """All features of one shard's players of a brand, in one copy: as of `seq` and `as_of`.

    Values are int64 arrays over `player_ids`; `missing[name]` masks where one is missing.
    """

    shard: int
    epoch: int
    seq: int
    as_of: datetime
    player_ids: list[str]
    values: Mapping[str, NDArray[np.int64]]
    missing: Mapping[str, NDArray[np.bool_]]


class TermCount(NamedTuple):
    """How many players match one term of a rule, and how many more would match without it."""

    matches: int
    removes: int


class ClusterCount(NamedTuple):
    """How many players of a rule are in a player cluster; None: in none that is known."""

    cluster: int | None
    matches: int


class Count(msgspec.Struct):
    """An exact count of players over all virtual shards at one `as_of`, with up to ten of them.

    `terms` is by what the rule joins with `and`, in its order; `clusters` by id, if a model serves.
    """

    count: int
    total: int
    as_of: datetime
    sample: list[str]
    terms: list[TermCount]
    clusters: list[ClusterCount] = []


class Members(msgspec.Struct):
    """Players who match a rule at one `as_of`, in the order of their ids."""

    as_of: datetime
    player_ids: list[str]


class Explained(msgspec.Struct):
    """Why a player matches a rule at `as_of`, or does not."""

    shard: int
    epoch: int
    as_of: datetime
    why: Why


class FeatureShards(Protocol):
    """The owners of all virtual shards, as one."""

    async def append(self, groups: Sequence[Sequence[LoggedEvent]]) -> list[list[Verdict]]:
        """Store events durably; return a verdict per event, in order.

        A group (events of one player) is stored whole or not at all: where one of its events is a
        conflict, its new ones are `withheld`. Raises ShardsWarming or DatabaseAway; what was
        committed before is a duplicate next time.
        """

    async def features(self, brand: str, player_id: str) -> PlayerFeatures:
        """Return all features of a player, live; raises PlayerNotFound, ShardsWarming."""

    async def count(self, brand: str, rule: Rule) -> Count:
        """Count the players that match a rule, live; raises InvalidRule, ShardsWarming."""

    async def members(self, brand: str, rule: str, after: str, limit: int) -> Members:
        """Return the first `limit` players after `after` that match a rule (text), live, in order.

        Raises InvalidRule, ShardsWarming.
        """

    async def explain(self, brand: str, rule: str, player_id: str) -> Explained:
        """Explain a rule (text) for a player; raises PlayerNotFound, InvalidRule, ShardsWarming."""

    async def known(self, brand: str, player_ids: Sequence[str]) -> int:
        """Count those of `player_ids` that any event has told of; raises ShardsWarming."""

    async def columns(self, brand: str, names: Sequence[str]) -> Columns:
        """Return features of all players of a brand, live; raises ShardsWarming."""

    async def of_players(
        self, brand: str, player_ids: Sequence[str], names: Sequence[str]
    ) -> SomePlayers:
        """Return features of some players, live, all at one moment.

        Raises FeatureNotFound, ShardsWarming.
        """

    async def of_shard(self, brand: str, shard: int) -> ShardFeatures:
        """Return all features of a shard's players of a brand, live; raises ShardsWarming."""

    async def day_totals(
        self, brand: str, asked: Days, spans: Sequence[Days]
    ) -> tuple[datetime, DayTotals]:
        """Return when, and what all players of a brand did by day then.

        Raises InvalidRange for days that are not held live, ShardsWarming.
        """


class Claim(NamedTuple):
    """A virtual shard as its new owner finds it."""

    epoch: int
    seq: int
    clock_us: int | None = None  # up to here its transitions are written; None: nothing was live


class Appended(NamedTuple):
    """What an append did: verdicts by event; what is new, with seqs; the shards that were lost."""

    verdicts: list[list[Verdict]]
    new: list[LoggedEvent]
    seqs: list[int]
    lost: list[int]


class SnapshotName(NamedTuple):
    """One snapshot in the lake: all of `shard` up to `seq`."""

    shard: int
    seq: int
    name: str


class Past(Protocol):
    """What ever stood in the log."""

    def read_after(self, after: Mapping[int, int]) -> AsyncIterator[list[tuple[int, LoggedEvent]]]:
        """Yield (seq, event) of each shard's events above its seq, in chunks and in no order."""


class EventLog(Past, Protocol):
    """The log as one owner sees it; every method may raise DatabaseAway."""

    async def claim(self, shards: Sequence[int], owner: str) -> dict[int, Claim]:
        """Become the owner of `shards`: raise their epochs."""

    async def append(
        self, epochs: Mapping[int, int], groups: Sequence[Group], telling: Telling = SILENCE
    ) -> Appended:
        """Store what is new, and what is told with it, in one transaction under the epochs.

        Raises CommitUnknown when the commit may or may not have happened.
        """

    async def heads(self, shards: Sequence[int]) -> dict[int, int]:
        """Return the last seq of each of `shards`, once no write to them is under way any more."""

    async def epochs(self) -> dict[int, int]:
        """Return the current epoch of every shard."""

    async def count_stale_refusals(self, shards: Iterable[int]) -> None:
        """Count one refused write of a former owner for each of `shards`."""

    async def snapshots(self, shards: Sequence[int]) -> list[SnapshotName]:
        """Return the newest snapshots of `shards`, best first for each."""

    async def record_snapshot(self, snapshot: SnapshotName, epoch: int, size: int) -> list[str]:
        """List a snapshot under the epoch; return the names of those that it replaces."""

    async def close(self) -> None:
        """Let go of the store."""


class Files(Protocol):
    """Immutable files by name, such as the lake's."""

    def write(self, name: str, data: bytes) -> None:
        """Store `data` whole or not at all."""

    def read(self, name: str) -> bytes:
        """Return the bytes; raises FileNotFoundError."""

    def delete(self, name: str) -> None:
        """Forget a file."""


class Span(NamedTuple):
    """The seqs of one shard above `after`, up to and with `upto`."""

    after: int
    upto: int


class Manifest(Protocol):
    """What stands in the lake, and what the log has that it lacks; may raise DatabaseAway."""

    async def lags(self) -> dict[int, Span]:
        """Return by shard the seqs that the log has and the lake lacks."""

    async def events(self, spans: Mapping[int, Span]) -> bytes:
        """Return the events of each shard's span from the log, by shard and seq, packed."""

    async def add(self, files: Sequence[LakeFile]) -> list[LakeFile]:
        """List those of `files` (one a shard) that begin where the lake ends; return them."""

    async def files(self, shards: Iterable[int]) -> list[LakeFile]:
        """Return the files of `shards`, in the order of shards and seqs."""

    async def replace(self, old: Sequence[LakeFile], new: LakeFile) -> bool:
        """List `new` in the place of `old`; nothing happens if one of these is gone."""

    async def replaced_before(self, moment: datetime) -> list[str]:
        """Return names that stand for nothing any more since before `moment`."""

    async def forget_replaced(self, names: Sequence[str]) -> None:
        """Note that the bytes of these are gone."""

    async def drop_sessions(self, before: date) -> list[str]:
        """Drop the days of sessions before `before` that stand in the lake whole."""


class EventFiles(Protocol):
    """The lake's event files; what it names may not be listed yet."""

    def write(self, events: bytes, written: Callable[[LakeFile], None]) -> None:
        """Store what `Manifest.events` gave, a file a shard, and tell of each that is written.

        Raises LogGap at the end if a shard lacked a seq: the others are written all the same.
        """

    def merge(self, files: Sequence[LakeFile]) -> LakeFile:
        """Store the events of files that follow each other as one file."""

    def names(self) -> Mapping[str, datetime]:
        """Return every event file that is there, and when it was written."""

    def delete(self, name: str) -> None:
        """Forget a file."""


class Quarantined(msgspec.Struct):
    """A refused event; `sealed` is its text, readable with the vault's key only.

    `digest` (keyed) tells one that was sent again.
    """

    code: str
    message: str
    digest: bytes
    sealed: bytes | None


class Quarantine(Protocol):
    """Keeps refused events until somebody mends them."""

    async def keep(
        self, received_at: datetime, source: str, refused: Sequence[Quarantined]
    ) -> None:
        """Store refused events, each once; raises DatabaseAway."""


class AnswerCache(Protocol):
    """Answers that may be a little old; whatever fails is as if nothing were there."""

    async def get(self, key: str) -> bytes | None:
        """Return what is kept under a key."""

    async def put(self, key: str, answer: bytes, keep_s: float) -> None:
        """Keep an answer for so long."""
