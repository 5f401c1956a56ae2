"""`crm simulate`: a believable brand as a Parquet file; needs no running service."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cluster.commands.support import fail
from cluster.errors import ServiceError
from configs.brands import InvalidBrand, load_brands
from configs.settings import load_settings
from crm.adapters import clock
from crm.domain.brands import Brand, choose


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("simulate")(simulate)


def simulate(  # noqa: PLR0913 - the contract's options
    *,
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")],
    players: Annotated[int, typer.Option(min=1, help="How many players.")] = 1_000,
    days: Annotated[int, typer.Option(min=1, help="How many days up to the end.")] = 90,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another brand.")] = 0,
    brand: Annotated[str, typer.Option(help="Whose currency, zone and products.")] = "demo",
    end: Annotated[
        str | None, typer.Option(help="No event after this date (00:00 UTC) or time; default: now.")
    ] = None,
    groups: Annotated[int | None, typer.Option(min=2, help="Plant so many player groups.")] = None,
    separation: Annotated[
        float | None,
        typer.Option(min=0, help="Between the nearest groups, in standard deviations (default 6)."),
    ] = None,
) -> None:
    """Simulate a brand's events: the same arguments with --end give the same events."""
    from pipelines.simulate import InvalidSimulation, labels_path, write_simulation
    from pipelines.simulated_players import Simulation

    if separation is not None and groups is None:
        raise typer.BadParameter("needs --groups", param_hint="--separation")
    plan = Simulation(
        brand=_brand(brand),
        players=players,
        days=days,
        seed=seed,
        end=_moment(end),
        groups=groups or 0,
        separation=6.0 if separation is None else separation,
    )
    if not out.absolute().parent.is_dir():
        fail(f"{out} cannot be written: there is no such folder")
    try:
        events = write_simulation(plan, out)
    except InvalidSimulation as error:
        fail(str(error))
    except OSError as error:
        fail(f"{out} cannot be written: {error.strerror or 'the disk refuses'}")
    typer.echo(f"{out}: {events} events of {players} players, {days} days up to {plan.end:%F %TZ}")
    if groups:
        typer.echo(f"{labels_path(out)}: the planted group of each player")


def _brand(name: str) -> Brand:
    try:
        return choose(load_brands(load_settings().brands_dir), name)
    except InvalidBrand as error:
        raise ServiceError(str(error)) from error


def _moment(text: str | None) -> datetime:
    if text is None:
        return clock.now().replace(microsecond=0)
    try:
        at = datetime.fromisoformat(text)
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(
            "a date such as 2026-01-31, or a time such as 2026-01-31T12:00:00Z", param_hint="--end"
        ) from error
    if at > clock.now():
        raise typer.BadParameter("lies in the future", param_hint="--end")
    return at
