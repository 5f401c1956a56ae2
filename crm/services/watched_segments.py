"""Which saved segments shard owners watch, with all that their rules refer to put in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from crm.domain.brands import Brand
from crm.domain.errors import InvalidRule
from crm.domain.membership import Watched, WatchedSegment
from crm.domain.rule_clock import has_fixed_dates
from crm.domain.rule_terms import OnList
from crm.domain.rule_text import parse
from crm.domain.rules import leaves_of
from crm.domain.saved_segments import LiveSegment
from crm.domain.shards import SHARDS
from crm.services.segment_rules import whole
from crm.services.segment_store import LiveSegments

log = structlog.get_logger(__name__)


class WatchedSegments:
    """Live segments of the brands that an owner knows; nobody enters or leaves a list."""

    def __init__(self, store: LiveSegments, brands: Mapping[str, Brand]) -> None:
        self._store = store
        self._brands = brands

    async def revision(self) -> int:
        """Return a number that every change to any segment has raised."""
        return await self._store.revision()

    async def live(self) -> Watched:
        """Return all that can be watched; a rule that cannot be read any more is left out."""
        by_brand: dict[str, list[LiveSegment]] = {}
        for one in await self._store.active():
            if one.brand in self._brands:
                by_brand.setdefault(one.brand, []).append(one)
        segments = {brand: _watched(some, self._brands[brand]) for brand, some in by_brand.items()}
        lists = {brand: await self._lists(some) for brand, some in by_brand.items()}
        return Watched({brand: some for brand, some in segments.items() if some}, lists)

    async def _lists(self, live: Sequence[LiveSegment]) -> dict[str, frozenset[str]]:
        """Return the players of all lists: any rule may ask for them, a preview's too."""
        found: dict[str, frozenset[str]] = {}
        for one in live:
            if one.rule is None:
                by_shard = await self._store.players_of(one.id, range(SHARDS))
                found[one.id] = frozenset(player for some in by_shard.values() for player in some)
        return found


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
