"""Whether a retrained model takes the serving one's place: by rule, with its reason in words."""

from __future__ import annotations

from typing import Literal, NamedTuple

from crm.domain.models import ModelKind


class Comparison(NamedTuple):
    """Two models judged on the same rows by one metric; `slack` is how much worse still counts as
    not worse: what the same model shows by chance from one sample to the next.
    """

    metric: str
    better: Literal["higher", "lower"]
    candidate: float
    serving: float
    slack: float

    @property
    def worse(self) -> bool:
        """Whether the candidate is worse; one that cannot be judged is."""
        lead = self.candidate - self.serving
        gain = lead if self.better == "higher" else -lead
        return not gain >= -self.slack

    def __str__(self) -> str:
        return f"{self.metric} {self.candidate:.4g}, of the serving model {self.serving:.4g}"


class Different(NamedTuple):
    """The serving model foresees something else: no metric of one says anything of the other."""

    serving: str
    candidate: str


class Unfit(NamedTuple):
    """The serving model cannot be asked about today's players, and need not be beaten."""

    why: str


class Verdict(NamedTuple):
    """Whether to promote, and why."""

    promote: bool
    note: str


def may_serve(kind: ModelKind, *, beats_baseline: bool | None) -> bool:
    """Whether a rule may promote it: a score has to beat its baseline, player clusters have none.

    A person may promote more, see check_promotion.
    """
    return beats_baseline is True or (beats_baseline is None and kind == "clusters")


def verdict(
    kind: ModelKind,
    *,
    beats_baseline: bool | None,
    comparison: Comparison | Different | Unfit | None,
) -> Verdict:
    """Judge a candidate; `comparison` is None where nothing serves yet."""
    if not may_serve(kind, beats_baseline=beats_baseline):
        return Verdict(False, "not promoted: it does not beat its baseline")
    if comparison is None:
        return Verdict(True, "promoted: nothing was serving")
    if isinstance(comparison, Unfit):
        return Verdict(True, f"promoted: {comparison.why}")
    if isinstance(comparison, Different):
        said = f"the serving model foresees {comparison.serving}, this one {comparison.candidate}"
        return Verdict(False, f"not promoted: {said}")
    if comparison.worse:
        return Verdict(False, f"not promoted: worse on the same players ({comparison})")
    return Verdict(True, f"promoted: not worse on the same players ({comparison})")
