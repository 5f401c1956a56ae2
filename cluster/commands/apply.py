"""`crm apply`: changed brands, measures and rates into the running service, without a stop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster import in_force, ray_runtime
from cluster.commands.shards import shown
from cluster.commands.support import connected, emit_json
from cluster.layout import Layout

if TYPE_CHECKING:
    from configs.settings import Settings
    from crm.domain.brands import Brand
    from crm.domain.rates import Rates


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("apply")(apply)


def apply(
    *,
    force: Annotated[bool, typer.Option(help="Even if nothing has changed.")] = False,
    json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
) -> None:
    """Bring changed brand files (new brands, own measures) and rates into the running service.

    New measures are counted over the whole past first; then new owners take the shards over, a few
    at a time, and the API's replicas are replaced one after the other. Where only rates or settings
    have changed, the shards stay where they are; where nothing has, nothing is done.
    """
    from configs.brands import load_brands
    from configs.settings import load_settings
    from crm.adapters.postgres.brands import register as register_brands
    from crm.adapters.rates import load_rates

    settings = load_settings()
    brands = load_brands(settings.brands_dir)  # a wrong file is told before anything is touched
    rates = load_rates(settings.rates_file, brands.values())
    layout = Layout(settings.var_dir)
    wanted = in_force.digests(brands, rates, settings)
    with connected() as running:
        before = None if force else in_force.read(layout)
        longest_s = 0.0
        if before != wanted:
            asyncio.run(register_brands(str(running.postgres.direct_dsn), brands))
            in_force.forget(layout)  # if this stops half-way, the next one does all of it
            if before is None or before.owners != wanted.owners:
                longest_s = _renew_owners(brands)
            _renew_others(running, brands, rates)
            in_force.note(layout, wanted)
    changed = before != wanted
    if json:
        pause_s = round(longest_s, 3)
        emit_json({"brands": sorted(brands), "changed": changed, "longest_pause_s": pause_s})
    elif changed:
        typer.echo(
            f"{len(brands)} brands are in force; no shard was away for longer than"
            f" {longest_s:.2f} s"
        )
    else:
        typer.echo(f"nothing has changed: {len(brands)} brands are in force as they are")


def _renew_owners(brands: Mapping[str, Brand]) -> float:
    """Bring owners that know the brands into the place of others; return the longest pause (s)."""
    from actors import supervisor

    with ExitStack() as stack:
        return supervisor.renew(brands, shown(stack)).longest_pause_s


def _renew_others(running: Settings, brands: Mapping[str, Brand], rates: Rates) -> None:
    """Have the replicas of all kinds and the keepers know the brands and rates."""
    from actors import lake_keeper, retrain_keeper, segment_keeper
    from deployments import serving
    from deployments.api.deployment import ApiSpec
    from deployments.live.deployment import LiveSpec
    from deployments.segmentation import SegmentationSpec

    dsn, lake = str(running.postgres.dsn), str(running.lake.uri)
    key, redis = Path(str(running.vault.key_file)), str(running.redis.url)
    spec = ApiSpec(brands, rates, dsn, redis, lake, key, running.shards.coalesce)
    live = LiveSpec(brands, dsn, str(running.postgres.direct_dsn), running.live.sockets)
    models = SegmentationSpec(brands, dsn)
    serving.start(
        serving.Serving(running.api, spec, running.live, live, running.predictions, models)
    )
    lake_keeper.start(lake_keeper.LakeSpec(dsn, running.lake))
    segment_keeper.start(segment_keeper.SegmentsSpec(brands, dsn, running.segments, lake))
    retrain_keeper.start(
        retrain_keeper.RetrainsSpec(brands, dsn, lake, running.retrains, ray_runtime.RUNTIME_ENV)
    )
