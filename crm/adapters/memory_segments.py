"""The twin in memory of the store of saved segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter

import msgspec
from msgspec.structs import replace

from crm.domain.errors import DatabaseAway, KeyReused, SegmentNameTaken, SegmentNotFound, TooLarge
from crm.domain.saved_segments import (
    MAX_LIST_PLAYERS,
    Check,
    ListReport,
    LiveSegment,
    Mode,
    Once,
    SavedSegment,
    SegmentSize,
    SegmentVersion,
    Written,
    edited,
    name_taken,
    to_be_changed,
    too_long,
)
from crm.domain.shards import shard_of


@dataclass
class _Kept:
    """All that is known of one segment."""

    segment: SavedSegment
    versions: list[SegmentVersion] = field(default_factory=list)
    players: set[str] = field(default_factory=set)
    sizes: dict[datetime, SegmentSize] = field(default_factory=dict)


class MemorySegments:
    """Saved segments without a database; `away` is its fault."""

    def __init__(self) -> None:
        self.away = False
        self._kept: dict[str, _Kept] = {}
        self._revision = 0
        self._answers: dict[tuple[bytes, str], tuple[bytes, bytes, datetime]] = {}

    # --- changes --------------------------------------------------------------------------------

    async def answered(self, once: Once | None) -> Written | None:
        """Return what a change has led to that was asked for before; raises KeyReused."""
        self._must_answer()
        if once is None or (once.caller, once.key) not in self._answers:
            return None
        request, answer, _ = self._answers[once.caller, once.key]
        if request != once.request:
            raise KeyReused("this Idempotency-Key came with another request before; use a new one")
        return msgspec.json.decode(answer, type=Written)

    async def create(
        self,
        segment: SavedSegment,
        players: Sequence[str] = (),
        report: ListReport | None = None,
        once: Once | None = None,
        check: Check | None = None,
    ) -> Written:
        """Store a new segment with its size, and the players of a list."""
        if (found := await self.answered(once)) is not None:
            return found
        self._must_be_free(segment)
        kept = _Kept(segment, players=set(players))
        if segment.kind == "list":
            kept.segment = segment = replace(segment, size=_list_size(segment, kept.players))
            report = report and replace(report, added=len(kept.players))
        self._hold(segment, check)
        self._kept[segment.id] = kept
        self._note(kept, segment)
        return self._answer(Written(segment, report), once)

    async def edit(  # noqa: PLR0913 - what may change, and under which conditions
        self,
        segment: str,
        read: int,
        *,
        name: str | None,
        rule: str | None,
        at: datetime,
        size: int | None = None,
        once: Once | None = None,
        check: Check | None = None,
    ) -> Written:
        """Make the version after `read`, whose rule has `size` players; None: as it is."""
        if (found := await self.answered(once)) is not None:
            return found
        kept = self._of(segment)
        before = to_be_changed(self._read(kept), read)
        after = edited(before, at, name=name, rule=rule, size=size)
        self._must_be_free(after)
        if after != before:
            self._hold(after, check)
            self._note(kept, after)
        return self._answer(Written(after), once)

    async def put_players(
        self,
        segment: str,
        read: int | None,
        players: Sequence[str],
        mode: Mode,
        report: ListReport,
        *,
        at: datetime,
        once: Once | None = None,
    ) -> Written:
        """Add players to a list, or replace them: a new version, if anybody comes or goes."""
        if (found := await self.answered(once)) is not None:
            return found
        kept = self._of(segment)
        before = after = to_be_changed(self._read(kept), read)
        wanted = set(players) | (kept.players if mode == "add" else set())
        added, removed = wanted - kept.players, kept.players - wanted
        if added or removed:
            after = replace(before, version=before.version + 1, changed_at=at)
            after = replace(after, size=_list_size(after, wanted))
            kept.players = wanted
            self._note(kept, after)
        report = replace(report, added=len(added), removed=len(removed))
        return self._answer(Written(after, report), once)

    async def archive(
        self,
        segment: str,
        read: int | None,
        at: datetime,
        once: Once | None = None,
        check: Check | None = None,
    ) -> Written:
        """Archive a segment, for good; one that is archived stays as it is."""
        if (found := await self.answered(once)) is not None:
            return found
        kept = self._of(segment)
        before = after = self._read(kept)
        if before.archived_at is None:
            to_be_changed(before, read)
            after = replace(before, archived_at=at, changed_at=at)
            self._hold(after, check)
            kept.segment = after
            self._revision += 1
        return self._answer(Written(after), once)

    # --- reading --------------------------------------------------------------------------------

    async def get(self, segment: str) -> SavedSegment:
        """Return a segment, archived or not; raises SegmentNotFound."""
        return self._read(self._of(segment))

    async def page(
        self, brand: str, after: tuple[datetime, str] | None, limit: int, *, archived: bool = False
    ) -> list[SavedSegment]:
        """Return a brand's segments, the newest first, after (created_at, id)."""
        self._must_answer()
        found = [
            self._read(kept)
            for kept in self._kept.values()
            if kept.segment.brand == brand and (kept.segment.archived_at is not None) == archived
        ]
        key = attrgetter("created_at", "id")
        below = [one for one in found if after is None or key(one) < after]
        return sorted(below, key=key, reverse=True)[:limit]

    async def versions(self, segment: str, below: int | None, limit: int) -> list[SegmentVersion]:
        """Return versions of a segment, the newest first."""
        kept = self._kept.get(segment)
        found = [] if kept is None else kept.versions[::-1]
        return [one for one in found if below is None or one.version < below][:limit]

    async def active(self, brand: str | None = None) -> list[LiveSegment]:
        """Return all live segments, of one brand or of all, by id."""
        self._must_answer()
        live = [kept.segment for kept in self._kept.values() if kept.segment.archived_at is None]
        return sorted(_live(one) for one in live if brand is None or one.brand == brand)

    async def revision(self) -> int:
        """Return a number that every change to any segment has raised."""
        self._must_answer()
        return self._revision

    async def players(self, segment: str, after: str, limit: int) -> list[str]:
        """Return players of a list after a player, in the order of their ids' bytes."""
        return sorted(one for one in self._players(segment) if one > after)[:limit]

    async def players_of(self, segment: str, shards: Sequence[int]) -> dict[int, list[str]]:
        """Return the players of a list by shard, of those shards that have any."""
        found: dict[int, list[str]] = {}
        for player in self._players(segment):
            shard = shard_of(self._kept[segment].segment.brand, player)
            if shard in shards:
                found.setdefault(shard, []).append(player)
        return found

    async def holds(self, segment: str, shard: int, player: str) -> bool:
        """Whether a list has this player."""
        del shard
        return player in self._players(segment)

    async def count_players(self, segment: str) -> int:
        """Return how many players a list has."""
        return len(self._players(segment))

    # --- sizes ----------------------------------------------------------------------------------

    async def add_size(self, segment: str, size: SegmentSize) -> None:
        """Note how large a segment was; a second size of one moment takes the first one's place."""
        self._of(segment).sizes[size.at] = size

    async def sizes(self, segment: str, before: datetime | None, limit: int) -> list[SegmentSize]:
        """Return sizes of a segment, the newest first."""
        kept = self._kept.get(segment)
        found = [] if kept is None else sorted(kept.sizes.values(), key=_at, reverse=True)
        return [one for one in found if before is None or one.at < before][:limit]

    async def unmeasured(self, since: datetime) -> list[LiveSegment]:
        """Return live segments that have no size after `since`."""
        return [
            one
            for one in await self.active()
            if not any(at > since for at in self._kept[one.id].sizes)
        ]

    async def forget_answers(self, before: datetime) -> None:
        """Forget what was answered under an Idempotency-Key before a moment."""
        kept = {key: told for key, told in self._answers.items() if told[2] >= before}
        self._answers = kept

    # --------------------------------------------------------------------------------------------

    def _of(self, segment: str) -> _Kept:
        self._must_answer()
        if segment not in self._kept:
            raise SegmentNotFound("no segment has this id")
        return self._kept[segment]

    def _players(self, segment: str) -> set[str]:
        self._must_answer()
        return self._kept[segment].players if segment in self._kept else set()

    def _read(self, kept: _Kept) -> SavedSegment:
        return replace(kept.segment, size=max(kept.sizes.values(), key=_at, default=None))

    def _must_be_free(self, segment: SavedSegment) -> None:
        """Raise SegmentNameTaken if another live segment of the brand has the name."""
        named = (segment.brand, segment.name, None)
        for kept in self._kept.values():
            other = kept.segment
            if other.id != segment.id and (other.brand, other.name, other.archived_at) == named:
                raise SegmentNameTaken(name_taken())

    def _hold(self, after: SavedSegment, check: Check | None) -> None:
        """Hold a change against `check` before it is made."""
        if check is not None:
            all_ = {name: kept.segment for name, kept in self._kept.items()} | {after.id: after}
            check(
                sorted(
                    _live(one)
                    for one in all_.values()
                    if one.brand == after.brand and one.archived_at is None
                )
            )

    def _note(self, kept: _Kept, after: SavedSegment) -> None:
        kept.segment = after
        fields = (after.version, after.name, after.rule, after.changed_at)
        kept.versions.append(SegmentVersion(*fields))
        if after.size is not None and after.size.version == after.version:
            kept.sizes[after.size.at] = after.size
        self._revision += 1

    def _answer(self, written: Written, once: Once | None) -> Written:
        if once is not None:
            answer = msgspec.json.encode(written)
            # the twin has no clock of its own: the change's is near enough
            told = (once.request, answer, written.segment.changed_at)
            self._answers[once.caller, once.key] = told
        return written

    def _must_answer(self) -> None:
        if self.away:
            raise DatabaseAway("the store is away")


def _at(size: SegmentSize) -> datetime:
    return size.at


def _live(segment: SavedSegment) -> LiveSegment:
    return LiveSegment(segment.id, segment.brand, segment.name, segment.version, segment.rule)


def _list_size(segment: SavedSegment, players: set[str]) -> SegmentSize:
    if len(players) > MAX_LIST_PLAYERS:
        raise TooLarge(too_long())
    return SegmentSize(segment.changed_at, segment.version, len(players))
