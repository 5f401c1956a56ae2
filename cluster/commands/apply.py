"""`crm apply`: changed brands, measures and rates into the running service, without a stop."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from cluster.commands.shards import shown
from cluster.commands.support import connected, emit_json


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("apply")(apply)


def apply(
    *, json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False
) -> None:
    """Bring changed brand files (new brands, own measures) and rates into the running service.

    New measures are counted over the whole past first; then new owners take the shards over, a few
    at a time, and the API's replicas are replaced one after the other.
    """
    from configs.brands import load_brands
    from configs.settings import load_settings
    from crm.adapters.postgres.brands import register as register_brands
    from crm.adapters.rates import load_rates

    settings = load_settings()
    brands = load_brands(settings.brands_dir)  # a wrong file is told before anything is touched
    rates = load_rates(settings.rates_file, brands.values())
    with connected() as running, ExitStack() as stack:
        from actors import segment_keeper, supervisor
        from deployments import serving
        from deployments.api.deployment import ApiSpec
        from deployments.live.deployment import LiveSpec

        asyncio.run(register_brands(str(running.postgres.direct_dsn), brands))
        done = supervisor.renew(brands, shown(stack))
        spec = ApiSpec(
            brands,
            rates,
            str(running.postgres.dsn),
            str(running.redis.url),
            str(running.lake.uri),
            Path(str(running.vault.key_file)),
            running.shards.coalesce,
        )
        direct = str(running.postgres.direct_dsn)
        live = LiveSpec(brands, spec.dsn, direct, running.live.sockets)
        serving.start(running.api, spec, running.live, live)
        dsn = str(running.postgres.dsn)
        segment_keeper.start(segment_keeper.SegmentsSpec(brands, dsn, running.segments))
    if json:
        emit_json({"brands": sorted(brands), "longest_pause_s": round(done.longest_pause_s, 3)})
    else:
        typer.echo(
            f"{len(brands)} brands are in force; no shard was away for longer than"
            f" {done.longest_pause_s:.2f} s"
        )
