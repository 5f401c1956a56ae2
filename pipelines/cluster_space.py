"""What a search for player clusters tries, and in which order: plans, their space, proposals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import product
from typing import Any, Literal, get_args

import msgspec
import numpy as np

from crm.domain.clustering import Algorithm, Scaling

Reduction = Literal["none", "pca"]
REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)
Point = dict[str, Any]

MOST_GROUPS = 20
LEAST_GROUPS = 2
STARTS = {"kmeans": 8, "minibatch_kmeans": 8, "gmm": 2}
# of bustabit's known clustering few starts reach the best: a given k is tried from many
PARTS = {"kmeans": 8, "minibatch_kmeans": 8, "gmm": 4}
STARTS_A_PART = {"kmeans": 25, "minibatch_kmeans": 25, "gmm": 3}
IMPOSSIBLE = -2.0
MAX_SEED = 2**32


class Plan(msgspec.Struct, frozen=True):
    """One trial: an algorithm in a space, over `least` to `most` groups; densities find their own.

    Trials that differ in `part` alone differ in their starts.
    """

    algorithm: Algorithm
    scaling: Scaling
    reduction: Reduction
    least: int
    most: int
    starts: int
    seed: int
    min_share: float
    part: int = 0

    @property
    def digest(self) -> str:
        """What tells this plan from every other."""
        return sha256(msgspec.json.encode(self)).hexdigest()[:16]


@dataclass(frozen=True)
class Space:
    """What is searched; a given `k` leaves nothing but the starts to search."""

    algorithms: tuple[Algorithm, ...]
    scalings: tuple[Scaling, ...]
    reductions: tuple[Reduction, ...]
    k: int | None
    seed: int
    min_share: float
    parts: int = 1

    @property
    def choices(self) -> dict[str, Sequence[Any]]:
        """What a point has, and of which values."""
        return {
            "algorithm": self.algorithms,
            "scaling": self.scalings,
            "reduction": self.reductions,
            "part": range(self.parts),
        }

    @property
    def size(self) -> int:
        """How many points there are."""
        return int(np.prod([len(values) for values in self.choices.values()]))

    def points(self) -> list[Point]:
        """Return every point: each algorithm in the first space, then the others at random."""
        names = list(self.choices)
        points = [dict(zip(names, one, strict=True)) for one in product(*self.choices.values())]
        first = [
            one
            for one in points
            if (one["scaling"], one["reduction"]) == (self.scalings[0], self.reductions[0])
        ]
        rest = [one for one in points if one not in first]
        order = np.random.default_rng(self.seed).permutation(len(rest))
        return first + [rest[n] for n in order]

    def plan(self, point: Point) -> Plan:
        """Return the trial at a point; the same point is the same trial."""
        algorithm, part = point["algorithm"], point["part"]
        starts = (STARTS if self.k is None else STARTS_A_PART).get(algorithm, 1)
        return Plan(
            algorithm=algorithm,
            scaling=point["scaling"],
            reduction=point["reduction"],
            least=self.k or LEAST_GROUPS,
            most=self.k or MOST_GROUPS,
            starts=starts,
            seed=(self.seed + 1_000 * part) % MAX_SEED,
            min_share=self.min_share,
            part=part,
        )


class Proposals:
    """The points of a search in one order, whatever finishes first.

    A point depends on the seed, and on the scores of those at least `lag` places before it: so the
    same seed gives the same trials on any number of workers of which no more than `lag` are busy.
    The first points are fixed; Optuna's TPE proposes the others. Nothing is begun after `ends`.
    """

    def __init__(
        self, space: Space, most: int, lag: int, ends: Callable[[], bool] = lambda: False
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna
        self._space, self._lag, self._ends = space, lag, ends
        self._left = space.points()
        self.total = min(most, len(self._left))
        # all points fit in the budget: nothing has to be chosen
        self._fixed = self.total if self.total == len(self._left) else len(space.algorithms)
        self._study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=space.seed % MAX_SEED, n_startup_trials=4),
        )
        self._distributions: dict[str, optuna.distributions.BaseDistribution] = {
            name: optuna.distributions.CategoricalDistribution(list(values))
            for name, values in space.choices.items()
        }
        self._begun: list[Point] = []
        self._scores: dict[int, float] = {}
        self._told = 0

    @property
    def over(self) -> bool:
        """Whether nothing more will be proposed."""
        return len(self._begun) >= self.total or (bool(self._begun) and self._ends())

    def next(self) -> tuple[int, Plan] | None:
        """Return a number and the trial of it; None while those before it are not known yet."""
        number = len(self._begun)
        due = max(number - self._lag + 1, 0)
        if any(earlier not in self._scores for earlier in range(due)):
            return None
        for earlier in range(self._told, due):
            self._study.add_trial(
                self._optuna.trial.create_trial(
                    params=self._begun[earlier],
                    distributions=self._distributions,
                    value=self._scores[earlier],
                )
            )
        self._told = max(self._told, due)
        point = self._left[0] if number < self._fixed else self._proposed()
        self._left.remove(point)
        self._begun.append(point)
        return number, self._space.plan(point)

    def done(self, number: int, score: float | None) -> None:
        """Tell what came of a trial; None: it was lost."""
        self._scores[number] = IMPOSSIBLE if score is None else score

    def _proposed(self) -> Point:
        """Return Optuna's point, or the next that is left if it was tried before."""
        asked = self._study.ask(self._distributions)
        self._study.tell(asked, state=self._optuna.trial.TrialState.FAIL)
        point = dict(asked.params)
        return point if point in self._left else self._left[0]
