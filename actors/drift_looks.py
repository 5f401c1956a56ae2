"""Looks at the drift of all serving models, over the live columns of the shard owners."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from functools import partial
from typing import Protocol

import numpy as np
import structlog

from crm.adapters.scorers import open_scorer
from crm.domain.clustering import Floats, PlayerClusters, assign
from crm.domain.drift import REFERENCE, Drift, Thresholds
from crm.domain.drift import decode as decode_reference
from crm.domain.errors import CrmError, DatabaseAway
from crm.domain.model_documents import decode
from crm.domain.models import ModelKind, RegisteredModel
from crm.domain.ports import Columns
from crm.domain.scores import Reading, values_of
from crm.services.drift import OpenedModel, look
from crm.services.model_registry import ModelFiles, Models, read_file

log = structlog.get_logger(__name__)


class LiveColumns(Protocol):
    """The one thing that a look needs of the feature shards."""

    async def columns(self, brand: str, names: Sequence[str]) -> Columns:
        """Return features of all players, live; raises FeatureNotFound, ShardsWarming."""


class DriftLooks:
    """A look is at every serving model of `brands`; one that cannot be looked at is passed over."""

    def __init__(
        self,
        brands: Collection[str],
        models: Models,
        files: ModelFiles,
        shards: LiveColumns,
        thresholds: Thresholds,
    ) -> None:
        self._brands = brands
        self._models = models
        self._files = files
        self._shards = shards
        self._thresholds = thresholds

    async def look(self) -> AsyncIterator[tuple[RegisteredModel, Drift]]:
        """Yield each serving model with how far it has drifted, one by one; raises DatabaseAway."""
        for model in await self._models.serving():
            if model.brand not in self._brands or REFERENCE not in model.files:
                continue
            try:
                found = await self._look_at(model)
            except DatabaseAway:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the other models are looked at
                said = error.code if isinstance(error, CrmError) else type(error).__name__
                log.warning("drift_not_known", model=model.id, error=said)
            else:
                yield model, found

    async def _look_at(self, model: RegisteredModel) -> Drift:
        reference = decode_reference(
            await read_file(self._models, self._files, model.id, REFERENCE, asyncio.to_thread)
        )
        opened = await asyncio.to_thread(
            open_model, model.kind, await self._models.document(model.id)
        )
        columns = await self._shards.columns(model.brand, model.features)
        return await asyncio.to_thread(
            look, model, reference, opened, columns, self._thresholds
        )  # the shards' owners are asked first: a look takes seconds over a million players


def open_model(kind: ModelKind, document: bytes) -> OpenedModel:
    """Return what a look needs of a model's document; raises ModelUnreadable."""
    model = decode(kind, document)
    if isinstance(model, PlayerClusters):
        return OpenedModel(partial(_values, model), partial(_cluster_ids, model))
    return OpenedModel(partial(_values, model), open_scorer(model).scores)


def _values(model: Reading, columns: Columns) -> Floats:
    return values_of(model, columns.values, columns.missing)


def _cluster_ids(model: PlayerClusters, values: Floats) -> Floats:
    return assign(model, values).astype(np.float64)
