"""What-if on Ray, from the lake's files alone: as a build of features at each day's end."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest

from actors.replays import RayReplays
from crm.adapters.lake import Lake
from crm.adapters.lake_events import scan
from crm.adapters.postgres.events import PostgresEventLog
from crm.adapters.postgres.lake import PostgresManifest
from crm.adapters.postgres.pool import Pool
from crm.domain.errors import TooMuchWork
from crm.domain.local_days import end_us
from crm.domain.replay import Replay
from crm.domain.shards import SHARDS
from crm.domain.times import from_us
from tests.support.batch_members import members_at
from tests.support.builders import NOON, a_brand, a_logged_event

pytestmark = pytest.mark.one_server

BRAND = a_brand()
RULE = "bet_count_7d >= 3 and days_since_last_bet < 2"
ASKED = Replay(BRAND, RULE, date(2026, 2, 20), date(2026, 3, 9))


async def _log(dsn: str) -> None:
    """Bets of 30 players in 40 days; each third was known two days late."""
    log = PostgresEventLog(dsn, lambda: NOON)
    epochs = {s: claim.epoch for s, claim in (await log.claim(range(SHARDS), "a")).items()}
    for number in range(300):
        at = NOON - timedelta(hours=number * 37 % 960, minutes=number)
        event = a_logged_event(
            event_id=f"e{number}", player_id=f"p{number % 30}", occurred_at=at, backfill=True,
            known_at=min(at + timedelta(days=2), NOON) if number % 3 == 0 else at,
        )  # fmt: skip
        await log.append(epochs, [[event]])
    await log.close()


async def test_a_replay_brings_the_lake_up_to_date_and_is_what_batches_say(
    dsn: str, tmp_path: Path, ray_cluster: None
) -> None:
    await _log(dsn)
    lake, done = str(tmp_path / "lake"), [0, 0]

    def begun(parts: int) -> object:
        done[0] = parts
        return lambda more: done.__setitem__(1, done[1] + more)

    found = await RayReplays(dsn, lake, begun=begun).run(ASKED)  # type: ignore[arg-type]  # a lambda
    assert done[0] == done[1] > 1
    pool = Pool(dsn)
    files = await PostgresManifest(pool).files(range(SHARDS))
    await pool.close()
    assert sum(file.events for file in files) == 300
    was: set[str] = set()
    for number, day in enumerate([None, *found.days], -1):
        local_day = ASKED.first + timedelta(days=number)
        at = from_us(end_us(local_day.toordinal(), BRAND.zone))
        players, members = members_at(scan(Lake(lake), files), BRAND, RULE, at, at)
        if day is None:
            assert found.members_before == len(members)
        else:
            assert (day.players, day.members) == (players, len(members))
            assert day.entered_sample == sorted(members - was)[:10]
            assert day.left_sample == sorted(was - members)[:10]
        was = set(members)
    assert sum(day.entered + day.left for day in found.days) > 20
    with pytest.raises(TooMuchWork, match="here 300; over HTTP at most 299"):
        await RayReplays(dsn, lake, most_events=299).run(ASKED)


async def test_an_empty_lake_has_no_members(dsn: str, tmp_path: Path, ray_cluster: None) -> None:
    found = await RayReplays(dsn, str(tmp_path / "lake")).run(ASKED)
    assert (found.members_before, found.ever, len(found.days)) == (0, 0, 18)
    assert {day.players for day in found.days} == {0}
