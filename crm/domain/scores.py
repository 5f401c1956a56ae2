"""Scores of players: their ranks, the values that a model takes, what cannot be trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from crm.domain.brands import Currency
from crm.domain.clustering import Flags, Floats, Ints, in_units
from crm.domain.errors import CrmError
from crm.domain.features import Feature
from crm.domain.models import Rank

# the bounds that the field uses (Smartico's): each rank from this probability of churn on
RANKS = {"low": 0.0, "medium": 0.4, "high": 0.6, "critical": 0.85}


class CannotScore(CrmError):
    """No score model can be trained as asked; the message says what is missing."""

    code = "cannot_score"


class Reading(Protocol):
    """A model of any kind: the features that it reads, each as it was when it was trained."""

    @property
    def features(self) -> list[str]:
        """Their names."""

    @property
    def currency(self) -> Currency:
        """That of amounts."""

    def feature(self, name: str) -> Feature:
        """Return one of them."""


def values_of(
    model: Reading, raw: Mapping[str, Ints], missing: Mapping[str, Flags | None]
) -> Floats:
    """Return what a model takes (players x features, in its units) of raw feature columns."""
    columns = [
        in_units(model.feature(name), raw[name], missing.get(name), model.currency)
        for name in model.features
    ]
    return np.column_stack(columns)


def ranks_of(ranks: Sequence[Rank], scores: Floats) -> Ints:
    """Return the place of each score's rank: the last that begins at or below it.

    -1 where there is none: for NaN, below the first, without ranks.
    """
    places: Ints = np.searchsorted([rank.least for rank in ranks], scores, side="right") - 1
    return np.where(np.isnan(scores), -1, places)
