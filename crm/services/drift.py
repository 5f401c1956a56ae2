"""A look at a model's drift: today's players against the reference that lies with the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from crm.domain.clustering import Floats
from crm.domain.drift import SCORE, Drift, Reference, Thresholds, drifted, shift
from crm.domain.models import RegisteredModel
from crm.domain.ports import Columns

_ROWS_AT_ONCE = 50_000


class OpenedModel(NamedTuple):
    """What a look needs of a model: its values of raw columns, in units, and its scores of those.

    The scores of player clusters are the clusters' ids.
    """

    values: Callable[[Columns], Floats]
    scores: Callable[[Floats], Floats]


def look(
    model: RegisteredModel,
    reference: Reference,
    opened: OpenedModel,
    columns: Columns,
    thresholds: Thresholds,
) -> Drift:
    """Compare all players of `columns` with a model's training set."""
    values = opened.values(columns)
    shifts = [
        shift(name, reference.features[name], values[:, number])
        for number, name in enumerate(model.features)
        if name in reference.features
    ]
    shifts.sort(key=lambda one: (-one.psi, one.name))
    score = None
    if reference.score is not None:
        score = shift(SCORE, reference.score, _scores(opened, values))
    return Drift(
        model.id,
        model.brand,
        model.kind,
        columns.as_of,
        len(columns.player_ids),
        shifts,
        score,
        drifted(shifts, score, thresholds),
    )


def _scores(opened: OpenedModel, values: Floats) -> Floats:
    found = np.empty(len(values))
    for start in range(0, len(values), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        found[rows] = opened.scores(values[rows])
    return found
