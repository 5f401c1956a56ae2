"""Trained models: what a training hands over, what is registered of it, and what serves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Protocol, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from crm.domain.brands import Currency
from crm.domain.features import FEATURES, Feature

ModelKind: TypeAlias = Literal["clusters", "churn", "value"]
# what a score foresees: the name of its label (churned: neither a bet nor a deposit)
ScoreTarget: TypeAlias = Literal[
    "churned", "ngr_amount", "deposit_amount", "bet_days", "deposit_days"
]
ModelState: TypeAlias = Literal["candidate", "serving", "former"]
Floats: TypeAlias = NDArray[np.float64]


class TrainedOn(msgspec.Struct, frozen=True):
    """The data of a training: `digest` is a SHA-256 over the ids and values in their order."""

    players: int
    rows: int
    as_of: datetime
    digest: str


class TrainedModel(msgspec.Struct, frozen=True):
    """All that a training leaves behind; registered whole, or not at all.

    `document` is what serving loads: JSON of PlayerClusters, or of ScoreModel. `files` are the
    card (`card.md`), plots and tables by name. `beats_baseline` is None where none was asked for.
    """

    id: str
    brand: str
    kind: ModelKind
    algorithm: str
    created_at: datetime
    seed: int
    features: list[str]
    feature_list: str
    code_version: str
    data: TrainedOn
    params: dict[str, str]
    metrics: dict[str, float]
    beats_baseline: bool | None
    document: bytes
    files: dict[str, bytes]


class RegisteredModel(msgspec.Struct, frozen=True):
    """A model as it stands in the registry; `number` counts from 1 within its brand and kind.

    `run` is that of MLflow, None where there was none; `promoted_at` is the last time.
    """

    id: str
    brand: str
    kind: ModelKind
    number: int
    state: ModelState
    algorithm: str
    created_at: datetime
    features: list[str]
    feature_list: str
    code_version: str
    data: TrainedOn
    metrics: dict[str, float]
    beats_baseline: bool | None
    files: list[str]
    promoted_at: datetime | None = None
    seed: int = 0
    params: dict[str, str] = {}
    run: str | None = None


class Rank(msgspec.Struct, frozen=True):
    """A band of scores from `least` on; `realised` is what came true of it in the holdout."""

    name: str
    least: float
    realised: float | None


class ScoreModel(msgspec.Struct, frozen=True):
    """What serves a score: `features` in units in, a probability (churn) or an amount (value) out.

    `fitted` is read by crm/adapters/scorers.py alone. `ranks` ascend. `own` are those features that
    are of the brand's own measures, as they were then.
    """

    id: str
    brand: str
    kind: Literal["churn", "value"]
    created_at: datetime
    algorithm: str
    features: list[str]
    currency: Currency
    horizon_days: int
    target: ScoreTarget
    ranks: list[Rank]
    fitted: bytes
    own: list[Feature] = []

    @property
    def in_money(self) -> bool:
        """Whether its scores are amounts of `currency`."""
        return self.target in {"ngr_amount", "deposit_amount"}

    def feature(self, name: str) -> Feature:
        """Return a feature as it was when the model was trained."""
        return next((one for one in self.own if one.name == name), None) or FEATURES[name]


class Reason(msgspec.Struct, frozen=True):
    """How much a feature's value moves one player's score away from the mean, in the score's unit
    before calibration (log-odds for a probability).
    """

    feature: str
    value: float | None
    effect: float


class Scorer(Protocol):
    """A score model, opened."""

    @property
    def model(self) -> ScoreModel:
        """What was opened."""

    def scores(self, values: Floats) -> Floats:
        """Return the score of each row of `values` (players x features, in units, NaN missing)."""

    def reasons(self, values: Floats, most: int = 3) -> Sequence[Sequence[Reason]]:
        """Return what moves each row's score most, the largest effect first."""
