"""Saved segments over real owners and PostgreSQL: pages, explanations, and sizes by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from actors import segment_keeper
from actors.segment_keeper import SegmentsSpec
from actors.settings import SegmentSettings
from crm.adapters import clock
from crm.adapters.player_files import csv_of
from crm.adapters.postgres.segments import open_segments
from crm.domain.errors import InvalidRule, PlayerNotFound
from crm.domain.player_lists import from_csv
from crm.services import saved_segments
from crm.services.saved_segments import SavedSegments, new_segment_id
from tests.support.ray_shards import (
    BRAND,
    BRANDS,
    LONG_S,
    a_gateway,
    a_spec,
    an_event,
    running_shards,
)
from tests.support.wait import wait_for_async

pytestmark = pytest.mark.one_server
PLAYERS = 40


@pytest.fixture
def shards(ray_cluster: None, dsn: str, tmp_path: Path) -> Iterator[str]:
    """Two owners of all virtual shards over an empty database: yields its DSN."""
    with running_shards(a_spec(dsn, tmp_path, owners=2, misses=60)):
        yield dsn


async def test_members_files_reasons_and_sizes_come_from_all_owners(
    shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved_segments, "PAGE", 7)
    async with a_gateway(shards) as gateway, open_segments(shards) as store:
        saved = SavedSegments(store, gateway, BRANDS, clock.now, new_segment_id)
        await gateway.append([[an_event(n)] for n in range(PLAYERS + 10)])  # ten have two bets
        twice = sorted(f"p{n}" for n in range(10))
        made = (await saved.create(BRAND, "Twice", "bet_count_lifetime >= 2", None)).segment
        assert made.size is not None
        assert made.size.players == 10
        page = await saved.members(made, "p2", 3)
        assert page.player_ids == ["p3", "p4", "p5"]
        everybody = (await saved.create(BRAND, "All", "exists first_bet_at", None)).segment
        file = b"".join([part async for part in csv_of(saved.all_members(everybody))])
        assert from_csv(file).players == sorted(f"p{n}" for n in range(PLAYERS))

        told = await saved.why(made, "p3")
        assert (told.member, told.why.value, told.why.threshold) == (True, 2, 2)
        assert not (await saved.why(made, "p30")).member
        with pytest.raises(PlayerNotFound):
            await saved.why(made, "nobody")
        with pytest.raises(InvalidRule):
            await gateway.members(BRAND.id, "no_such_feature > 1", "", 9)

        listed = await saved.create_list(BRAND, "List", from_csv(file + b"nobody\n"), None)
        assert listed.report is not None
        assert listed.report.unknown == 1

        settings, lake = SegmentSettings(size_every_s=0.5), str(tmp_path / "lake")
        segment_keeper.start(SegmentsSpec(BRANDS, shards, settings, lake))
        try:

            async def measured() -> bool:
                sizes = [await store.sizes(one.id, None, 9) for one in await store.active()]
                return min(map(len, sizes)) > 1

            await wait_for_async(measured, "each segment is measured again", deadline_s=LONG_S)
        finally:
            segment_keeper.stop()
        assert [one.players for one in await store.sizes(made.id, None, 1)] == [10]
        assert (await saved.members(made, "", 99)).player_ids == twice
