"""Scores trained on Ray from the lake: registered whole, the same on fewer and on more tasks."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest

from configs.settings import Settings
from crm.adapters.lake import LakeSettings
from crm.adapters.postgres.events import PostgresEventLog
from crm.adapters.postgres.models import open_models
from crm.adapters.postgres.settings import PostgresSettings
from crm.adapters.scorers import open_scorer
from crm.domain.events import LoggedEvent
from crm.domain.model_changes import PromotionRule
from crm.domain.models import RegisteredModel, ScoreModel
from crm.domain.scores import CannotScore
from crm.domain.shards import SHARDS
from pipelines import score_tasks, scores
from pipelines.score_training import Request
from tests.support.builders import NOON, a_brand, a_logged_event

pytestmark = pytest.mark.one_server

BRAND = a_brand()
ASKED = Request(BRAND, "churn", 20, tests=1)


@pytest.fixture
def settings(dsn: str, tmp_path: Path, ray_cluster: None) -> Settings:
    return Settings(postgres=PostgresSettings(dsn, dsn), lake=LakeSettings(str(tmp_path / "lake")))


def _history(players: int = 600, days: int = 90) -> list[LoggedEvent]:
    """Return bets of players who bet every few days until they leave, the idle ones sooner."""
    rng = np.random.default_rng(3)
    found: list[LoggedEvent] = []
    for player in range(players):
        every, day = float(rng.uniform(1, 12)), float(rng.uniform(0, days))
        while day < days and rng.random() > 0.03 * every:
            at = NOON - timedelta(days=days - day)
            found.append(
                a_logged_event(
                    event_id=f"e{len(found)}", player_id=f"p{player}", occurred_at=at,
                    known_at=at, backfill=True,
                )
            )  # fmt: skip
            day += float(rng.exponential(every))
    return found


@pytest.fixture
async def filled(settings: Settings) -> Settings:
    log = PostgresEventLog(str(settings.postgres.dsn), lambda: NOON)
    epochs = {s: claim.epoch for s, claim in (await log.claim(range(SHARDS), "a")).items()}
    await log.append(epochs, [[event] for event in _history()])
    await log.close()
    return settings


async def test_a_training_is_registered_whole_and_what_serves_gives_its_scores(
    filled: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done = await _run(filled, ASKED)
    trained, model = done.trained, done.made.model
    async with open_models(str(filled.postgres.dsn)) as models:
        listed = await models.listed(BRAND.id)
        document = await models.document(model.id)
    assert [one.id for one in listed] == [model.id]
    assert listed[0].state == ("serving" if model.beats_baseline else "candidate")
    served = msgspec.json.decode(document, type=ScoreModel)
    said = open_scorer(served).scores(trained.values)
    assert said.tolist() == trained.newest.said["xgboost"].tolist()
    assert done.made.error_of(served) == pytest.approx(done.made.error)
    assert {"card.md", "calibration.png", "gain.png", "ranks.png", "metrics.csv"} <= set(
        model.files
    )
    scores.write(done, tmp_path / "out")
    assert "# Churn of demo: xgboost" in (tmp_path / "out" / "card.md").read_text()

    monkeypatch.setattr(score_tasks, "EVENTS_A_TASK", len(_history()) // 3)
    parted = await _run(filled, ASKED, rule="never")
    assert (parted.registered.state, parted.registered.number) == ("candidate", 2)
    assert parted.trained.data == trained.data, "the same rows, to the last bit"
    assert parted.made.model.metrics == model.metrics
    assert parted.trained.model.fitted == trained.model.fitted


async def test_a_refusal_made_on_a_worker_comes_back_as_it_is_and_registers_nothing(
    filled: Settings,
) -> None:
    for asked, said in (
        (replace(ASKED, horizon_days=60), "90 days of events; churn over 60 days needs 180"),
        (replace(ASKED, features=("poker_bet_count_7d",)), "no feature tells the players apart"),
        (replace(ASKED, features=("nothing_7d",)), "no such feature: 'nothing_7d'"),
        (replace(ASKED, brand=replace(BRAND, id="empty")), "has no events"),
    ):
        with pytest.raises(CannotScore, match=said):
            await _run(filled, asked)
    assert await _listed(filled) == []


async def _listed(settings: Settings) -> list[RegisteredModel]:
    async with open_models(str(settings.postgres.dsn)) as models:
        return await models.listed(BRAND.id)


async def _run(settings: Settings, request: Request, rule: PromotionRule = "first") -> scores.Run:
    """Run outside of this test's event loop."""

    def now() -> datetime:
        return NOON

    return await asyncio.to_thread(
        scores.run,
        settings,
        request,
        now,
        rule,
    )
