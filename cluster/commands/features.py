"""`crm features`: what is known of every player."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.commands.support import emit_json

_features = typer.Typer(help="Ask about features.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add `features` and what belongs to it to `app`."""
    app.add_typer(_features, name="features")


@_features.callback()
def features() -> None:
    """Ask about features."""


@_features.command("list")
def list_features(
    *,
    markdown: Annotated[bool, typer.Option(help="As docs/features.md has it.")] = False,
    json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
) -> None:
    """List every feature with its unit and meaning."""
    from crm.domain.features import FEATURES
    from crm.services.feature_page import markdown as page

    if markdown:
        typer.echo(page(), nl=False)
    elif json:
        emit_json({name: {"unit": f.unit, "meaning": f.meaning} for name, f in FEATURES.items()})
    else:
        for feature in FEATURES.values():
            typer.echo(f"{feature.name:40} {feature.unit:8} {feature.meaning}")
