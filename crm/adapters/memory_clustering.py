"""The twin in memory of the store of player clusters."""

from __future__ import annotations

from crm.domain.clustering import PlayerClusters


class MemoryClusterStore:
    """Trained models by brand, without a database."""

    def __init__(self) -> None:
        self._models: dict[str, PlayerClusters] = {}

    async def add(self, model: PlayerClusters) -> None:
        """Store a model; storing the same id again changes nothing."""
        self._models.setdefault(model.id, model)

    async def latest(self, brand: str) -> PlayerClusters | None:
        """Return the brand's newest model, or None if nothing was trained."""
        own = [model for model in self._models.values() if model.brand == brand]
        return max(own, key=lambda model: (model.created_at, model.id), default=None)
