"""`crm import`: files of the operator, through a mapping, into the running system."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.commands.support import connected, emit_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("import")(import_files)


def import_files(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files of one format.")],
    mapping: Annotated[Path, typer.Option(help="The YAML file that says what the columns mean.")],
    brand: Annotated[str | None, typer.Option(help="Instead of the mapping's own brand.")] = None,
    *,
    json: Annotated[bool, typer.Option("--json", help="End with the report as JSON.")] = False,
) -> None:
    """Import files (CSV, text, JSON lines, Parquet; gz, zst, zip) as events."""
    from configs.brands import load_brands
    from configs.settings import load_settings
    from pipelines.chunks import choose_brand, load_mapping, plan
    from pipelines.imports import import_files as import_planned
    from pipelines.imports import stores_of

    brands = load_brands(load_settings().brands_dir)
    # a wrong mapping or file is told before anything is connected, and then nothing was sent
    planned = plan(files, choose_brand(load_mapping(mapping), brands, brand))
    with connected() as settings:
        stores = stores_of(settings, planned)
        report = import_planned(planned, stores, settings.var_dir / "quarantine")
    typer.echo(report.as_text(), err=json)
    if json:
        emit_json(report.as_json())
