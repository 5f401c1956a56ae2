"""Which saved segments shard owners watch, with all that their rules refer to put in its place."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import structlog

from crm.domain.brands import Brand
from crm.domain.errors import InvalidRule
from crm.domain.membership import Watched, WatchedSegment
from crm.domain.rule_clock import has_fixed_dates
from crm.domain.rule_terms import OnList
from crm.domain.rule_text import parse
from crm.domain.rules import leaves_of
from crm.domain.saved_segments import LiveSegment
from crm.services.segment_rules import whole
from crm.services.segment_store import LiveSegments

log = structlog.get_logger(__name__)


class _Loaded(NamedTuple):
    """The players of one version of a list, of some shards."""

    version: int
    shards: frozenset[int]
    players: frozenset[str]


class WatchedSegments:
    """Live segments of the brands that an owner knows; nobody enters or leaves a list.

    One owner's: the players of a list that it has loaded stay until the list changes.
    """

    def __init__(self, store: LiveSegments, brands: Mapping[str, Brand]) -> None:
        self._store = store
        self._brands = brands
        self._loaded: dict[str, _Loaded] = {}

    async def revision(self) -> int:
        """Return a number that every change to any segment has raised."""
        return await self._store.revision()

    async def live(self, shards: Collection[int]) -> Watched:
        """Return all that can be watched; a rule that cannot be read any more is left out.

        The lists have at least those of their players who are of `shards`.
        """
        by_brand: dict[str, list[LiveSegment]] = {}
        for one in await self._store.active():
            if one.brand in self._brands:
                by_brand.setdefault(one.brand, []).append(one)
        segments = {brand: _watched(some, self._brands[brand]) for brand, some in by_brand.items()}
        lists = {brand: await self._lists(some, shards) for brand, some in by_brand.items()}
        kept = {name for of_brand in lists.values() for name in of_brand}
        self._loaded = {name: one for name, one in self._loaded.items() if name in kept}
        return Watched({brand: some for brand, some in segments.items() if some}, lists)

    async def _lists(
        self, live: Sequence[LiveSegment], shards: Collection[int]
    ) -> dict[str, frozenset[str]]:
        """Return the players of all lists: any rule may ask for them, a preview's too."""
        return {one.id: await self._players(one, shards) for one in live if one.rule is None}

    async def _players(self, of: LiveSegment, shards: Collection[int]) -> frozenset[str]:
        """Return a list's players, of which only those are read that are not here yet."""
        loaded = self._loaded.get(of.id)
        if loaded is None or loaded.version != of.version:
            loaded = _Loaded(of.version, frozenset(), frozenset())
        if missing := sorted(set(shards) - loaded.shards):
            by_shard = await self._store.players_of(of.id, missing)
            found = frozenset(player for some in by_shard.values() for player in some)
            loaded = _Loaded(of.version, loaded.shards | set(missing), loaded.players | found)
        self._loaded[of.id] = loaded
        return loaded.players


def _watched(live: Sequence[LiveSegment], brand: Brand) -> list[WatchedSegment]:
    versions, found = {one.id: one.version for one in live}, []
    for one in live:
        if one.rule is None:
            continue
        try:
            rule = parse(whole(one.rule, brand, live), brand)
        except InvalidRule:
            log.warning("segment_unreadable", segment=one.id, version=one.version)
            continue
        if has_fixed_dates(rule):  # its days are kept for 90 days only: then nobody could tell
            continue
        lists = {leaf.list for leaf in leaves_of(rule) if isinstance(leaf, OnList)}
        asked = tuple((name, versions.get(name, 0)) for name in sorted(lists))
        found.append(WatchedSegment(one.id, one.version, rule, asked))
    return found
