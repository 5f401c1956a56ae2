"""`crm segments`: ask the running service about segments."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.commands import replays, saved_segments
from cluster.commands.support import connected, emit_json

if TYPE_CHECKING:
    from crm.domain.ports import Count

_segments = typer.Typer(help="Count, save and list segments.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add `segments` and what belongs to it to `app`."""
    saved_segments.add_to(_segments)
    app.add_typer(_segments, name="segments")
    replays.register(_segments)


@_segments.callback()
def segments() -> None:
    """Count, save and list segments."""


@_segments.command("count")
def count(
    rule: Annotated[str, typer.Argument(help="Such as: bet_count_lifetime >= 10")],
    brand: Annotated[str | None, typer.Option(help="Default: the first brand.")] = None,
    *,
    json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
) -> None:
    """Count the players that match a rule: exact, live, over all shards at one moment."""
    from configs.brands import load_brands
    from configs.settings import load_settings
    from crm.domain.brands import choose
    from crm.domain.segments import parse

    brands = load_brands(load_settings().brands_dir)
    of_brand = choose(brands, brand)
    parse(rule, of_brand)  # what is wrong with it is told without the service
    with connected() as settings:
        from actors.gateway import connect
        from crm.adapters.postgres.pool import Pool
        from crm.adapters.postgres.segments import PostgresSegments
        from crm.services.player_features import rfc3339
        from crm.services.segment_rules import written_out

        async def counted() -> Count:
            store = PostgresSegments(Pool(str(settings.postgres.dsn), most=1))
            whole = await written_out(rule, of_brand, store)
            return await connect(settings, brands).count(of_brand.id, whole)

        found = asyncio.run(counted())
    if json:
        emit_json({"count": found.count, "as_of": rfc3339(found.as_of)})
    else:
        typer.echo(f"{found.count:,} of {found.total:,} players at {rfc3339(found.as_of)}")
