"""What the deployment of the models tells the API, in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec

from crm.adapters.memory_models import MemoryModels
from crm.adapters.scorers import open_scorer
from crm.domain.brands import Brand
from crm.services.predictions import LivePlayers, Predictions
from crm.services.served_models import ServedModels


@dataclass(frozen=True)
class LocalScores:
    """Scores by models that are taken into use when a test says so."""

    predictions: Predictions
    served: ServedModels
    brands: Mapping[str, Brand]

    @classmethod
    def over(
        cls,
        shards: LivePlayers,
        brands: Mapping[str, Brand],
        now: Callable[[], datetime],
        models: MemoryModels | None = None,
    ) -> LocalScores:
        """Return scores over shards and a registry, which is empty if none is given."""
        registry = models or MemoryModels()
        served = ServedModels(registry, brands, open_scorer, lambda: now().timestamp())
        return cls(Predictions(shards, served, now), served, brands)

    async def of_player(self, brand: str, player_id: str) -> bytes:
        """Return a player's scores as JSON."""
        return msgspec.json.encode(await self.predictions.of_player(self.brands[brand], player_id))
