"""The segments' keeper puts old transitions away, whether shards are served or not."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from actors import segment_keeper
from actors.segment_keeper import SegmentsSpec
from actors.settings import SegmentSettings
from tests.support.ray_shards import BRANDS, LONG_S
from tests.support.wait import wait_for_async

pytestmark = pytest.mark.one_server


async def test_old_transitions_are_put_away_and_young_ones_kept(
    dsn: str, tmp_path: Path, ray_cluster: None
) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "INSERT INTO segment_transitions"
        " (shard, brand, segment, version, player_id, entered, at, made_at)"
        " SELECT 1, 'demo', 's', 1, player, true, now(), now() - make_interval(days => age)"
        " FROM (VALUES ('old', 9), ('young', 7)) AS made (player, age)"
    )
    settings = SegmentSettings(size_every_s=0.2, transitions_kept_days=8)
    segment_keeper.start(SegmentsSpec(BRANDS, dsn, settings, str(tmp_path / "lake")))
    try:

        async def tidied() -> bool:
            kept = await connection.fetch("SELECT player_id FROM segment_transitions")
            return [row["player_id"] for row in kept] == ["young"]

        await wait_for_async(tidied, "old transitions are put away", deadline_s=LONG_S)
    finally:
        segment_keeper.stop()
        await connection.close()
    assert len(list((tmp_path / "lake" / "transitions").glob("*/*.parquet"))) == 1
