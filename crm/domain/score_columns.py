"""The columns that serving models make: what a rule may name beside the features."""

from __future__ import annotations

from typing import Any

from crm.domain.feature_list import FeatureList
from crm.domain.features import Defined, Feature, Scored

CLUSTER = "cluster"
PROBABILITY = "churn_probability"
RANK = "churn_rank"
VALUE = "predicted_value"
_LIVE = "by the serving model, from live features; missing without one"

# by name; churn_rank, which is a text, stands beside them
SCORED: dict[str, Defined] = {
    name: Defined(Feature(name, definition.unit, f"{definition.meaning}, {_LIVE}"), definition)
    for name, definition in {
        CLUSTER: Scored("id", "player cluster"),
        PROBABILITY: Scored("share", "probability of churn"),
        VALUE: Scored("money", "predicted value"),
    }.items()
}
RANK_COLUMN = Feature(RANK, "text", f"rank of the probability of churn, {_LIVE}")
LISTED: tuple[Feature, ...] = (
    SCORED[CLUSTER].feature, SCORED[PROBABILITY].feature, RANK_COLUMN, SCORED[VALUE].feature,
)  # fmt: skip


def defined_as(name: str, features: FeatureList) -> Defined:
    """Return what stands behind a name in a rule; raises KeyError."""
    return SCORED[name] if name in SCORED else features.defined[name]


def is_score(name: Any) -> bool:
    """Whether a name is that of a column that models make."""
    return name in SCORED or name == RANK
