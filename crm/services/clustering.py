"""What can be asked about player clusters: the list of them, and where one player is now."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

import msgspec

from crm.domain.brands import Brand
from crm.domain.clustering import (
    ClusterProfile,
    Difference,
    Move,
    PlayerClusters,
    assign_player,
    show_value,
)
from crm.domain.errors import (
    ClusterHasNoRule,
    ClusterNotFound,
    ClustersNotFound,
    ModelUnreadable,
    ModelUnusable,
)
from crm.domain.model_documents import decode
from crm.domain.ports import PlayerFeatures
from crm.domain.saved_segments import MAX_NAME_CHARS, Once, Written
from crm.services.model_registry import ServingModels
from crm.services.saved_segments import SavedSegments


class ServingClusters:
    """The player clusters that serve; each model is read once, for it never changes."""

    def __init__(self, models: ServingModels) -> None:
        self._models = models
        self._read: dict[str, PlayerClusters] = {}

    async def of(self, brand: str) -> PlayerClusters:
        """Return a brand's serving clusters.

        Raises ClustersNotFound, ModelUnusable, DatabaseAway.
        """
        serving = [one for one in await self._models.serving(brand) if one.kind == "clusters"]
        if not serving:
            raise ClustersNotFound(
                f"no player clusters for brand {brand}; run: crm train clusters --brand {brand}"
            )
        read = self._read.get(brand)
        if read is None or read.id != serving[0].id:
            document = await self._models.document(serving[0].id)
            read = self._read[brand] = _read(serving[0].id, document)
        return read


def _read(identity: str, document: bytes) -> PlayerClusters:
    try:
        return decode("clusters", document)
    except ModelUnreadable as error:
        raise ModelUnusable(f"model {identity} cannot be read: {error.message}") from None


class LiveFeatures(Protocol):
    """The one thing that assigning a player needs of the feature shards."""

    async def features(self, brand: str, player_id: str) -> PlayerFeatures:
        """Return all features of a player, live; raises PlayerNotFound, ShardsWarming."""


class Mean(msgspec.Struct, frozen=True):
    """A cluster's mean of a feature and that of all players; money is a decimal string."""

    value: str | float
    whole: str | float
    unit: str


class DifferenceView(msgspec.Struct, frozen=True):
    """In what a cluster differs from all players, in units; `effect` in standard deviations."""

    feature: str
    mean: str | float
    whole: str | float
    unit: str
    effect: float


class ClusterView(msgspec.Struct, frozen=True):
    """One cluster as clients see it; `sample_players` are near the middle of it.

    `differences` are the largest first. `noise`: those who are in no group.
    """

    id: int
    name: str
    size: int
    share: float
    rule: str | None
    precision: float | None
    recall: float | None
    means: dict[str, Mean]
    sample_players: list[str]
    differences: list[DifferenceView] = []
    silhouette: float | None = None
    noise: bool = False


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


async def list_clusters(clusters: ServingClusters, brand: str) -> list[ClusterView]:
    """Return the clusters of a brand, the largest first; raises ClustersNotFound, ModelUnusable."""
    model = await clusters.of(brand)
    try:
        return [view(model, cluster) for cluster in model.clusters]
    except KeyError as error:
        raise ModelUnusable(f"model {model.id} does not say what {error} is") from error


class ClusterMoves(msgspec.Struct, frozen=True):
    """Who moved where when `model` came after `before`: players by their clusters in both.

    They were counted on the players of that time; None: nothing served before it.
    """

    model: str
    before: str | None
    moves: list[Move]


async def moves_of(clusters: ServingClusters, brand: str) -> ClusterMoves:
    """Return who moved where with the serving model; raises ClustersNotFound, ModelUnusable."""
    model = await clusters.of(brand)
    return ClusterMoves(model.id, model.before, model.moves)


async def save_as_segment(
    model: PlayerClusters,
    cluster: int,
    segments: SavedSegments,
    brand: Brand,
    name: str | None,
    once: Once | None,
) -> Written:
    """Save a cluster's rule as a segment, by default under the cluster's name.

    Raises ClusterNotFound, ClusterHasNoRule, and what a segment that is saved raises.
    """
    found = next((one for one in model.clusters if one.id == cluster), None)
    if found is None:
        ids = ", ".join(str(one.id) for one in model.clusters)
        raise ClusterNotFound(f"brand {brand.id} has no such cluster; there are {ids}")
    if found.rule is None:
        raise ClusterHasNoRule(
            "no short rule selects about the players of this cluster; a rule may say "
            f"cluster = {cluster}"
        )
    return await segments.create(brand, name or found.name[:MAX_NAME_CHARS], found.rule, once)


async def cluster_of(
    clusters: ServingClusters, shards: LiveFeatures, brand: str, player_id: str
) -> PlayerCluster:
    """Assign a player by live features.

    Raises ClustersNotFound, ModelUnusable, PlayerNotFound, ShardsWarming.
    """
    model = await clusters.of(brand)
    player = await shards.features(brand, player_id)
    cluster = _assigned(model, player.values)
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


def _assigned(model: PlayerClusters, values: Mapping[str, int | None]) -> ClusterProfile:
    """Return the cluster of a player's raw features; raises ModelUnusable."""
    unknown = next((name for name in model.features if name not in values), None)
    if unknown is not None:
        raise ModelUnusable(f"the running service has no feature {unknown!r}: run `crm apply`")
    cluster = assign_player(model, values)
    try:
        return model.cluster(cluster)
    except KeyError as error:
        raise ModelUnusable(
            f"model {model.id} assigns a player to cluster {cluster}, which it does not describe"
        ) from error


def view(model: PlayerClusters, cluster: ClusterProfile) -> ClusterView:
    """Return a stored cluster as clients see it."""

    def mean(name: str, value: float) -> Mean:
        feature = model.feature(name)
        return Mean(
            show_value(feature, value, model.currency),
            show_value(feature, model.whole[name], model.currency),
            model.currency.code if feature.unit == "money" else feature.unit,
        )

    def difference(one: Difference) -> DifferenceView:
        shown = mean(one.feature, one.mean)
        return DifferenceView(
            one.feature, shown.value, shown.whole, shown.unit, round(one.effect, 2)
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
        differences=[difference(one) for one in cluster.differences],
        silhouette=cluster.silhouette,
        noise=cluster.noise,
    )
