"""Fits of scores: XGBoost, a logistic or linear model, and recency alone, each calibrated on
players of their own. Everything runs on one thread, so that the same rows give the same model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression, Ridge

from crm.adapters.scorers import Calibration, Fitted, Trees, Weights
from crm.domain.clustering import Flags, Floats, Ints, Scaler
from crm.domain.scores import CannotScore
from pipelines.score_inputs import SET, Label
from pipelines.score_metrics import auc, spearman

Family: TypeAlias = Literal["xgboost", "logistic", "linear", "recency"]

FEWEST = 20  # of either class, or of those with a value, in each set of players
MOST_FEATURES = 40
LEAKS_FROM = 0.999  # a single feature that orders the players as well as this knows the label
MAX_ROUNDS, PATIENCE, LOOK_ROUNDS = 800, 40, 60
FOLDS = 5
_FEW_ROWS = 20_000
_TREES = {
    "eta": 0.05, "max_depth": 4, "min_child_weight": 10.0, "subsample": 0.8,
    "colsample_bytree": 0.8, "lambda": 1.0, "tree_method": "hist", "nthread": 1,
}  # fmt: skip
_ENOUGH = 100
_FOR_A_CURVE = 10_000  # of either class: with fewer, two numbers say it better than a curve
_WINSORISED = (0.5, 99.5)  # percentiles: a few big winners would bend every tree
_LEAST_EXPECTED = 0.05  # a share of the players
_SLOPES = (0.5, 2.0)
_STEADY = 1e6  # C of the calibrating regressions: as good as none


@dataclass(frozen=True)
class Sample:
    """The rows of a fit, of all its cut-offs: values in units, labels, and whose they are."""

    names: list[str]
    values: Floats
    truth: Floats
    weights: Floats
    sets: dict[SET, Flags]
    folds: Ints
    newest: Flags
    label: Label

    @property
    def churn(self) -> bool:
        """Whether the labels are 0 and 1."""
        return self.label == "active"

    @property
    def counts(self) -> bool:
        """Whether the labels are numbers of days."""
        return self.label.endswith("_days")

    @property
    def rising(self) -> bool:
        """Whether the labels are values that are never negative: trees find their logarithm."""
        return not self.churn and bool(self.truth.min() >= 0)

    def only(self, names: list[str]) -> Sample:
        """Return the same rows with fewer features."""
        places = [self.names.index(name) for name in names]
        return replace(self, names=names, values=self.values[:, places])

    def of(self, which: SET) -> tuple[Floats, Floats, Floats]:
        """Return the values, labels and weights of one set of players.

        Calibration is at the newest cut-off where it has enough players of both kinds: how many
        leave, and what they spend, changes with the season.
        """
        rows = self.sets[which]
        if which == "calibrate":
            latest = rows & self.newest
            some = int((self.truth[latest] != 0).sum())
            if min(some, int(latest.sum()) - some) >= _ENOUGH:
                rows = latest
        return self.values[rows], self.truth[rows], self.weights[rows]


@dataclass(frozen=True)
class Fit:
    """A fitted family: its features, what a scorer opens, and how many trees it has."""

    family: Family
    features: list[str]
    fitted: Fitted
    rounds: int = 0


def check(sample: Sample, when: str) -> None:
    """Raise CannotScore where nothing can be learned, or the labels are no secret."""
    if not sample.names:
        raise CannotScore(
            f"no feature tells the players apart {when}: each is the same for everybody;"
            " events of more kinds, or of more days, are missing"
        )
    for which in sample.sets:
        _check_labels(sample, which, when)
    for place, name in enumerate(sample.names):
        known = knows(sample.values[:, place], sample)
        if known >= LEAKS_FROM:
            raise CannotScore(
                f"{name} orders the players {when} as their labels do ({known:.4f} of 1): it knows"
                f" what comes after; leave it out (--without {name}), or mend what it is made of"
            )


def _check_labels(sample: Sample, which: SET, when: str) -> None:
    _, truth, _ = sample.of(which)
    some, rest = int((truth != 0).sum()), int((truth == 0).sum())
    if sample.churn and min(some, rest) < FEWEST:
        many, few = ("left", "stayed") if some > rest else ("stayed", "left")
        raise CannotScore(
            f"one class only: of {len(truth)} players to {which} with {when}, {max(some, rest)}"
            f" {many} and {min(some, rest)} {few}; at least {FEWEST} of each are needed:"
            " another --horizon-days may part them"
        )
    if not sample.churn and (some < FEWEST or truth.min() == truth.max()):
        raise CannotScore(
            f"of {len(truth)} players to {which} with {when}, {some} have a {sample.label} that is"
            f" not 0; at least {FEWEST} are needed: a longer --horizon-days may find them"
        )


def knows(column: Floats, sample: Sample) -> float:
    """Return how well one feature alone orders the players, 0 to 1; missing stands above all."""
    filled = np.where(np.isnan(column), np.inf, column)
    if sample.churn:
        return abs(2 * auc(filled, sample.truth) - 1)
    return abs(spearman(filled, sample.truth))


def chosen(sample: Sample, seed: int) -> list[str]:
    """Return the features that a first look of a few trees gains most by, in the list's order."""
    if len(sample.names) <= MOST_FEATURES:
        return sample.names
    booster = _boosted(sample, seed, LOOK_ROUNDS)
    gained = booster.get_score(importance_type="total_gain")
    best = sorted(gained, key=lambda key: (-gained[key], int(key[1:])))[:MOST_FEATURES]
    places = sorted(int(key[1:]) for key in best)
    return [sample.names[place] for place in places] or sample.names[:MOST_FEATURES]


