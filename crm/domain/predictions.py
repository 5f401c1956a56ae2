"""Predictions: what a brand's players are scored with, all rows at once, and what is told of each.

A probability is from 0 to 1; a value is money in major units, or a number of days.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any, TypeAlias

import msgspec
import numpy as np

from crm.domain.brands import Currency
from crm.domain.clustering import Flags, Floats, Ints, PlayerClusters, has_history, placed
from crm.domain.features import Feature
from crm.domain.models import ModelKind, Reason, ScoreModel, Scorer
from crm.domain.scores import ranks_of, values_of

Rows: TypeAlias = Mapping[ModelKind, Floats]  # by kind: players x its features, NaN missing
KINDS: tuple[ModelKind, ...] = ("clusters", "churn", "value")
REASONS = 3
_DIGITS = 6  # of a probability, and of a number that is no money


class ReasonInWords(msgspec.Struct, frozen=True):
    """What moves one score, and where to: `effect` is in the score's unit before calibration.

    For a probability that is log-odds. `value` is written as the features are; null is missing.
    """

    feature: str
    value: int | float | str | None
    effect: float
    text: str


class ChurnScore(msgspec.Struct, frozen=True):
    """How likely a player is away for the next `horizon_days`; the largest reason comes first."""

    probability: float
    rank: str | None
    horizon_days: int
    reasons: list[ReasonInWords]


class ValueScore(msgspec.Struct, frozen=True):
    """What a player is expected to bring in the next `horizon_days`: money as a decimal string.

    `unit` is the currency, or `count` where days with a deposit or a bet are counted.
    """

    predicted: str | float
    unit: str
    rank: str | None
    horizon_days: int
    reasons: list[ReasonInWords]


class Prediction(msgspec.Struct, frozen=True):
    """What the models say of one player at `as_of`.

    `initial`: no act of the player is known to the model of clusters yet, so the cluster is the
    default one. `model` names each model by kind; a kind that none serves is null in its place, and
    `missing` says why.
    """

    index: int
    player_id: str | None
    cluster: int | None
    initial: bool | None
    churn: ChurnScore | None
    value: ValueScore | None
    as_of: datetime
    model: dict[ModelKind, str]
    missing: dict[ModelKind, str]


@dataclass(frozen=True)
class BrandModels:
    """The models that score a brand's players: at most one of each kind; `ids` are theirs.

    Of a kind in `refused`, one is to serve that cannot be used.
    """

    clusters: PlayerClusters | None = None
    churn: Scorer | None = None
    value: Scorer | None = None
    ids: Mapping[ModelKind, str] = field(default_factory=dict)
    refused: frozenset[ModelKind] = frozenset()

    @cached_property
    def features(self) -> dict[str, Feature]:
        """Every feature that some model reads, as it was when that was trained."""
        return {
            name: model.feature(name) for model in self.each.values() for name in model.features
        }

    def exchanged(
        self, kind: ModelKind, model: PlayerClusters | Scorer | None, model_id: str | None
    ) -> BrandModels:
        """Return these with another model of a kind, or without one."""
        opened: dict[str, Any] = {kind: model}
        ids = {name: known for name, known in self.ids.items() if name != kind}
        if model_id is not None:
            ids[kind] = model_id
        return replace(self, **opened, ids=ids, refused=self.refused - {kind})

    @cached_property
    def each(self) -> dict[ModelKind, PlayerClusters | ScoreModel]:
        """The models that are there."""
        found: dict[ModelKind, PlayerClusters | ScoreModel] = {}
        if self.clusters is not None:
            found["clusters"] = self.clusters
        if self.churn is not None:
            found["churn"] = self.churn.model
        if self.value is not None:
            found["value"] = self.value.model
        return found

    def rows_of(self, values: Mapping[str, Floats]) -> Rows:
        """Return what each model reads of columns that are in units already."""
        return {
            kind: np.column_stack([values[name] for name in model.features])
            for kind, model in self.each.items()
        }

    def rows_of_raw(self, raw: Mapping[str, Ints], missing: Mapping[str, Flags | None]) -> Rows:
        """Return what each model reads of raw feature columns."""
        return {kind: values_of(model, raw, missing) for kind, model in self.each.items()}

    @cached_property
    def missing(self) -> dict[ModelKind, str]:
        """Why a kind says nothing."""
        return {
            kind: f"the {kind} model that is to serve cannot be used: see the log"
            if kind in self.refused
            else f"no {kind} model serves"
            for kind in KINDS
            if kind not in self.ids
        }


def _ranks(model: ScoreModel, scores: Floats) -> list[str | None]:
    names = [*(rank.name for rank in model.ranks), None]  # -1 is the last
    return [names[place] for place in ranks_of(model.ranks, scores).tolist()]


def predictions(
    models: BrandModels,
    rows: Rows,
    players: Sequence[tuple[int, str | None]],
    as_of: datetime,
) -> list[Prediction]:
    """Score players by what each model reads, all rows at once.

    `players` are the index in the request, and the id, of each row.
    """
    clusters: Sequence[int | None] = [None] * len(players)
    initial: Sequence[bool | None] = [None] * len(players)
    churn: Sequence[ChurnScore | None] = [None] * len(players)
    value: Sequence[ValueScore | None] = [None] * len(players)
    if models.clusters is not None:
        clusters, initial = _clusters(models.clusters, rows["clusters"])
    if models.churn is not None:
        churn = _churn(models.churn, rows["churn"])
    if models.value is not None:
        value = _value(models.value, rows["value"])
    ids = dict(models.ids)
    return [
        Prediction(index, player, cluster, new, leaves, brings, as_of, ids, models.missing)
        for (index, player), cluster, new, leaves, brings in zip(
            players, clusters, initial, churn, value, strict=True
        )
    ]


def _clusters(model: PlayerClusters, rows: Floats) -> tuple[list[int], list[bool]]:
    found: Ints = placed(model, rows)
    return found.tolist(), (~has_history(model.features, rows)).tolist()


def _churn(scorer: Scorer, rows: Floats) -> list[ChurnScore]:
    model, scores = scorer.model, scorer.scores(rows)
    told = _Words(model, "the risk of churn")
    return [
        ChurnScore(round(score, _DIGITS), rank, model.horizon_days, told.all(reasons))
        for score, rank, reasons in zip(
            scores.tolist(), _ranks(model, scores), scorer.reasons(rows, REASONS), strict=True
        )
    ]


def _value(scorer: Scorer, rows: Floats) -> list[ValueScore]:
    model, scores = scorer.model, scorer.scores(rows)
    told = _Words(model, "the predicted value")
    unit = model.currency.code if model.in_money else "count"
    return [
        ValueScore(_amount(model, score), unit, rank, model.horizon_days, told.all(reasons))
        for score, rank, reasons in zip(
            scores.tolist(), _ranks(model, scores), scorer.reasons(rows, REASONS), strict=True
        )
    ]


def _amount(model: ScoreModel, score: float) -> str | float:
    return _major(model.currency, score) if model.in_money else round(score, _DIGITS)


def _major(currency: Currency, amount: float) -> str:
    """Return money as a decimal string, without a minus before nothing."""
    return f"{round(amount, currency.decimals) + 0.0:.{currency.decimals}f}"


class _Words:
    """A model's reasons in words; what a score does is said of `score`."""

    def __init__(self, model: ScoreModel, score: str) -> None:
        self._model, self._score = model, score
        self._features = {name: model.feature(name) for name in model.features}

    def all(self, reasons: Sequence[Reason]) -> list[ReasonInWords]:
        return [self._one(reason) for reason in reasons]

    def _one(self, reason: Reason) -> ReasonInWords:
        feature = self._features[reason.feature]
        does = "raises" if reason.effect > 0 else "lowers"
        value, said = self._written(feature, reason.value)
        text = f"{feature.meaning}: {said}; this {does} {self._score}"
        return ReasonInWords(reason.feature, value, round(reason.effect, _DIGITS), text)

    def _written(
        self, feature: Feature, value: float | None
    ) -> tuple[int | float | str | None, str]:
        if value is None:
            return None, "never" if feature.unit == "days" else "nothing to tell it from"
        currency = self._model.currency
        match feature.unit:
            case "money":
                amount = _major(currency, value)
                return amount, f"{amount} {currency.code}"
            case "share" | "number":
                return value, f"{value:.4g}"
            case "seconds":
                return round(value), f"{round(value):,} s"
            case _:
                return round(value), f"{round(value):,}"
