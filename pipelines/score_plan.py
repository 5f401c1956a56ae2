"""Which moments of the past a score is trained and tested at, or why there are none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from crm.domain.scores import CannotScore

Kind: TypeAlias = Literal["churn", "value"]
Target: TypeAlias = Literal["money", "count"]

TRAINING_CUTS = 4
SHORTEST_PART = 3  # of a value's horizon: labels are never over less than this part of it
LEAST_PLAYERS = 200
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Cut:
    """A moment: features are as of `as_of`, labels from the `days` after it."""

    as_of: datetime
    days: int


@dataclass(frozen=True)
class History:
    """What there is of a brand: the times of its first and last event, and how much of it."""

    first: datetime | None
    last: datetime | None
    players: int
    bets: int
    deposits: int

    def __add__(self, other: History) -> History:
        """Return what there is of both; no player is in two parts."""
        firsts = [one.first for one in (self, other) if one.first is not None]
        lasts = [one.last for one in (self, other) if one.last is not None]
        return History(
            min(firsts, default=None), max(lasts, default=None),
            self.players + other.players, self.bets + other.bets, self.deposits + other.deposits,
        )  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """One test: models are fitted at `fit`, whose labels end by `test`, and asked about `test`.

    Where the history is too short for labels as long as the test's, those of the fits are as long
    as they can be, and `shortest` looks less far than the earliest of them: together the two tell
    how what players do wears off.
    """

    fit: tuple[Cut, ...]
    test: Cut
    shortest: Cut | None = None

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """Every cut-off of it."""
        return (self.test, *self.fit, *(() if self.shortest is None else (self.shortest,)))


@dataclass(frozen=True)
class Plan:
    """The trials, the newest first; the model of the newest is the one that may serve."""

    trials: tuple[Trial, ...]

    @property
    def cuts(self) -> list[Cut]:
        """Every cut-off that is needed, once each, the newest first."""
        found = {cut for trial in self.trials for cut in trial.cuts}
        return sorted(found, key=lambda cut: (cut.as_of, cut.days), reverse=True)

    @property
    def label_days(self) -> int:
        """How many days the labels of the fits look ahead."""
        return self.trials[0].fit[0].days


def plan_for(brand: str, kind: Kind, horizon_days: int, history: History, tests: int = 2) -> Plan:
    """Return the cut-offs, counted back from the brand's last event; raises CannotScore.

    All labels of a fit end before its test begins. Where the history is too short for that, value
    is fitted to shorter labels, from a third of its horizon on; churn is not: it would be something
    else.
    """
    if history.first is None or history.last is None:
        raise CannotScore(f"brand {brand} has no events; import some, or send them")
    if history.players < LEAST_PLAYERS:
        raise CannotScore(
            f"brand {brand} has {history.players} players; a {kind} model needs at least"
            f" {LEAST_PLAYERS}"
        )
    newest = history.last - horizon_days * _DAY
    label_days = horizon_days
    trial = _trial(history.first, newest, horizon_days, label_days)
    if trial is None and kind == "value":
        label_days = _least(kind, horizon_days)
        trial = _trial(history.first, newest, horizon_days, label_days)
    if trial is None:
        raise CannotScore(_too_short(brand, kind, horizon_days, label_days, history))
    trials, step = [trial], horizon_days * _DAY
    while len(trials) < tests:
        before = _trial(history.first, trials[-1].test.as_of - step, horizon_days, label_days)
        if before is None:
            break
        trials.append(before)
    return Plan(tuple(trials))


def _trial(first: datetime, test: datetime, horizon_days: int, label_days: int) -> Trial | None:
    """Return the trial that tests at `test`, None where there is no room before it.

    Features need as much of the past before the earliest cut-off as labels look ahead.
    """
    window = label_days * _DAY
    room = test - window - (first + window)
    if room < timedelta(0):
        return None
    step = min(window, max(room / (TRAINING_CUTS - 1), _DAY))
    steps = min(TRAINING_CUTS - 1, int(room / step))
    whole = max(step // _DAY, 1) * _DAY
    times = [test - window - number * whole for number in range(steps + 1)]
    if label_days == horizon_days:
        return Trial(tuple(Cut(at, label_days) for at in times), Cut(test, horizon_days))
    fit = [Cut(at, min((test - at) // _DAY, horizon_days)) for at in times]
    return Trial(tuple(fit), Cut(test, horizon_days), Cut(times[-1], label_days))


def _too_short(brand: str, kind: Kind, horizon_days: int, label_days: int, history: History) -> str:
    days = 0.0
    if history.first is not None and history.last is not None:
        days = (history.last - history.first) / _DAY
    shorter = (h for h in range(horizon_days - 1, 0, -1) if h + 2 * _least(kind, h) <= days)
    possible = next(shorter, 0)
    advice = f"; --horizon-days {possible} would do" if possible else ""
    return (
        f"brand {brand} has {days:.0f} days of events; {kind} over {horizon_days} days needs"
        f" {horizon_days + 2 * label_days}: {label_days} that features look back on,"
        f" {label_days} of labels to fit, {horizon_days} of labels to test{advice}"
    )


def _least(kind: Kind, horizon_days: int) -> int:
    """Return how many days the labels of a fit look ahead at least."""
    return -(-horizon_days // SHORTEST_PART) if kind == "value" else horizon_days


def span_of(histories: Sequence[History]) -> History:
    """Return what there is in all parts."""
    whole = History(None, None, 0, 0, 0)
    for one in histories:
        whole += one
    return whole
