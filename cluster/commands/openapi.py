"""`crm openapi`: the OpenAPI document, without a running service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cluster.commands.support import fail


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("openapi")(openapi)


def openapi(
    out: Annotated[Path | None, typer.Option(help="Write it here instead of to stdout.")] = None,
) -> None:
    """Write the API's OpenAPI document (JSON)."""
    from deployments.api.app import openapi_document

    text = json.dumps(openapi_document(), indent=2, ensure_ascii=False)
    if out is None:
        typer.echo(text)
        return
    try:
        out.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        fail(f"cannot write {out}: {error.strerror}")
