"""What can be asked about player clusters: the list of them, and where one player is now."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

import msgspec

from crm.domain.clustering import ClusterProfile, PlayerClusters, assign_player, show_value
from crm.domain.errors import ClustersNotFound
from crm.domain.ports import PlayerFeatures


class ClusterStore(Protocol):
    """Trained player clusters, kept for ever; the newest of a brand is the one in use."""

    async def add(self, model: PlayerClusters) -> None:
        """Store a model; storing the same id again changes nothing."""

    async def latest(self, brand: str) -> PlayerClusters | None:
        """Return the brand's newest model, or None if nothing was trained."""


class LiveFeatures(Protocol):
    """The one thing that assigning a player needs of the feature shards."""

    async def features(self, brand: str, player_id: str) -> PlayerFeatures:
        """Return all features of a player, live; raises PlayerNotFound, ShardsWarming."""


class Mean(msgspec.Struct, frozen=True):
    """A cluster's mean of a feature and that of all players; money is a decimal string."""

    value: str | float
    whole: str | float
    unit: str


class ClusterView(msgspec.Struct, frozen=True):
    """One cluster as clients see it; `sample_players` are near the middle of it."""

    id: int
    name: str
    size: int
    share: float
    rule: str | None
    precision: float | None
    recall: float | None
    means: dict[str, Mean]
    sample_players: list[str]


class PlayerCluster(msgspec.Struct, frozen=True):
    """Where a player is at `as_of`, by live features and the model of `trained_at`."""

    player_id: str
    brand: str
    cluster: int
    name: str
    rule: str | None
    as_of: datetime
    model: str
    trained_at: datetime


async def list_clusters(store: ClusterStore, brand: str) -> list[ClusterView]:
    """Return the clusters of a brand, the largest first; raises ClustersNotFound."""
    model = await _latest(store, brand)
    return [view(model, cluster) for cluster in model.clusters]


async def cluster_of(
    store: ClusterStore, shards: LiveFeatures, brand: str, player_id: str
) -> PlayerCluster:
    """Assign a player by live features; raises ClustersNotFound, PlayerNotFound, ShardsWarming."""
    model = await _latest(store, brand)
    player = await shards.features(brand, player_id)
    cluster = model.clusters[assign_player(model, player.values) - 1]
    return PlayerCluster(
        player_id=player_id,
        brand=brand,
        cluster=cluster.id,
        name=cluster.name,
        rule=cluster.rule,
        as_of=player.as_of,
        model=model.id,
        trained_at=model.created_at,
    )


def view(model: PlayerClusters, cluster: ClusterProfile) -> ClusterView:
    """Return a stored cluster as clients see it."""

    def mean(name: str, value: float) -> Mean:
        feature = model.feature(name)
        return Mean(
            show_value(feature, value, model.currency),
            show_value(feature, model.whole[name], model.currency),
            model.currency.code if feature.unit == "money" else feature.unit,
        )

    return ClusterView(
        id=cluster.id,
        name=cluster.name,
        size=cluster.size,
        share=cluster.share,
        rule=cluster.rule,
        precision=cluster.precision,
        recall=cluster.recall,
        means={name: mean(name, value) for name, value in cluster.means.items()},
        sample_players=cluster.players,
    )


async def _latest(store: ClusterStore, brand: str) -> PlayerClusters:
    model = await store.latest(brand)
    if model is None:
        raise ClustersNotFound(
            f"no player clusters for brand {brand}; run: crm train clusters --brand {brand}"
        )
    return model