def fit(family: Family, sample: Sample, seed: int) -> Fit:
    """Fit a family on one set of players, and calibrate it on another."""
    if family == "xgboost":
        return _fit_trees(sample, seed)
    if family == "recency":
        return _fit_recency(sample)
    return _fit_weights(family, sample, seed)


def multiplied(one: Fit, factor: float) -> Fit:
    """Return a fit of values whose scores are `factor` times as high."""
    found = one.fitted.calibration
    if found.link == "exponential":
        higher = msgspec.structs.replace(
            found, shift=found.shift + float(np.log(factor)), less=factor * found.less
        )
    elif found.link == "curve":
        higher = msgspec.structs.replace(found, to=[factor * value for value in found.to])
    else:
        higher = msgspec.structs.replace(
            found, slope=factor * found.slope, shift=factor * found.shift
        )
    return replace(one, fitted=Fitted(one.fitted.margin, higher))


def _fit_trees(sample: Sample, seed: int) -> Fit:
    booster = _boosted(sample, seed, MAX_ROUNDS)
    values, truth, weights = sample.of("calibrate")
    margins = np.asarray(
        booster.inplace_predict(values, predict_type="margin", validate_features=False), np.float64
    )
    trees = Trees(bytes(booster.save_raw("ubj")))
    if sample.rising:
        calibration = _sharpened(margins, truth, weights)
    else:
        calibration = _calibrated(sample, margins, truth, weights)
    return Fit("xgboost", sample.names, Fitted(trees, calibration), booster.num_boosted_rounds())


def _boosted(sample: Sample, seed: int, most: int) -> Any:
    """Return trees of all players but those to calibrate with.

    How many trees is found on players that they were not fitted to: a set of their own, or with few
    players each fold in turn, because one small set would stop by chance.
    """
    import xgboost  # 1 s

    options = {**_TREES, **_options(sample), "seed": seed}
    stopping: dict[str, Any] = {"early_stopping_rounds": PATIENCE, "verbose_eval": False}
    both = sample.sets["fit"] | sample.sets["stop"]
    whole = _matrix(sample, both)
    if both.sum() > _FEW_ROWS:
        watched = [(_matrix(sample, sample.sets["stop"]), "stop")]
        fitted = _matrix(sample, sample.sets["fit"])
        booster = xgboost.train(options, fitted, most, evals=watched, **stopping)
        rounds = booster.best_iteration + 1
    else:
        fold = sample.folds[both]
        folds = [(np.flatnonzero(fold != one), np.flatnonzero(fold == one)) for one in range(FOLDS)]
        seen: Any = xgboost.cv(options, whole, most, folds=folds, as_pandas=False, **stopping)
        rounds = len(next(iter(seen.values())))
    return xgboost.train(options, whole, rounds)


def _matrix(sample: Sample, rows: Flags) -> Any:
    import xgboost

    truth = sample.truth[rows]
    if not sample.churn and not sample.counts:
        truth = np.clip(truth, *np.percentile(truth, _WINSORISED))
    weights = sample.weights[rows]
    return xgboost.DMatrix(sample.values[rows], truth, weight=weights, nthread=1)


def _options(sample: Sample) -> dict[str, Any]:
    if sample.churn:
        return {"objective": "binary:logistic"}
    if not sample.counts:
        if sample.rising:
            return {"objective": "reg:tweedie", "tweedie_variance_power": 1.5}
        return {"objective": "reg:squarederror"}
    # who came more often, or more lately, will not come less: few players cannot tell it from noise
    ways = [-1 if name.startswith("days_since_last_") else 1 for name in sample.names]
    ways = [0 if name == "days_since_registration" else way
            for name, way in zip(sample.names, ways, strict=True)]  # fmt: skip
    return {"objective": "count:poisson", "monotone_constraints": tuple(ways), "max_depth": 3,
            "min_child_weight": 20.0}  # fmt: skip


