"""The port to where saved segments are kept."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from crm.domain.saved_segments import (
    Check,
    ListReport,
    LiveSegment,
    Mode,
    Once,
    SavedSegment,
    SegmentSize,
    SegmentVersion,
    Written,
)


class LiveSegments(Protocol):
    """What those load who say who is in; every call may raise DatabaseAway."""

    async def revision(self) -> int:
        """Return a number that every change to any segment has raised."""

    async def active(self, brand: str | None = None) -> list[LiveSegment]:
        """Return all live segments, of one brand or of all, by id."""

    async def players_of(self, segment: str, shards: Sequence[int]) -> dict[int, list[str]]:
        """Return the players of a list by shard, of those shards that have any."""


class SegmentSizes(LiveSegments, Protocol):
    """What measuring needs; every call may raise DatabaseAway."""

    async def unmeasured(self, since: datetime) -> list[LiveSegment]:
        """Return live segments that have no size after `since`."""

    async def count_players(self, segment: str) -> int:
        """Return how many players a list has."""

    async def add_size(self, segment: str, size: SegmentSize) -> None:
        """Note how large a segment was; a second size of one moment takes the first one's place."""

    async def forget_answers(self, before: datetime) -> None:
        """Forget what was answered under an Idempotency-Key before a moment."""


class SegmentStore(SegmentSizes, Protocol):
    """Saved segments, their versions, lists and sizes; every call may raise DatabaseAway.

    A change that comes with `once` happens once, whatever happens; its answer is kept with it.
    """

    async def answered(self, once: Once | None) -> Written | None:
        """Return what a change has led to that was asked for before; raises KeyReused."""

    async def create(
        self,
        segment: SavedSegment,
        players: Sequence[str] = (),
        report: ListReport | None = None,
        once: Once | None = None,
        check: Check | None = None,
    ) -> Written:
        """Store a new segment with its size, and the players of a list.

        Raises SegmentNameTaken, TooLarge, and what `check` raises.
        """

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
        """Make the version after `read`, whose rule has `size` players; None: as it is.

        Raises SegmentNotFound, SegmentArchived, SegmentChanged, SegmentNameTaken, InvalidSegment,
        and what `check` raises.
        """

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
        """Add players to a list, or replace them: a new version, if anybody comes or goes.

        Raises SegmentNotFound, SegmentArchived, SegmentChanged, TooLarge.
        """

    async def archive(
        self,
        segment: str,
        read: int | None,
        at: datetime,
        once: Once | None = None,
        check: Check | None = None,
    ) -> Written:
        """Archive a segment, for good; one that is archived stays as it is.

        Raises SegmentNotFound, SegmentChanged, and what `check` raises.
        """

    async def get(self, segment: str) -> SavedSegment:
        """Return a segment, archived or not; raises SegmentNotFound."""

    async def page(
        self, brand: str, after: tuple[datetime, str] | None, limit: int, *, archived: bool = False
    ) -> list[SavedSegment]:
        """Return a brand's segments, the newest first, after (created_at, id)."""

    async def versions(self, segment: str, below: int | None, limit: int) -> list[SegmentVersion]:
        """Return versions of a segment, the newest first."""

    async def players(self, segment: str, after: str, limit: int) -> list[str]:
        """Return players of a list after a player, in the order of their ids' bytes."""

    async def holds(self, segment: str, shard: int, player: str) -> bool:
        """Whether a list has this player."""

    async def sizes(self, segment: str, before: datetime | None, limit: int) -> list[SegmentSize]:
        """Return sizes of a segment, the newest first."""
