"""A score trained: fits at the plan's cut-offs, each tested on the players of a later one, beside
its baselines on the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

import msgspec
import numpy as np

from crm.adapters.scorers import Fitted, open_scorer
from crm.domain.brands import Brand
from crm.domain.clustering import Flags, Floats
from crm.domain.feature_list import features_of
from crm.domain.features import FEATURES
from crm.domain.models import Rank, ScoreModel, TrainedOn
from crm.domain.scores import CannotScore
from pipelines.bgnbd import BgNbd, fit_bgnbd
from pipelines.score_fits import FOLDS, Family, Fit, Sample, check, chosen, fit, multiplied
from pipelines.score_inputs import (
    Label,
    Rows,
    candidates,
    folds_of,
    label_of,
    sets_of,
    telling,
    trained_on,
)
from pipelines.score_metrics import of_churn, of_value, realised
from pipelines.score_plan import Cut, History, Kind, Plan, Target, Trial

Algorithm: TypeAlias = Literal["xgboost", "logistic", "linear"]
Group: TypeAlias = Literal["all", "at risk"]
BGNBD = "bgnbd"
MEASURE = {"churn": "log_loss", "value": "mae"}  # what a model must have less of than a simpler one


@dataclass(frozen=True)
class Request:
    """What to train. `horizon_days` is how far the score looks ahead; `features` None: the fit
    chooses among all, but for `without`; `until` None: the brand's last event.
    """

    brand: Brand
    kind: Kind
    horizon_days: int
    target: Target = "money"
    algorithm: Algorithm = "xgboost"
    features: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()
    until: datetime | None = None
    tests: int = 2
    seed: int = 0

    @property
    def baseline(self) -> Family:
        """The simple model that the other must beat."""
        return "logistic" if self.kind == "churn" else "linear"

    def check(self) -> None:
        """Raise CannotScore for unknown features, and for an algorithm of another kind."""
        if self.algorithm not in {"xgboost", self.baseline}:
            raise CannotScore(f"--algorithm: {self.kind} takes xgboost or {self.baseline}")
        known = features_of(self.brand).features
        for name in (*(self.features or ()), *self.without):
            if name not in known:
                raise CannotScore(f"no such feature: {name!r} (GET /v1/features lists them)")
            if known[name].unit == "time":
                raise CannotScore(
                    f"{name} is a point in time; use a days_since_... feature instead"
                )

    def as_params(self) -> dict[str, str]:
        """Return what was asked, without what was left open."""
        asked = {
            "horizon_days": str(self.horizon_days),
            "target": self.target if self.kind == "value" else None,
            "algorithm": self.algorithm, "features": ",".join(self.features or ()),
            "without": ",".join(self.without), "until": self.until and self.until.isoformat(),
        }  # fmt: skip
        return {name: value for name, value in asked.items() if value}

    def names(self, label: Label) -> list[str]:
        """Return the features to choose among."""
        names = list(dict.fromkeys(self.features or candidates(self.brand, label)))
        return [name for name in names if name not in self.without]


class Tested(msgspec.Struct, frozen=True):
    """How one model did on the players of one cut-off: all of them, or those still at risk."""

    model: str
    as_of: datetime
    group: Group
    players: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Scored:
    """The newest trial's test rows: what each model said of each player, and what came true."""

    players: list[str]
    said: dict[str, Floats]
    truth: Floats
    at_risk: Flags


@dataclass(frozen=True)
class TrainedScore:
    """A model with all that was found out about it; `values` are its rows of the newest test."""

    model: ScoreModel
    tested: list[Tested]
    newest: Scored
    values: Floats
    data: TrainedOn
    plan: Plan
    rank_sizes: list[int]
    rounds: int
    power: float
    bgnbd: BgNbd | None

    @property
    def beats_baseline(self) -> bool:
        """Whether it did better than all simpler ones on the newest test."""
        measure = MEASURE[self.model.kind]
        found = {one.model: one.metrics[measure] for one in self.of_newest()}
        own = found.pop(self.model.algorithm)
        return all(own < other for name, other in found.items() if name != "xgboost")

    @property
    def logarithmic(self) -> bool:
        """Whether reasons are of the score's logarithm."""
        fitted = msgspec.msgpack.decode(self.model.fitted, type=Fitted)
        return fitted.calibration.link == "exponential"

    def of_newest(self, group: Group = "all") -> list[Tested]:
        """Return how each model did on the newest test."""
        newest = self.plan.trials[0].test.as_of
        return [one for one in self.tested if (one.as_of, one.group) == (newest, group)]


def train_score(  # what was asked, what there is, and when
    request: Request,
    plan: Plan,
    history: History,
    rows: Mapping[Cut, Rows],
    now: datetime,
    identity: str,
) -> TrainedScore:
    """Fit and test at every trial of the plan; the model of the newest is what is handed on.

    Raises CannotScore.
    """
    label = label_of(request.kind, request.target, history)
    tested: list[Tested] = []
    newest: tuple[dict[str, Fit], Scored, float, BgNbd | None] | None = None
    for trial in plan.trials:
        fits, power = _fits(request, trial, rows, label)
        scored, reference = _scored(request, fits, rows[trial.test], label)
        tested += _tested(request, trial.test, scored)
        newest = newest or (fits, scored, power, reference)
    if newest is None:
        raise CannotScore("the plan has no trial")
    fits, scored, power, reference = newest
    best = fits[request.algorithm]
    ranks, sizes = _ranks(request, scored)
    model = _model(request, label, best, ranks, now, identity)
    return TrainedScore(
        model=model,
        tested=tested,
        newest=scored,
        values=rows[plan.trials[0].test].values(best.features, request.brand),
        data=trained_on([rows[cut] for cut in plan.cuts], best.features, label, request.brand),
        plan=plan,
        rank_sizes=sizes,
        rounds=best.rounds,
        power=power,
        bgnbd=reference,
    )


