"""`crm features`: what is known of every player, live and as of any past moment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.commands.support import connected, emit_json

_features = typer.Typer(
    help="List features, or build them as of a past moment.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Add `features` and what belongs to it to `app`."""
    app.add_typer(_features, name="features")


@_features.callback()
def features() -> None:
    """List features, or build them as of a past moment."""


@_features.command("list")
def list_features(
    brand: Annotated[str | None, typer.Option(help="Default: the first brand.")] = None,
    *,
    markdown: Annotated[
        bool, typer.Option(help="The built-in ones, as docs/features.md has them.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
) -> None:
    """List every feature of a brand with its unit and meaning, those of its own measures last."""
    from configs.brands import load_brands
    from configs.settings import load_settings
    from crm.domain.brands import choose
    from crm.domain.feature_list import features_of
    from crm.services.feature_page import markdown as page

    if markdown:
        typer.echo(page(), nl=False)
        return
    features = features_of(choose(load_brands(load_settings().brands_dir), brand)).features
    if json:
        emit_json({name: {"unit": f.unit, "meaning": f.meaning} for name, f in features.items()})
    else:
        for feature in features.values():
            typer.echo(f"{feature.name:40} {feature.unit:8} {feature.meaning}")


@_features.command("build")
def build_features(
    *,
    as_of: Annotated[str, typer.Option(help="A past moment, RFC 3339; a date is its 00:00 UTC.")],
    known_by: Annotated[
        str | None,
        typer.Option(help="What was known by then counts; default: --as-of. `now`: all."),
    ] = None,
    brand: Annotated[str | None, typer.Option(help="Default: the first brand.")] = None,
    label_days: Annotated[
        int | None,
        typer.Option(min=1, help="Add what players did in so many days after: a training set."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A new folder that gets a copy.")] = None,
    json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
) -> None:
    """Build all features of a brand's players as of a moment, as Parquet, from the lake."""
    from configs.brands import load_brands
    from configs.settings import load_settings
    from crm.adapters import clock
    from crm.domain.brands import choose
    from pipelines.features import Request, build

    chosen = choose(load_brands(load_settings().brands_dir), brand)
    request = Request.of(chosen, as_of, known_by, label_days, clock.now())
    with connected() as settings:
        built = build(settings, request, out)
    typer.echo(
        f"{built.players:,} players of {chosen.id} ({built.events:,} events looked at): "
        f"{built.folder} in the lake{'' if out is None else f', and {out}'}",
        err=True,
    )
    if json:
        emit_json(built.as_json())
