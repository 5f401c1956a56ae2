"""What can be done with saved segments: make, change, import, page through, explain."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set
from datetime import datetime
from typing import Any

import msgspec

from crm.domain.brands import Brand, choose
from crm.domain.errors import (
    InvalidRule,
    InvalidSegment,
    SegmentArchived,
    SegmentInUse,
    ShardsWarming,
)
from crm.domain.player_lists import PlayerList
from crm.domain.ports import FeatureShards, Members
from crm.domain.rule_text import parse, to_text
from crm.domain.saved_segments import (
    Check,
    Kind,
    ListReport,
    LiveSegment,
    Mode,
    Once,
    SavedSegment,
    SegmentSize,
    Use,
    Why,
    Written,
    check_name,
)
from crm.domain.shards import shard_of
from crm.services.segment_names import with_names
from crm.services.segment_rules import NamedRule, RuleForms, forms, named_in, names_in, whole
from crm.services.segment_store import SegmentStore

PAGE = 20_000  # players that are asked for, or about, at once


class WhyAnswer(msgspec.Struct, frozen=True):
    """Whether a player is in a segment at `as_of`, and why: each node of the rule."""

    segment: str
    version: int
    player_id: str
    member: bool = msgspec.field(name="in")
    as_of: datetime
    rule: str | None
    why: Why


class SavedSegments:
    """Saved segments over a store and the shards; what is asked for is told by its id."""

    def __init__(
        self,
        store: SegmentStore,
        shards: FeatureShards,
        brands: Mapping[str, Brand],
        now: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        self.store = store
        self._shards = shards
        self._brands = brands
        self._now = now
        self._new_id = new_id

    # --- changes --------------------------------------------------------------------------------

    async def create(
        self, brand: Brand, name: str, rule: str | dict[str, Any], once: Once | None
    ) -> Written:
        """Save a rule under a name; raises InvalidRule, InvalidSegment, SegmentNameTaken."""
        if (found := await self.store.answered(once)) is not None:
            return found
        new = forms(rule, brand, await self.store.active(brand.id))
        segment = self._new(brand, name, new.saved)
        size = await self._size(segment, new)
        return await self.store.create(
            msgspec.structs.replace(segment, size=size),
            once=once,
            check=_means(new, rule, brand),
        )

    async def create_list(
        self, brand: Brand, name: str, players: PlayerList, once: Once | None
    ) -> Written:
        """Save players under a name; raises InvalidSegment, SegmentNameTaken, TooLarge."""
        if (found := await self.store.answered(once)) is not None:
            return found
        segment = self._new(brand, name, None)
        report = await self._report(brand.id, players)
        return await self.store.create(segment, players.players, report, once)

    async def edit(
        self,
        segment: str,
        read: int,
        name: str | None,
        rule: str | dict[str, Any] | None,
        once: Once | None,
    ) -> Written:
        """Change the name or the rule of the version that was read: this makes the next one.

        Rules name segments by id, so a new name breaks none; but one in `list "name"` stays.
        Raises SegmentNotFound, SegmentChanged, SegmentArchived, SegmentNameTaken, SegmentInUse,
        InvalidRule, InvalidSegment.
        """
        if (found := await self.store.answered(once)) is not None:
            return found
        before = await self.store.get(segment)
        checks: list[Check] = []
        text: str | None = None
        size: SegmentSize | None = None
        if rule is not None:
            brand = self._brand(before)
            new = forms(rule, brand, await self.store.active(before.brand), segment)
            text, size = new.saved, await self._size(before, new)
            checks.append(_means(new, rule, brand, segment))
        if name is not None and check_name(name) != before.name:
            checks.append(self._is_free(before, {before.name}))

        def check(live: Sequence[LiveSegment]) -> None:
            for one in checks:
                one(live)

        players = None if size is None else size.players
        return await self.store.edit(
            segment,
            read,
            name=name,
            rule=text,
            at=self._now(),
            size=players,
            once=once,
            check=check,
        )

    async def put_players(
        self, segment: str, read: int | None, players: PlayerList, mode: Mode, once: Once | None
    ) -> Written:
        """Add players to a list, or replace them.

        Raises SegmentNotFound, SegmentChanged, SegmentArchived, InvalidSegment, TooLarge.
        """
        if (found := await self.store.answered(once)) is not None:
            return found
        before = await self.store.get(segment)
        if before.kind != "list":
            raise InvalidSegment("a rule says who is in this segment; only a list takes players")
        report = await self._report(self._brand(before).id, players)
        return await self.store.put_players(
            segment, read, players.players, mode, report, at=self._now(), once=once
        )

    async def archive(self, segment: str, read: int | None, once: Once | None) -> Written:
        """Archive a segment on which nothing relies.

        Raises SegmentNotFound, SegmentChanged, SegmentInUse.
        """
        if (found := await self.store.answered(once)) is not None:
            return found
        before = await self.store.get(segment)
        check = self._is_free(before, {before.id, before.name})
        return await self.store.archive(segment, read, self._now(), once, check)

    def _new(self, brand: Brand, name: str, rule: str | None) -> SavedSegment:
        now = self._now()
        kind: Kind = "list" if rule is None else "rule"
        return SavedSegment(self._new_id(), brand.id, check_name(name), kind, 1, rule, now, now)

    async def _size(self, segment: SavedSegment, rule: RuleForms) -> SegmentSize | None:
        """Count who is in; None while shards or lists are being loaded: it is measured later."""
        try:
            tree = parse(rule.whole, self._brand(segment))
            found = await self._shards.count(segment.brand, tree)
        except ShardsWarming:
            return None
        except InvalidRule:
            if rule.on_lists:
                return None
            raise
        return SegmentSize(found.as_of, segment.version, found.count)

    async def _report(self, brand: str, players: PlayerList) -> ListReport:
        given, known = len(players.players), 0
        for first in range(0, given, PAGE):  # an owner does nothing else while it looks
            known += await self._shards.known(brand, players.players[first : first + PAGE])
        return ListReport(
            players.read,
            given,
            players.duplicates,
            players.rejected,
            players.errors,
            unknown=given - known,
        )

    def _is_free(self, segment: SavedSegment, called: Set[str]) -> Check:
        """Return the check that no other segment calls `segment` by one of these names."""

        def check(live: Sequence[LiveSegment]) -> None:
            if uses := self._uses(segment, called, live):
                names = ", ".join(f'"{use.name}"' for use in uses[:5])
                raise SegmentInUse(f"other segments name this one in their rules: {names}")

        return check

    async def named(self, brand: Brand, rule: str | dict[str, Any]) -> NamedRule:
        """Return a rule (text or tree) with the segments that it names; raises InvalidRule."""
        return await named_in(rule, brand, self.store)

    # --- questions ------------------------------------------------------------------------------

    async def usage(self, segment: SavedSegment) -> list[Use]:
        """Return what relies on a segment: the live segments of its brand whose rules name it."""
        called = {segment.id, segment.name}
        return self._uses(segment, called, await self.store.active(segment.brand))

    def _uses(
        self, segment: SavedSegment, called: Set[str], live: Sequence[LiveSegment]
    ) -> list[Use]:
        """Return the live segments that call `segment` by one of these names."""
        if segment.archived_at is not None:  # whoever has its name now is meant
            called = called - {segment.name}
        brand = self._brand(segment)
        return [
            Use("segment", one.id, one.name, one.version)
            for one in live
            if one.rule is not None and one.id != segment.id and called & names_in(one.rule, brand)
        ]

    async def members(self, segment: SavedSegment, after: str, limit: int) -> Members:
        """Return the first players of a segment after a player, live, in the order of their ids.

        Raises SegmentArchived, BrandNotFound, InvalidRule, ShardsWarming.
        """
        self._must_live(segment)
        if segment.rule is None:
            return Members(self._now(), await self.store.players(segment.id, after, limit))
        rule = await self._whole(segment, segment.rule)
        return await self._shards.members(segment.brand, rule, after, limit)

    async def all_members(
        self, segment: SavedSegment, after: str = "", most: int | None = None
    ) -> AsyncIterator[list[str]]:
        """Yield the players of a segment page by page, each live at its own moment, `most` in all.

        The first page comes at once, even if it is empty: what is wrong is told before anything.
        """
        left = most
        while True:
            wanted = PAGE if left is None else min(PAGE, left)
            page = (await self.members(segment, after, wanted)).player_ids
            yield page
            left = None if left is None else left - len(page)
            if len(page) < wanted or left == 0:
                return
            after = page[-1]

    async def why(self, segment: SavedSegment, player_id: str) -> WhyAnswer:
        """Explain why a player is in a segment, or is not.

        Raises SegmentArchived, BrandNotFound, InvalidRule, ShardsWarming; PlayerNotFound for a
        rule: a list may hold players that nobody knows.
        """
        self._must_live(segment)
        if segment.rule is None:
            shard = shard_of(segment.brand, player_id)
            holds = await self.store.holds(segment.id, shard, player_id)
            as_of, told = self._now(), Why("list", holds, text=f'in the list "{segment.name}"')
        else:
            named = await named_in(segment.rule, self._brand(segment), self.store)
            found = await self._shards.explain(segment.brand, to_text(named.whole), player_id)
            as_of, told = found.as_of, with_names(named, found.why)
        return WhyAnswer(
            segment=segment.id,
            version=segment.version,
            player_id=player_id,
            member=told.holds,
            as_of=as_of,
            rule=segment.rule,
            why=told,
        )

    async def _whole(self, segment: SavedSegment, rule: str) -> str:
        """Return the rule with what other segments put into it, as they are now."""
        brand = self._brand(segment)
        if not names_in(rule, brand):
            return rule
        return whole(rule, brand, await self.store.active(brand.id))

    def _must_live(self, segment: SavedSegment) -> None:
        if segment.archived_at is not None:
            raise SegmentArchived("nobody is in an archived segment")
        self._brand(segment)

    def _brand(self, segment: SavedSegment) -> Brand:
        return choose(self._brands, segment.brand)


def _means(
    new: RuleForms, rule: str | dict[str, Any], brand: Brand, itself: str | None = None
) -> Check:
    """Return the check that a rule still means what was found when its forms were made."""

    def check(live: Sequence[LiveSegment]) -> None:
        if forms(rule, brand, live, itself).saved != new.saved:
            raise InvalidRule("a segment that the rule names was changed just now; try again")

    return check


def new_segment_id() -> str:
    """Return an id that no other segment has."""
    return f"seg_{secrets.token_hex(8)}"
