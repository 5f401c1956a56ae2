"""What was asked for in a training, kept in its model's parameters apart from what was found:
`asked.k` beside `k`. A retrain asks for the same again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crm.domain.brands import Brand
from crm.domain.feature_list import features_of

_ASKED = "asked."


def noted(asked: Mapping[str, str]) -> dict[str, str]:
    """Return what was asked as parameters of a model."""
    return {f"{_ASKED}{name}": value for name, value in asked.items()}


def asked_in(params: Mapping[str, str]) -> dict[str, str]:
    """Return what was asked for a model; of one of before this was kept, nothing."""
    return {
        name.removeprefix(_ASKED): value
        for name, value in params.items()
        if name.startswith(_ASKED)
    }


def gone(names: Sequence[str], brand: Brand) -> list[str]:
    """Return which features the brand has no more: measures of its own are taken away."""
    known = features_of(brand).features
    return [name for name in names if name not in known]


def still_there(names: str | None, brand: Brand) -> tuple[str, ...] | None:
    """Return asked features without those that are gone; None if none was asked for, or is left."""
    asked = names.split(",") if names else []
    lost = gone(asked, brand)
    return tuple(name for name in asked if name not in lost) or None
