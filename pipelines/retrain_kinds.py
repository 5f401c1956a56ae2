"""How each kind of model is trained anew, and held against the one that serves on the same rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias, overload

import numpy as np

from configs.brands import load_brands
from configs.settings import Settings
from crm.adapters import clock
from crm.domain.brands import Brand
from crm.domain.clustering import NOISE, Floats, Ints, PlayerClusters, Scaler, assign, in_units
from crm.domain.errors import FeatureNotFound, ModelUnreadable
from crm.domain.model_documents import decode
from crm.domain.models import ModelKind, RegisteredModel, ScoreModel
from crm.domain.ports import Columns
from crm.domain.promotion import Comparison, Different, Unfit
from crm.domain.retrains import RetrainOptions
from pipelines import clustering
from pipelines.asked import gone
from pipelines.cluster_quality import silhouette
from pipelines.retrain_requests import Serving, clusters_request, score_request

SILHOUETTE_SLACK = 0.02  # so much it differs from one sample of players to the next
ERROR_SLACK = 0.01  # of the serving model's error: what another seed makes of the same rows


GONE = Unfit("the serving model reads features that are gone")
UNREADABLE = Unfit("the serving model cannot be read")
Found: TypeAlias = Comparison | Different | Unfit


class Made(NamedTuple):
    """A registered candidate; `compare` holds a serving model's document against it."""

    model: RegisteredModel
    compare: Callable[[bytes], Found]


def train_clusters(
    settings: Settings, brand: Brand, options: RetrainOptions, serving: Serving | None
) -> Made:
    """Find player clusters on live features as was asked for `serving`; raises CannotCluster."""
    request = clusters_request(brand, options, serving)
    done = clustering.run(settings, request, clock.now, rule="never")
    trained = done.trained.model

    def compare(document: bytes) -> Found:
        other = to_compare("clusters", document, brand)
        if isinstance(other, Unfit):
            return other
        names = list(dict.fromkeys((*trained.features, *other.features)))
        try:
            columns = asyncio.run(_live_columns(settings, brand, names))
        except FeatureNotFound:  # the owners know less than the brand's file says
            return GONE
        return compare_clusters(trained, other, columns, options.seed)

    return Made(done.registered, compare)


@overload
def to_compare(
    kind: Literal["clusters"], document: bytes, brand: Brand
) -> PlayerClusters | Unfit: ...
@overload
def to_compare(
    kind: Literal["churn", "value"], document: bytes, brand: Brand
) -> ScoreModel | Unfit: ...


def to_compare(
    kind: ModelKind, document: bytes, brand: Brand
) -> PlayerClusters | ScoreModel | Unfit:
    """Return a serving model that can be asked about today's players, or why it cannot."""
    try:
        model = decode(kind, document)
    except ModelUnreadable:
        return UNREADABLE
    return GONE if gone(model.features, brand) else model


def compare_clusters(
    candidate: PlayerClusters, serving: PlayerClusters, columns: Columns, seed: int
) -> Comparison:
    """Compare the silhouettes of two groupings of the same players, in one space for both: all
    features that either uses, by signed logarithms to one scale.
    """
    names = list(dict.fromkeys((*candidate.features, *serving.features)))
    values = np.column_stack([_values(candidate, serving, columns, name) for name in names])
    space = Scaler.fit("log", values).transform(values)

    def rated(model: PlayerClusters) -> float:
        places = [names.index(name) for name in model.features]
        labels: Ints = assign(model, values[:, places])
        return silhouette(space, np.where(labels == NOISE, -1, labels), seed)

    return Comparison("silhouette", "higher", rated(candidate), rated(serving), SILHOUETTE_SLACK)


def _values(
    candidate: PlayerClusters, serving: PlayerClusters, columns: Columns, name: str
) -> Floats:
    model = candidate if name in candidate.features else serving
    raw, missing = columns.values[name], columns.missing.get(name)
    return in_units(model.feature(name), raw, missing, model.currency)


async def _live_columns(settings: Settings, brand: Brand, names: list[str]) -> Columns:
    from actors.gateway import connect  # imports Ray

    gateway = connect(settings, load_brands(settings.brands_dir))
    return await gateway.columns(brand.id, names)


def train_score(
    kind: Literal["churn", "value"],
    settings: Settings,
    brand: Brand,
    options: RetrainOptions,
    serving: Serving | None,
) -> Made:
    """Train a score on the past as was asked for `serving`; raises CannotScore.

    Both are judged on the new one's newest test.
    """
    from pipelines import scores  # sklearn: 1 s
    from pipelines.score_training import MEASURE

    request = score_request(kind, brand, options, serving)
    done = scores.run(settings, request, clock.now, "never")
    made, trained = done.made, done.trained.model

    def compare(document: bytes) -> Found:
        other = to_compare(kind, document, brand)
        if isinstance(other, Unfit):
            return other
        if foresees(other) != foresees(trained):
            return Different(foresees(other), foresees(trained))
        try:
            error = made.error_of(other)
        except ModelUnreadable:
            return UNREADABLE
        return Comparison(MEASURE[kind], "lower", made.error, error, ERROR_SLACK * error)

    return Made(done.registered, compare)


def foresees(model: ScoreModel) -> str:
    """Return what a score is of, and how far ahead: two that differ have no rows in common."""
    return f"{model.target} in {model.horizon_days} days"
