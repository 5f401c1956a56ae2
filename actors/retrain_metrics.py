"""Figures of retraining for Prometheus, by Ray's own way: names begin with `ray_` there."""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge

from crm.domain.drift import Drift
from crm.domain.retrains import Retrain


class RetrainMetrics:
    """Retrains by how they ended, how many run, and how far serving models have drifted."""

    def __init__(self) -> None:
        of_kind = ("brand", "kind")
        self._ended = Counter(
            "crm_retrains_ended", "Retrains that have ended.", (*of_kind, "cause", "state")
        )
        self._active = Gauge("crm_retrains_active", "Retrains that have not ended.", ())
        self._psi = Gauge(
            "crm_model_drift_psi",
            "Largest population stability index of a serving model's features, and its score's.",
            (*of_kind, "of"),
        )

    def ended(self, retrain: Retrain) -> None:
        """Count a retrain that has ended."""
        tags = {"brand": retrain.brand, "kind": retrain.kind, "cause": retrain.cause}
        self._ended.inc(1, {**tags, "state": retrain.state})

    def active(self, retrains: int) -> None:
        """Tell how many there are."""
        self._active.set(retrains)

    def drift(self, found: Drift) -> None:
        """Tell how far a model has drifted."""
        tags = {"brand": found.brand, "kind": found.kind}
        self._psi.set(
            max((one.psi for one in found.features), default=0.0), {**tags, "of": "features"}
        )
        if found.score is not None:
            self._psi.set(found.score.psi, {**tags, "of": "scores"})
