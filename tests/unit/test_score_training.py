"""Value models that were really trained, taken through all that serves them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from crm.adapters.scorers import open_scorer
from crm.domain.clustering import Flags, Ints
from crm.domain.column_source import Column
from crm.domain.live_scores import ServingScores, staged_column
from crm.domain.models import ScoreModel, ScoreTarget
from crm.domain.predictions import BrandModels, predictions
from crm.domain.score_columns import VALUE
from pipelines.score_inputs import RECENCY, Rows
from pipelines.score_plan import Cut, History, Plan, Target, Trial
from pipelines.score_training import Request, train_score
from tests.support.builders import a_brand

BRAND = a_brand()
AT = datetime(2026, 3, 1, tzinfo=UTC)
PLAYERS = 400
FEATURES = ("deposit_days_lifetime", "stake_amount_30d", "days_since_last_bet")
DAY_US = 86_400_000_000


def _columns(seed: int) -> dict[str, Ints]:
    """Raw features of players, who go on as they did."""
    rng = np.random.default_rng(seed)
    days, stakes = rng.integers(1, 30, PLAYERS), rng.integers(0, 90_000, PLAYERS)
    last = int(AT.timestamp() * 1e6) - 9 * DAY_US
    return {
        FEATURES[0]: days,
        FEATURES[1]: stakes,
        **{name: rng.integers(0, 30, PLAYERS) for name in RECENCY},
        "first_deposit_at": last - days * 2 * DAY_US,
        "last_deposit_at": np.full(PLAYERS, last),
        "label_ngr_amount": stakes // 10 + rng.integers(-4_000, 4_000, PLAYERS),
        "label_deposit_amount": stakes // 10 + rng.integers(0, 4_000, PLAYERS),
        "label_deposit_days": rng.poisson(days / 5),
    }


def _rows(cut: Cut, seed: int) -> Rows:
    ids = [f"p{number:03}" for number in range(PLAYERS)]
    return Rows(cut, pa.table({"player_id": ids, **_columns(seed)}), {})


def _trained(target: Target, bets: int) -> ScoreModel:
    """Train, and return what serving reads of the model's document."""
    test, fit = Cut(AT, 30), Cut(AT - timedelta(days=30), 30)
    history = History(AT - timedelta(days=90), AT + timedelta(days=30), PLAYERS, bets, 9_000)
    request = Request(BRAND, "value", 30, target, "linear", FEATURES)
    rows = {test: _rows(test, 1), fit: _rows(fit, 2)}
    done = train_score(request, Plan((Trial((fit,), test),)), history, rows, AT, "value-1")
    return msgspec.json.decode(msgspec.json.encode(done.model), type=ScoreModel)


@pytest.mark.parametrize(
    ("asked", "bets", "target", "unit"),
    [
        ("money", 9_000, "ngr_amount", "EUR"),
        ("money", 0, "deposit_amount", "EUR"),
        ("count", 9_000, "deposit_days", "count"),
    ],
)
def test_a_trained_value_is_served_as_what_it_is(
    asked: Target, bets: int, target: ScoreTarget, unit: str
) -> None:
    model = _trained(asked, bets)
    assert model.target == target
    scorer, raw = open_scorer(model), _columns(3)
    models = BrandModels(value=scorer, ids={"value": model.id})

    def read(name: str) -> Column:
        return raw[name], None

    live, missing = staged_column(ServingScores(models).of(read, PLAYERS), VALUE)
    no_mask: dict[str, Flags | None] = {}
    rows = models.rows_of_raw(raw, no_mask)
    told = predictions(models, rows, [(row, None) for row in range(PLAYERS)], AT)
    values = [one.value for one in told if one.value is not None]
    assert {one.unit for one in values} == {unit}
    if unit == "EUR":
        assert missing is not None
        assert not missing.any()
        assert [f"{minor / 100:.2f}" for minor in live.tolist()] == [
            one.predicted for one in values
        ]
        assert len(set(live.tolist())) > PLAYERS / 2
    else:
        assert missing is not None
        assert missing.all()
        scores = scorer.scores(rows["value"]).tolist()
        assert [one.predicted for one in values] == [round(score, 6) for score in scores]