def _fit_weights(family: Family, sample: Sample, seed: int) -> Fit:
    values, truth, weighing = sample.of("fit")
    scaler = Scaler.fit("log", values)
    if sample.churn:
        model = LogisticRegression(max_iter=1_000, random_state=seed)
    else:
        model = Ridge(random_state=seed)
    model.fit(scaler.transform(values), truth, weighing)
    weights = Weights(scaler, np.ravel(model.coef_).tolist(), float(np.ravel(model.intercept_)[0]))
    calibration = _calibrated(sample, *_margins(weights, sample))
    return Fit(family, sample.names, Fitted(weights, calibration))


def _fit_recency(sample: Sample) -> Fit:
    """Fit how long ago a player was last there: the feature of recency that tells most alone."""
    names = [name for name in sample.names if name.startswith("days_since_last_")]
    best = max(names or sample.names, key=lambda name: _told_by(name, sample))
    alone = sample.only([best])
    longer = 1.0 if sample.churn else -1.0  # who was gone for longer leaves more, and is worth less
    weights = Weights(Scaler.fit("zscore", alone.of("fit")[0]), [longer], 0.0)
    margins = _margins(weights, alone)
    # of recency alone no line would do for values
    calibration = _calibrated(alone, *margins) if sample.churn else _curve(*margins)
    return Fit("recency", [best], Fitted(weights, calibration))


def _told_by(name: str, sample: Sample) -> float:
    return knows(sample.values[:, sample.names.index(name)], sample)


def _margins(weights: Weights, sample: Sample) -> tuple[Floats, Floats, Floats]:
    """Return the margins of the players to calibrate with, what came true of them, and weights."""
    values, truth, weighing = sample.of("calibrate")
    scaled = weights.scaler.transform(values)
    return scaled @ np.array(weights.weights) + weights.intercept, truth, weighing


def _calibrated(sample: Sample, margins: Floats, truth: Floats, weights: Floats) -> Calibration:
    """Return the calibration of margins on players that their model has not seen.

    Probabilities get a curve where there are many players, else a sigmoid; what cannot be negative
    gets a line that ends at 0.
    """
    if sample.churn:
        few = min(int(truth.sum()), int((1 - truth).sum())) < _FOR_A_CURVE
        return _sigmoid(margins, truth) if few else _curve(margins, truth, weights)
    return _line(margins, truth, weights, 0.0 if truth.min() >= 0 else None)


def _sigmoid(margins: Floats, truth: Floats) -> Calibration:
    """Return Platt's two numbers."""
    model = LogisticRegression(C=_STEADY, max_iter=1_000).fit(margins[:, None], truth)
    slope = max(float(model.coef_[0, 0]), 0.0)
    return Calibration("sigmoid", slope=slope, shift=float(model.intercept_[0]))


def _curve(margins: Floats, truth: Floats, weights: Floats) -> Calibration:
    """Return the isotonic regression; where the labels are 0 and 1 it is never quite sure."""
    model = IsotonicRegression(out_of_bounds="clip").fit(margins, truth, weights)
    to = model.y_thresholds_
    if set(np.unique(truth).tolist()) <= {0.0, 1.0}:
        to = np.clip(to, 1 / (len(truth) + 2), 1 - 1 / (len(truth) + 2))
    return Calibration("curve", at=model.X_thresholds_.tolist(), to=to.tolist())


def _sharpened(margins: Floats, truth: Floats, weights: Floats) -> Calibration:
    """Return how values become right in all, and less wrong for a single player.

    The mean that trees find says a little of each of the many who never come back, and is wrong by
    it each time. Where that lessens the mean error, what is said of those of whom least is expected
    is taken off everybody, and shared out among those who do come.
    """
    total, said = float(np.average(truth, weights=weights)), np.exp(margins)
    found = []
    for least in (0.0, float(np.quantile(said, _LEAST_EXPECTED))):
        rest = np.maximum(said - least, 0.0)
        mean = float(np.average(rest, weights=weights))
        if mean > 0:
            factor = total / mean
            error = float(np.average(np.abs(factor * rest - truth), weights=weights))
            found.append((error, factor, factor * least))
    _, factor, less = min(found)
    return Calibration("exponential", shift=float(np.log(factor)), less=less, least=0.0)


def _line(margins: Floats, truth: Floats, weights: Floats, least: float | None) -> Calibration:
    """Return the line that is right on average; a wild slope is held back."""
    middle, mean = (float(np.average(one, weights=weights)) for one in (margins, truth))
    spread = float(np.average((margins - middle) ** 2, weights=weights))
    common = float(np.average((margins - middle) * (truth - mean), weights=weights))
    slope = min(max(common / spread if spread else 1.0, _SLOPES[0]), _SLOPES[1])
    return Calibration("line", slope=slope, shift=mean - slope * middle, least=least)
