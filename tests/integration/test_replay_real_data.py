"""What-if over the real bets: each day's members are those of a batch as of that day's end."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from configs.brands import load_brands
from crm.adapters.lake_columns import LakeColumns
from crm.domain.local_days import end_us
from crm.domain.replay import SAMPLE, Replay, replayed
from crm.domain.times import from_us
from pipelines.chunks import choose_brand, load_mapping, plan
from pipelines.imports import import_files
from tests.support.batch_members import members_at
from tests.support.imports import RememberingShards, in_process, stores
from tests.support.lake import lake_rows

CLONE = Path(__file__).parents[2]
BETS = CLONE.parent / "shared" / "data" / "bustabit" / "bustabit.csv.gz"
RULE = "bet_count_7d >= 10 and ggr_amount_30d > 0 or mean_cashout_30d > 3 and bet_count_24h = 0"
DAYS = 12

pytestmark = [
    pytest.mark.skipif(not BETS.is_file(), reason="no real data at ../shared/data"),
    pytest.mark.slow,
]


def test_real_bets_replayed_are_a_batch_as_of_each_days_end(tmp_path: Path) -> None:
    brands, shards = load_brands(CLONE / "configs" / "brands"), RememberingShards()
    mapping = load_mapping(CLONE / "configs" / "mappings" / "bustabit.yaml")
    planned = plan([BETS], choose_brand(mapping, brands, None))
    import_files(planned, stores(shards, *brands.values()), tmp_path, in_process)
    brand = brands["bustabit"]
    rows = lake_rows(list(shards.events.values())).lazy()
    last = max(event.local_day for event in shards.events.values()) - timedelta(days=3)
    asked = Replay(brand, RULE, last - timedelta(days=DAYS - 1), last)
    found = replayed(asked, LakeColumns(rows, brand, asked.ends_us[-1]).between)
    assert sum(day.entered + day.left for day in found.days) > 100

    def expected(number: int) -> tuple[int, set[str]]:
        day = asked.first + timedelta(days=number)
        at = from_us(end_us(day.toordinal(), brand.zone))
        players, members = members_at(rows, brand, RULE, at, at)
        return players, set(members)

    _, was = expected(-1)
    assert found.members_before == len(was) > 0
    for number, day in enumerate(found.days):
        players, now = expected(number)
        assert (day.players, day.members) == (players, len(now))
        assert (day.entered, day.left) == (len(now - was), len(was - now))
        assert list(day.entered_sample) == sorted(now - was)[:SAMPLE]
        was = now
