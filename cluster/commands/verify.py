"""`crm verify`: hold what the service says against what it stored."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.commands.support import connected, emit_json

if TYPE_CHECKING:
    from configs.settings import Settings
    from crm.domain.brands import Brand
    from crm.services.verification import Verification

_verify = typer.Typer(help="Hold the service to its laws.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add `verify` and what belongs to it to `app`."""
    app.add_typer(_verify, name="verify")


@_verify.callback()
def verify() -> None:
    """Hold the service to its laws."""


@_verify.command("features")
def features(
    brand: Annotated[str | None, typer.Option(help="Default: every brand.")] = None,
    *,
    shares: Annotated[bool, typer.Option(help="Show how often each feature is not 0.")] = False,
    json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
) -> None:
    """Compare every live feature of every player with a recount in SQL, and with the batch engine.

    The service may run under load: all three are of one position of each shard. Exit code 1 if a
    value differs.
    """
    from configs.brands import load_brands
    from configs.settings import load_settings
    from crm.domain.brands import choose
    from crm.domain.feature_list import features_of

    brands = load_brands(load_settings().brands_dir)
    asked = list(brands.values()) if brand is None else [choose(brands, brand)]
    with connected() as settings:
        found = {one.id: asyncio.run(_of_brand(settings, brands, one)) for one in asked}
    features = {one.id: features_of(one).features for one in asked}
    for name, one in found.items():
        _show(name, one, features[name], shares=shares)
    if json:
        emit_json(
            {
                "compared": sum(one.compared for one in found.values()),
                "max_difference": max(one.max_difference for one in found.values()),
                "features": max(map(len, features.values())),
                "players": sum(one.players for one in found.values()),
            }
        )
    if any(one.wrong for one in found.values()):
        raise typer.Exit(1)


async def _of_brand(settings: Settings, brands: dict[str, Brand], brand: Brand) -> Verification:
    from actors.gateway import connect
    from crm.adapters import clock
    from crm.adapters.lake import Lake
    from crm.adapters.lake_events import LakeEventFiles
    from crm.adapters.postgres.lake import PostgresManifest
    from crm.adapters.postgres.pool import Pool
    from crm.adapters.postgres.recount import PostgresRecount
    from crm.domain.shards import SHARDS
    from crm.services.lake_writing import LakeWriter
    from crm.services.verification import verify_features
    from pipelines.batch_recount import BatchRecount
    from pipelines.progress import progress

    pool = Pool(str(settings.postgres.direct_dsn), most=1)
    lake, manifest = Lake(str(settings.lake.uri)), PostgresManifest(pool)
    writer = LakeWriter(manifest, LakeEventFiles(lake), clock.now)
    recounts = (PostgresRecount(pool, lake), BatchRecount(manifest, lake, writer))
    try:
        with progress(SHARDS, f"verifying {brand.id}", "shards") as advance:
            shards = connect(settings, brands)
            return await verify_features(shards, recounts, brand, range(SHARDS), advance)
    finally:
        await pool.close()


def _show(name: str, found: Verification, features: Iterable[str], *, shares: bool) -> None:
    names = list(features)
    typer.echo(
        f"{name}: {len(names)} features of {found.players:,} players, live against SQL and"
        f" batch: {found.compared:,} comparisons, {found.wrong:,} differ, greatest difference"
        f" {found.max_difference}"
    )
    for line in found.differences:
        typer.echo(f"  {line}")
    if shares:
        for feature in names:
            typer.echo(f"  {feature:40} {found.nonzero_share(feature):7.2%} not 0")
