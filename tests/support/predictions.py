"""Models that serve a brand's players, and predictions over shards in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from crm.adapters.memory import MemoryEventLog
from crm.adapters.memory_models import MemoryModels
from crm.adapters.scorers import Calibration, Fitted, Weights, open_scorer
from crm.domain.brands import Brand
from crm.domain.clustering import ClusterProfile, PlayerClusters, Scaler
from crm.domain.models import Rank, ScoreModel, TrainedModel
from crm.domain.ports import SomePlayers
from crm.services.predictions import Predictions
from crm.services.served_models import ServedModels, Switch
from tests.support.builders import NOON, a_brand
from tests.support.clock import Clock
from tests.support.local_shards import LocalShards
from tests.support.models import some_clusters, trained
from tests.support.owners import an_owner
from tests.support.scores import a_score_model

BRAND = a_brand()


def two_clusters(**changes: Any) -> PlayerClusters:
    """Long known players without bets (1, the default), and new ones who bet (2).

    By likeness alone, somebody who has just registered would be in the second.
    """
    features = ["bet_count_lifetime", "days_since_registration"]
    profiles = [
        ClusterProfile(number, name, 20, 0.5, dict.fromkeys(features, 1.0), None, None, None, [])
        for number, name in ((1, "Quiet"), (2, "Busy"))
    ]
    fields: dict[str, Any] = {
        "id": "clusters-1",
        "features": features,
        "scaler": Scaler("zscore", [0.0, 0.0], [0.0, 0.0], [1.0, 1.0]),
        "centroids": [[0.0, 100.0], [10.0, 0.0]],
        "whole": dict.fromkeys(features, 1.0),
        "clusters": profiles,
        "default_cluster": 1,
    }
    return some_clusters(**(fields | changes))


def by_bets(weight: float, link: Any = "sigmoid", shift: float = 0.0) -> Fitted:
    """A weight on the number of bets, and nothing else."""
    scaler = Scaler("zscore", [0.0], [0.0], [1.0])
    return Fitted(Weights(scaler, [weight], shift), Calibration(link))


def a_value_model(**changes: Any) -> ScoreModel:
    """Two euros a bet, and one for nothing."""
    fields: dict[str, Any] = {
        "id": "value-1",
        "kind": "value",
        "algorithm": "linear",
        "features": ["bet_count_lifetime"],
        "horizon_days": 90,
        "target": "ngr_amount",
        "ranks": [Rank("low", 0.0, None), Rank("high", 5.0, None)],
        "fitted": by_bets(2.0, "line", 1.0),
    }
    return a_score_model(**(fields | changes))


def as_trained(model: PlayerClusters | ScoreModel, **changes: Any) -> TrainedModel:
    """What a training hands over of a model."""
    fields: dict[str, Any] = {
        "id": model.id,
        "brand": model.brand,
        "kind": "clusters" if isinstance(model, PlayerClusters) else model.kind,
        "algorithm": model.algorithm,
        "features": model.features,
        "document": msgspec.json.encode(model),
        "files": {},
    }
    return trained(**(fields | changes))


class CountingShards(LocalShards):
    """Shards that note how many players each reading was of."""

    reads: list[int]

    async def of_players(
        self, brand: str, player_ids: Sequence[str], names: Sequence[str]
    ) -> SomePlayers:
        """Return features of some players."""
        self.reads.append(len(player_ids))
        return await super().of_players(brand, player_ids, names)


@dataclass
class Predicting:
    """Predictions, and what stands behind them."""

    predictions: Predictions
    served: ServedModels
    models: MemoryModels
    shards: CountingShards
    clock: Clock
    brand: Brand = BRAND
    switches: list[Switch] = field(default_factory=list)

    async def serve(self, *models: PlayerClusters | ScoreModel, **changes: Any) -> None:
        """Register models, promote them, and take them into use."""
        for model in models:
            await self.models.add(as_trained(model, **changes))
            await self.models.promote(model.id, "a key")
        await self.served.refresh()


@asynccontextmanager
async def predicting(*brands: Brand) -> AsyncIterator[Predicting]:
    """Predictions over one owner, without a model yet."""
    of = {brand.id: brand for brand in brands or (BRAND,)}
    clock, models = Clock(NOON), MemoryModels()
    switches: list[Switch] = []
    served = ServedModels(models, of, open_scorer, lambda: clock.seconds, switches.append)
    async with an_owner(MemoryEventLog(), clock, brands=of) as owner:
        shards = CountingShards(owner, of)
        shards.reads = []
        predictions = Predictions(shards, served, clock)
        await served.refresh()
        yield Predicting(
            predictions, served, models, shards, clock, next(iter(of.values())), switches
        )
