"""The laws of a store of player clusters, on the twin in memory and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from crm.adapters.memory_clustering import MemoryClusterStore
from crm.adapters.postgres.clustering import open_cluster_store
from crm.domain.brands import Currency
from crm.domain.clustering import ClusterProfile, Metrics, PlayerClusters, Scaler
from crm.domain.errors import DatabaseAway
from crm.services.clustering import ClusterStore

AT = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
MODEL = PlayerClusters(
    id="m1",
    brand="demo",
    created_at=AT,
    algorithm="kmeans",
    seed=0,
    currency=Currency("EUR", 2),
    features=["bet_count_lifetime"],
    scaler=Scaler("log", [1.0], [0.1], [0.30000000000000004]),
    centroids=[[0.1], [1 / 3]],
    metrics=Metrics(2, 40, 12.5, "zscore", 0.5, 1.0),
    whole={"bet_count_lifetime": 3.25},
    clusters=[ClusterProfile(1, "Casual players", 40, 1.0, {}, None, None, None, ["-a", "007"])],
    default_cluster=1,
)


class ClusterStoreLaws:
    """What any store of player clusters does."""

    async def test_a_brand_without_training_has_no_model(self, store: ClusterStore) -> None:
        assert await store.latest("demo") is None

    async def test_a_model_comes_back_as_it_was(self, store: ClusterStore) -> None:
        await store.add(MODEL)
        assert await store.latest("demo") == MODEL

    async def test_the_newest_model_of_the_brand_counts(self, store: ClusterStore) -> None:
        newer = msgspec.structs.replace(MODEL, id="m0", created_at=AT + timedelta(microseconds=1))
        other = msgspec.structs.replace(
            MODEL, id="m9", brand="other", created_at=AT + timedelta(days=1)
        )
        for model in (newer, MODEL, other):
            await store.add(model)
        assert await store.latest("demo") == newer

    async def test_storing_an_id_again_changes_nothing(self, store: ClusterStore) -> None:
        await store.add(MODEL)
        await store.add(msgspec.structs.replace(MODEL, seed=99))
        assert await store.latest("demo") == MODEL


class TestMemoryClusterStore(ClusterStoreLaws):
    @pytest.fixture
    def store(self) -> ClusterStore:
        return MemoryClusterStore()


class TestPostgresClusterStore(ClusterStoreLaws):
    @pytest.fixture
    async def store(self, dsn: str) -> AsyncIterator[ClusterStore]:
        async with open_cluster_store(dsn) as store:
            yield store


async def test_a_database_that_is_away_is_named_as_such() -> None:
    async with open_cluster_store("postgresql://nobody@127.0.0.1:1/none") as store:
        with pytest.raises(DatabaseAway):
            await store.latest("demo")
