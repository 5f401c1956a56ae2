"""Score models, opened: trees or a weighted sum make a margin, a calibration makes the score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np

from crm.domain.clustering import Floats, Scaler
from crm.domain.errors import ModelUnreadable
from crm.domain.models import Reason, ScoreModel, Scorer

Link: TypeAlias = Literal["sigmoid", "curve", "line", "exponential"]


class Calibration(msgspec.Struct, frozen=True):
    """How a margin becomes a score.

    `sigmoid`, `line` and `exponential` are of `slope` x margin + `shift`, the last with `less`
    taken off; `curve` leads through the points (`at`, `to`), both ascending, and is flat outside of
    them. No score is below `least`.
    """

    link: Link
    slope: float = 1.0
    shift: float = 0.0
    at: list[float] = []
    to: list[float] = []
    less: float = 0.0
    least: float | None = None

    def apply(self, margins: Floats) -> Floats:
        """Return the scores of margins."""
        line = self.slope * margins + self.shift
        found: Floats
        if self.link == "curve":
            found = np.interp(margins, self.at, self.to)
        elif self.link == "sigmoid":
            found = 0.5 * (1 + np.tanh(line / 2))  # exp would overflow
        elif self.link == "exponential":
            found = np.exp(np.clip(line, -700, 700)) - self.less
        else:
            found = line
        return found if self.least is None else np.maximum(found, self.least)


class Trees(msgspec.Struct, frozen=True, tag="trees"):
    """XGBoost's own bytes; a missing value takes each tree's own way."""

    booster: bytes


class Weights(msgspec.Struct, frozen=True, tag="weights"):
    """A weighted sum of scaled features: logistic and linear models, and recency alone."""

    scaler: Scaler
    weights: list[float]
    intercept: float


class Fitted(msgspec.Struct, frozen=True):
    """What `ScoreModel.fitted` holds."""

    margin: Trees | Weights
    calibration: Calibration

    def packed(self) -> bytes:
        """Return the bytes for `ScoreModel.fitted`."""
        return msgspec.msgpack.encode(self)


def open_scorer(model: ScoreModel) -> Scorer:
    """Open a model for scoring, on one thread; raises ModelUnreadable."""
    try:
        fitted = msgspec.msgpack.decode(model.fitted, type=Fitted)
    except msgspec.MsgspecError as error:
        raise ModelUnreadable(f"model {model.id} cannot be read: {error}") from None
    if isinstance(fitted.margin, Trees):
        return _TreeScorer(model, fitted.margin, fitted.calibration)
    return _WeightScorer(model, fitted.margin, fitted.calibration)


class _TreeScorer:
    def __init__(self, model: ScoreModel, trees: Trees, calibration: Calibration) -> None:
        self._model, self._calibration = model, calibration
        self._booster = _opened(model, trees)

    @property
    def model(self) -> ScoreModel:
        return self._model

    def scores(self, values: Floats) -> Floats:
        if not len(values):  # XGBoost takes no empty matrix
            return np.zeros(0)
        margins = self._booster.inplace_predict(
            np.ascontiguousarray(values), predict_type="margin", validate_features=False
        )
        return self._calibration.apply(np.asarray(margins, np.float64))

    def reasons(self, values: Floats, most: int = 3) -> Sequence[Sequence[Reason]]:
        if not len(values):
            return []
        from xgboost import DMatrix  # noqa: PLC0415 - 1 s that a linear model need not wait for

        matrix = DMatrix(np.ascontiguousarray(values), nthread=1)
        # exact tree SHAP: the effects of a row and the mean margin, last, add up to its margin
        effects = self._booster.predict(matrix, pred_contribs=True, validate_features=False)
        return _largest(self._model.features, values, effects[:, :-1].astype(np.float64), most)


class _WeightScorer:
    def __init__(self, model: ScoreModel, weights: Weights, calibration: Calibration) -> None:
        if len(weights.weights) != len(model.features):
            raise ModelUnreadable(
                f"model {model.id} has {len(weights.weights)} weights for"
                f" {len(model.features)} features"
            )
        self._model, self._calibration = model, calibration
        self._scaler, self._intercept = weights.scaler, weights.intercept
        self._weights = np.array(weights.weights)

    @property
    def model(self) -> ScoreModel:
        return self._model

    def scores(self, values: Floats) -> Floats:
        # summed along each row: BLAS would round otherwise for one player than for many
        margins = self._effects(values).sum(axis=1) + self._intercept
        return self._calibration.apply(margins)

    def reasons(self, values: Floats, most: int = 3) -> Sequence[Sequence[Reason]]:
        return _largest(self._model.features, values, self._effects(values), most)

    def _effects(self, values: Floats) -> Floats:
        """Return each feature's part of the margin: scaled, the training rows' mean is 0."""
        effects: Floats = self._scaler.transform(values) * self._weights
        return effects


def _opened(model: ScoreModel, trees: Trees) -> Any:
    from xgboost import Booster  # noqa: PLC0415 - 1 s that a linear model need not wait for
    from xgboost.core import XGBoostError  # noqa: PLC0415 - 1 s, as above

    booster = Booster()
    try:
        booster.load_model(bytearray(trees.booster))
    except XGBoostError as error:
        said = str(error).splitlines()[0] if str(error) else "not a booster"
        raise ModelUnreadable(f"model {model.id} cannot be read: {said}") from None
    booster.set_param({"nthread": 1})  # many replicas share a machine, and sums keep their order
    if booster.num_features() != len(model.features):
        raise ModelUnreadable(
            f"model {model.id} has trees of {booster.num_features()} features, and names"
            f" {len(model.features)}"
        )
    return booster


def _largest(
    features: Sequence[str], values: Floats, effects: Floats, most: int
) -> list[list[Reason]]:
    """Return each row's largest effects, ties by the features' order, those of 0 left out."""
    order = np.argsort(-np.abs(effects), axis=1, kind="stable")[:, :most]
    return [
        [
            Reason(features[j], None if np.isnan(row[j]) else float(row[j]), float(effect[j]))
            for j in places
            if effect[j] != 0
        ]
        for row, effect, places in zip(values, effects, order, strict=True)
    ]