def _fits(
    request: Request, trial: Trial, rows: Mapping[Cut, Rows], label: Label
) -> tuple[dict[str, Fit], float]:
    """Return the fits of a trial by family, and the power of `_power`."""
    power = _power(request, trial, rows, label)
    sample = sample_of(request, [rows[cut] for cut in trial.fit], label, trial.test.days, power)
    check(sample, f"at {', '.join(f'{cut.as_of:%Y-%m-%d}' for cut in trial.fit)}")
    sample = sample.only(chosen(sample, request.seed))
    families: tuple[Family, ...] = ("xgboost", request.baseline, "recency")
    fits: dict[str, Fit] = {one: fit(one, sample, request.seed) for one in families}
    if trial.shortest is not None:
        fits = {name: _level(request, one, trial, rows, label, power) for name, one in fits.items()}
    return fits, power


def _level(  # what is to be levelled, and by what
    request: Request, one: Fit, trial: Trial, rows: Mapping[Cut, Rows], label: Label, power: float
) -> Fit:
    """Return a fit whose scores at the test are right in all, as far as the past can tell.

    Players grow older than any that a short history has shown, and a model takes them for gone.
    What those known at the earliest cut-off have done since then, led on by the power, is what they
    may be expected to do in the test's days; no label of the test is looked at.
    """
    earliest, test = rows[trial.fit[-1]], rows[trial.test]
    seen = trial.fit[-1].days
    done = float(earliest.label(label, request.brand).sum())
    expected = done * (((seen + trial.test.days) / seen) ** power - 1)
    known = np.isin(np.array(test.players), np.array(earliest.players))
    said = float(_said(request, one, test, label)[known].sum())
    return multiplied(one, expected / said) if said > 0 and expected > 0 else one


def sample_of(
    request: Request, rows: Sequence[Rows], label: Label, days: int, power: float = 1.0
) -> Sample:
    """Return the rows of several cut-offs as one sample, with the features that tell players apart.

    Labels over fewer than `days` stand for as much more as `power` says, and count as much less.
    """
    names = telling(rows, request.names(label), request.brand)
    divided = [sets_of(part.players, request.seed) for part in rows]
    longer = [(days / part.cut.days) ** power for part in rows]
    return Sample(
        names=names,
        values=np.concatenate([part.values(names, request.brand) for part in rows]),
        truth=np.concatenate(
            [
                more * part.label(label, request.brand)
                for more, part in zip(longer, rows, strict=True)
            ]
        ),
        weights=np.concatenate(
            [np.full(len(part.players), 1 / more) for more, part in zip(longer, rows, strict=True)]
        ),
        sets={which: np.concatenate([one[which] for one in divided]) for which in divided[0]},
        folds=np.concatenate([folds_of(part.players, request.seed, FOLDS) for part in rows]),
        newest=np.concatenate(
            [np.full(len(part.players), part.cut == rows[0].cut) for part in rows]
        ),
        label=label,
    )


def _power(request: Request, trial: Trial, rows: Mapping[Cut, Rows], label: Label) -> float:
    """Return the power of the time ahead with which what players do grows.

    Below 1, because some leave; taken from the earliest cut-off, whose players are seen longest.
    """
    if trial.shortest is None:
        return 1.0
    early, late = trial.shortest, trial.fit[-1]
    short, long = (float(rows[cut].label(label, request.brand).sum()) for cut in (early, late))
    if not 0 < short <= long or late.days <= early.days:
        return 1.0
    return min(float(np.log(long / short) / np.log(late.days / early.days)), 1.0)


def _scored(
    request: Request, fits: Mapping[str, Fit], rows: Rows, label: Label
) -> tuple[Scored, BgNbd | None]:
    said = {name: _said(request, one, rows, label) for name, one in fits.items()}
    reference = None
    if label.endswith("_days"):
        purchases = rows.purchases(label)
        reference = fit_bgnbd(purchases)
        said[BGNBD] = reference.expected(purchases, rows.cut.days / 7)
    truth = rows.label(label, request.brand)
    return Scored(rows.players, said, truth, rows.at_risk(rows.cut.days)), reference


def _said(request: Request, one: Fit, rows: Rows, label: Label) -> Floats:
    scorer = open_scorer(_model(request, label, one, [], rows.cut.as_of, "trial"))
    return scorer.scores(rows.values(one.features, request.brand))


def _tested(request: Request, test: Cut, scored: Scored) -> list[Tested]:
    measure = of_churn if request.kind == "churn" else of_value
    everybody = np.ones(len(scored.truth), dtype=bool)
    groups: list[tuple[Group, Flags]] = [("all", everybody), ("at risk", scored.at_risk)]
    return [
        Tested(name, test.as_of, group, int(of.sum()), measure(said[of], scored.truth[of]))
        for group, of in groups
        if of.any()
        for name, said in scored.said.items()
    ]


def _ranks(request: Request, scored: Scored) -> tuple[list[Rank], list[int]]:
    if request.kind == "value":
        return [], []
    return realised(scored.said[request.algorithm], scored.truth)


def _model(  # all that a model is made of
    request: Request, label: Label, one: Fit, ranks: list[Rank], now: datetime, identity: str
) -> ScoreModel:
    known = features_of(request.brand).features
    return ScoreModel(
        id=identity,
        brand=request.brand.id,
        kind=request.kind,
        created_at=now,
        algorithm=one.family,
        features=one.features,
        currency=request.brand.currency,
        horizon_days=request.horizon_days,
        target="churned" if label == "active" else label,
        ranks=ranks,
        fitted=one.fitted.packed(),
        own=[known[name] for name in one.features if name not in FEATURES],
    )
