"""Batch builds on Ray Data: whole, current in one step, point-in-time, with labels from after."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from configs.settings import Settings
from crm.adapters.lake import Lake, LakeSettings
from crm.adapters.postgres.events import PostgresEventLog
from crm.adapters.postgres.feature_builds import PostgresFeatureBuilds
from crm.adapters.postgres.pool import Pool
from crm.adapters.postgres.settings import PostgresSettings
from crm.domain.events import LoggedEvent
from crm.domain.features import FEATURES
from crm.domain.shards import SHARDS
from pipelines import features
from pipelines.features import ABOUT, CannotBuild, Request, build
from tests.support.brute_force import features_of
from tests.support.builders import NOON, a_brand, a_logged_event

pytestmark = pytest.mark.one_server

BRAND = a_brand()


@pytest.fixture
def settings(dsn: str, tmp_path: Path, ray_cluster: None) -> Settings:
    return Settings(postgres=PostgresSettings(dsn, dsn), lake=LakeSettings(str(tmp_path / "lake")))


def _history() -> list[LoggedEvent]:
    """Bets of 30 players in 60 days; each third was known two days late."""
    found = []
    for number in range(400):
        at = NOON - timedelta(days=number % 60, minutes=number)
        event = a_logged_event(
            event_id=f"e{number}", player_id=f"p{number % 30}", occurred_at=at, backfill=True,
            known_at=min(at + timedelta(days=2), NOON) if number % 3 == 0 else at,
        )  # fmt: skip
        found.append(event)
    return found


async def _log(dsn: str, events: list[LoggedEvent]) -> None:
    log = PostgresEventLog(dsn, lambda: NOON)
    epochs = {s: claim.epoch for s, claim in (await log.claim(range(SHARDS), "a")).items()}
    await log.append(epochs, [[event] for event in events])
    await log.close()


def _rows(folder: Path) -> dict[str, dict[str, int | None]]:
    frame = pl.read_parquet(folder / "part-*.parquet")
    return {row.pop("player_id"): row for row in frame.iter_rows(named=True)}


async def test_a_build_holds_what_was_known_then_and_labels_from_after(
    settings: Settings, tmp_path: Path
) -> None:
    events = _history()
    await _log(str(settings.postgres.dsn), events)
    as_of = NOON - timedelta(days=20)
    built = await _built(settings, Request(BRAND, as_of, as_of, 10), tmp_path / "out")
    told = [e for e in events if e.occurred_at <= as_of and e.known_at <= as_of]
    rows = _rows(tmp_path / "out")
    assert built == len(rows) == len({event.player_id for event in told})
    assert any(e.known_at > as_of >= e.occurred_at for e in events)
    for player, row in rows.items():
        of_player = [event for event in told if event.player_id == player]
        assert {name: row[name] for name in FEATURES} == features_of(of_player, BRAND, as_of)
        assert _labels(row) == _expected_labels(events, player)
    about = json.loads((tmp_path / "out" / ABOUT).read_text())
    assert about["players"] == len(rows)


def _labels(row: Mapping[str, int | None]) -> dict[str, int | None]:
    return {name: value for name, value in row.items() if name.startswith("label_")}


def _expected_labels(events: list[LoggedEvent], player: str) -> dict[str, int]:
    start = NOON - timedelta(days=20)
    after = [
        event for event in events
        if event.player_id == player and start < event.occurred_at <= start + timedelta(days=10)
    ]  # fmt: skip
    stake = sum(event.amount_minor or 0 for event in after)
    return {
        "label_active": int(bool(after)), "label_bet_count": len(after),
        "label_stake_amount": stake, "label_deposit_count": 0, "label_deposit_amount": 0,
        "label_ngr_amount": stake, "label_bet_days": len({event.local_day for event in after}),
        "label_deposit_days": 0,
    }  # fmt: skip


async def test_the_newest_build_is_the_current_one_and_old_ones_go(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "UNDER_WAY", timedelta(0))  # nothing else builds meanwhile
    await _log(str(settings.postgres.dsn), _history())
    pool, lake = Pool(str(settings.postgres.dsn)), Lake(str(settings.lake.uri))
    builds = PostgresFeatureBuilds(pool)
    assert await builds.current(BRAND.id) is None
    folders = []
    for days in range(5):
        at = NOON - timedelta(days=days)
        await _built(settings, Request(BRAND, at, NOON))
        folders.append(await builds.current(BRAND.id))
    await pool.close()
    assert len(set(folders)) == 5
    there = {name.rpartition("/")[0] for name in lake.names("features")}
    assert there == {str(folder) for folder in folders[-3:]}


async def test_what_is_not_past_yet_and_a_folder_that_is_there_are_refused_before_any_work(
    settings: Settings, tmp_path: Path
) -> None:
    future = NOON + timedelta(days=10_000)
    for request, out, said in (
        (Request(BRAND, future, future), None, "not past yet"),
        (Request(BRAND, NOON, NOON, label_days=10_000), None, "not past yet"),
        (Request(BRAND, NOON - timedelta(days=9_000), NOON), None, "began on 2020-01-01"),
        (Request(BRAND, NOON, NOON), tmp_path, "is there already"),
    ):
        with pytest.raises(CannotBuild, match=said):
            await _built(settings, request, out)
    assert Lake(str(settings.lake.uri)).names("") == {}


async def _built(settings: Settings, request: Request, out: Path | None = None) -> int:
    """Build outside of this test's event loop; returns the number of players."""
    import asyncio

    return (await asyncio.to_thread(build, settings, request, out)).players
