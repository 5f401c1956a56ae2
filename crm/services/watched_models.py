"""Which models serve, as shard owners score players with them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

import structlog

from crm.domain.brands import Brand
from crm.domain.live_scores import ServingScores
from crm.domain.models import ModelKind
from crm.services.served_models import ServedModels

log = structlog.get_logger(__name__)


class NoModels:
    """Where no model ever serves."""

    async def live(self) -> Mapping[str, ServingScores]:
        """Return nothing."""
        return {}


class WatchedModels:
    """The serving models of the brands that an owner knows."""

    def __init__(self, served: ServedModels, brands: Mapping[str, Brand]) -> None:
        self._served = served
        self._brands = brands
        self._live: dict[str, ServingScores] = {}
        self._asking = asyncio.Lock()

    async def live(self) -> Mapping[str, ServingScores]:
        """Return what serves by brand: the same object as long as the same models do."""
        async with self._asking:  # one answer after the other: none is overtaken by an older one
            await self._served.refresh()
        for brand in self._brands:
            models = self._served.of(brand)
            known = self._live.get(brand)
            if known is None or known.models.ids != models.ids:
                self._live[brand] = ServingScores(models, partial(_note_failure, brand))
        return dict(self._live)


def _note_failure(brand: str, kind: ModelKind, model: str | None, error: Exception) -> None:
    log.error("model_failed", brand=brand, kind=kind, model=model, exc_info=error)
