"""`crm segments replay`: what a segment would have been, day by day."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.commands.support import connected, emit_json, fail

if TYPE_CHECKING:
    from crm.domain.replay import Replay, Replayed
    from crm.services.replays import SegmentReplay

_SHOWN = 3


def register(segments: typer.Typer) -> None:
    """Add `replay` to `crm segments`."""
    segments.command("replay")(replay)


def replay(
    rule: Annotated[str, typer.Argument(help="Such as: bet_count_30d >= 10")],
    *,
    first: Annotated[str, typer.Option("--from", help="The first day, such as 2026-10-01.")],
    last: Annotated[str, typer.Option("--to", help="The last day; it must be over.")],
    brand: Annotated[str | None, typer.Option(help="Default: the first brand.")] = None,
    known_by: Annotated[
        str | None,
        typer.Option(
            help="What was known by then counts, or `now`; default: by the end of each day."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
) -> None:
    """Tell who would have been in a segment at each day's end, who entered and who left.

    From the lake alone, at local midnights of the brand. Segments that the rule names, and lists,
    are as they are now.
    """
    import msgspec

    from configs.brands import load_brands
    from configs.settings import load_settings
    from crm.adapters import clock
    from crm.domain.brands import choose
    from crm.services import replays
    from pipelines.progress import progress

    of_brand, now = choose(load_brands(load_settings().brands_dir), brand), clock.now()
    days = _day(first, "--from"), _day(last, "--to")
    asked = replays.request(of_brand, rule, *days, _known_by(known_by, now), now)
    with connected() as settings, ExitStack() as stack:
        from actors.replays import RayReplays
        from crm.adapters.postgres.segments import open_segments

        async def run() -> tuple[Replay, Replayed]:
            async with open_segments(str(settings.postgres.dsn)) as store:
                whole = await replays.written_out(asked, store)
            found = await RayReplays(
                str(settings.postgres.direct_dsn),
                str(settings.lake.uri),
                begun=lambda parts: stack.enter_context(
                    progress(parts, f"replaying {of_brand.id}", "parts")
                ),
            ).run(whole)
            return whole, found

        told = replays.told(*asyncio.run(run()))
    if json:
        emit_json(msgspec.to_builtins(told))
    else:
        _show(told)


def _day(text: str, option: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        fail(f"{option}: a day, such as 2026-10-01, not {text!r}")


def _known_by(text: str | None, now: datetime) -> datetime | None:
    if text is None or text == "now":
        return None if text is None else now
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        fail(f"--known-by: `now`, or a moment such as 2026-10-01T12:00Z, not {text!r}")


def _show(told: SegmentReplay) -> None:
    typer.echo(f"{'day':10} {'players':>11} {'members':>11} {'entered':>9} {'left':>9}")
    for day in told.days:
        numbers = f"{day.players:11,} {day.members:11,} {day.entered:9,} {day.left:9,}"
        some = [f"+{player}" for player in day.entered_sample[:_SHOWN]]
        some += [f"-{player}" for player in day.left_sample[:_SHOWN]]
        typer.echo(f"{day.date} {numbers}  {' '.join(some)}".rstrip())
    total = told.total
    typer.echo(
        f"{told.brand}: {told.members_before:,} members before {told.first}, {total.entered:,}"
        f" entered, {total.left:,} left, {told.days[-1].members:,} at the end;"
        f" {total.ever:,} players were members on some day"
    )
