"""`crm models list|show|promote|rollback`: the registry of the running service."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from getpass import getuser
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from cluster.commands.support import addressed, emit_json

if TYPE_CHECKING:
    from crm.domain.models import RegisteredModel
    from crm.services.model_registry import Models

Result = TypeVar("Result")
BrandName = Annotated[str | None, typer.Option("--brand", help="Default: the first brand.")]
KindName = Literal["clusters", "churn", "value"]
Json = Annotated[bool, typer.Option("--json", help="End with one JSON object.")]
Which = Annotated[str, typer.Argument(help="A model's id.")]
Why = Annotated[str, typer.Option(help="The reason, for the record.")]
_models = typer.Typer(help="See the trained models, and choose who serves.", no_args_is_help=True)
_LINE = "{id:32}  {kind:8}  {number:>6}  {state:9}  {created_at:16}  {algorithm:16}  {metrics}"


def register(app: typer.Typer) -> None:
    """Add `models` and what belongs to it to `app`."""
    app.add_typer(_models, name="models")


@_models.callback()
def models() -> None:
    """See the trained models, and choose who serves."""


@_models.command("list")
def list_models(
    brand: BrandName = None,
    *,
    kind: Annotated[KindName | None, typer.Option(help="Default: all kinds.")] = None,
    json: Json = False,
) -> None:
    """List the models of a brand, the newest first."""

    async def ask(registry: Models) -> list[RegisteredModel]:
        found: list[RegisteredModel] = []
        while page := await registry.listed(_brand(brand), kind, _last(found)):
            found += page
        return found

    found = _asked(ask)
    if json:
        emit_json({"items": _plain(found), "next": None})
        return
    heads = ("id", "kind", "number", "state", "created_at", "algorithm", "metrics")
    typer.echo(_LINE.format(**{head: head for head in heads}))
    for one in found:
        typer.echo(_LINE.format(**_shown(one)))


@_models.command()
def show(model: Which, *, json: Json = False) -> None:
    """Show a model: its data, features, parameters, metrics and files."""
    shown = _plain(_asked(lambda registry: registry.get(model)))
    if json:
        emit_json(shown)
        return
    for name, value in shown.items():
        typer.echo(f"{name:15} {value}")


@_models.command()
def promote(
    model: Which,
    *,
    why: Why = "",
    force: Annotated[
        bool, typer.Option("--force", help="Although it does not beat its baseline: say --why.")
    ] = False,
    json: Json = False,
) -> None:
    """Have a model serve in the place of the one of its kind."""
    done = _asked(lambda registry: registry.promote(model, _user(), why=why, force=force))
    _tell(done, json=json)


@_models.command()
def rollback(
    kind: Annotated[KindName, typer.Argument(help="clusters, churn or value.")],
    brand: BrandName = None,
    *,
    why: Why = "",
    json: Json = False,
) -> None:
    """Have the model serve that served before; again goes further back."""
    done = _asked(lambda registry: registry.rollback(_brand(brand), kind, _user(), why=why))
    _tell(done, json=json)


def _asked(ask: Callable[[Models], Awaitable[Result]]) -> Result:
    """Return what `ask` finds in the registry of the running service."""
    from crm.adapters.postgres.models import open_models

    async def run() -> Result:
        async with open_models(str(addressed().postgres.dsn)) as registry:
            return await ask(registry)

    return asyncio.run(run())


def _tell(done: RegisteredModel, *, json: bool) -> None:
    if json:
        emit_json(_plain(done))
    else:
        typer.echo(f"{done.id} serves: number {done.number} of kind {done.kind} of {done.brand}")


def _user() -> str:
    return f"{getuser()} (crm)"


def _brand(brand: str | None) -> str:
    from configs.brands import load_brands
    from configs.settings import load_settings
    from crm.domain.brands import choose

    return choose(load_brands(load_settings().brands_dir), brand).id


def _last(found: list[RegisteredModel]) -> Any:
    return (found[-1].created_at, found[-1].id) if found else None


def _plain(found: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(found)


def _shown(model: RegisteredModel) -> dict[str, str]:
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in sorted(model.metrics.items()))
    return {
        "id": model.id,
        "kind": model.kind,
        "number": str(model.number),
        "state": model.state,
        "created_at": f"{model.created_at:%Y-%m-%d %H:%M}",
        "algorithm": model.algorithm,
        "metrics": metrics,
    }
