"""Clusterings of before the registry become models: readable, serving, and to be gone back to."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from crm.adapters import postgres as migrations
from crm.adapters.postgres.migrate import migrate
from crm.adapters.postgres.models import open_models
from crm.domain.clustering import PlayerClusters
from crm.services.clustering import ServingClusters
from tests.support.models import AT, some_clusters

NEW = "0010_models.sql"
# what a row held then: what has come since is not in it
MODEL = (
    "id", "brand", "created_at", "algorithm", "seed", "currency", "features", "scaler",
    "centroids", "metrics", "whole", "clusters", "default_cluster", "own",
)  # fmt: skip
PARTS = {
    "scaler": ("method", "fill", "center", "scale"),
    "metrics": ("k", "players", "wcss", "wcss_scaling", "silhouette", "stability"),
    "clusters": (
        "id", "name", "size", "share", "means", "rule", "precision", "recall", "players",
    ),
}  # fmt: skip


async def test_clusterings_of_before_are_models_and_the_newest_serves(bare_dsn: str) -> None:
    old = [
        some_clusters(id="z", created_at=AT, seed=3),
        some_clusters(id="a", created_at=AT + timedelta(days=1)),
        some_clusters(id="b", created_at=AT + timedelta(days=2), algorithm="minibatch_kmeans"),
        some_clusters(id="x", brand="other"),
    ]
    connection = await asyncpg.connect(bare_dsn)
    try:
        await _migrate_to_before(connection)
        for one in reversed(old):
            await connection.execute(
                "INSERT INTO player_clusters VALUES ($1, $2, $3, $4)",
                one.id, one.brand, one.created_at, _as_then(one),
            )  # fmt: skip
    finally:
        await connection.close()
    assert NEW in await migrate(bare_dsn)

    async with open_models(bare_dsn) as models:
        found = await models.listed("demo")
        assert [(one.id, one.number, one.state) for one in found] == [
            ("b", 3, "serving"), ("a", 2, "former"), ("z", 1, "former"),
        ]  # fmt: skip
        assert found[0].algorithm == "minibatch_kmeans"
        assert found[2].metrics == {
            "k": 2, "players": 40, "wcss": 12.5, "silhouette": 0.5, "stability": 1.0,
        }  # fmt: skip
        assert (found[2].seed, found[2].data.players, found[2].features) == (
            3, 40, ["bet_count_lifetime"],
        )  # fmt: skip
        for one in old:
            document = await models.document(one.id)
            assert msgspec.json.decode(document, type=PlayerClusters) == one
        assert await ServingClusters(models).of("demo") == old[2]
        assert await ServingClusters(models).of("other") == old[3]
        assert (await models.rollback("demo", "clusters", "key")).id == "a"
        assert (await models.rollback("demo", "clusters", "key")).id == "z"
        (newest, *_) = await models.changes("other")
        assert (newest.action, newest.by, newest.before) == ("promoted", "rule", None)


def _as_then(model: PlayerClusters) -> str:
    """Return a model as it was written before the registry."""
    now: dict[str, Any] = msgspec.to_builtins(model)
    then = {name: now[name] for name in MODEL}
    for name, fields in PARTS.items():
        parts = then[name] if isinstance(then[name], list) else [then[name]]
        kept = [{field: part[field] for field in fields} for part in parts]
        then[name] = kept if isinstance(then[name], list) else kept[0]
    return msgspec.json.encode(then).decode()


async def _migrate_to_before(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Bring an empty database to where it stood before the migration under test."""
    await connection.execute(
        "CREATE TABLE schema_migrations (name text PRIMARY KEY, sha256 text NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT now())"
    )
    folder = Path(migrations.__file__).parent / "migrations"
    for file in sorted(await asyncio.to_thread(lambda: list(folder.glob("*.sql")))):
        if file.name >= NEW:
            break
        sql = file.read_text(encoding="utf-8")
        await connection.execute(sql)
        digest = sha256(sql.encode()).hexdigest()
        await connection.execute("INSERT INTO schema_migrations VALUES ($1, $2)", file.name, digest)
