"""`crm segments list|show|create|members`: saved segments of the running service."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from cluster.commands.support import connected, emit_json, fail

if TYPE_CHECKING:
    from configs.settings import Settings
    from crm.domain.brands import Brand
    from crm.domain.saved_segments import SavedSegment, SegmentSize, Use
    from crm.services.saved_segments import SavedSegments

Result = TypeVar("Result")
BrandName = Annotated[str | None, typer.Option("--brand", help="Default: the first brand.")]
Json = Annotated[bool, typer.Option("--json", help="End with one JSON object.")]
Which = Annotated[str, typer.Argument(help="A segment's id, or its name.")]


def add_to(segments: typer.Typer) -> None:
    """Add the commands to `crm segments`."""
    for name, command in (
        ("list", list_segments),
        ("show", show),
        ("create", create),
        ("members", members),
    ):
        segments.command(name)(command)


def list_segments(brand: BrandName = None, *, archived: bool = False, json: Json = False) -> None:
    """List the saved segments of a brand, the newest first."""

    async def ask(saved: SavedSegments, of: Brand) -> list[SavedSegment]:
        found: list[SavedSegment] = []
        while page := await saved.store.page(of.id, _last(found), 1_000, archived=archived):
            found += page
        return found

    found = _asked(brand, ask)
    if json:
        emit_json({"items": _plain(found), "next": None})
        return
    for one in found:
        size = "-" if one.size is None else f"{one.size.players:,}"
        typer.echo(f"{one.id}  {size:>12}  v{one.version:<4} {one.name}: {one.rule or 'a list'}")


def show(segment: Which, brand: BrandName = None, *, json: Json = False) -> None:
    """Show a segment, what relies on it, and how large it was."""

    async def ask(
        saved: SavedSegments, of: Brand
    ) -> tuple[SavedSegment, list[Use], list[SegmentSize]]:
        found = await _found(saved, of, segment)
        return found, await saved.usage(found), await saved.store.sizes(found.id, None, 24)

    found, uses, sizes = _asked(brand, ask)
    if json:
        emit_json({**_plain(found), "usage": _plain(uses), "sizes": _plain(sizes)})
    else:
        for line in shown(found, uses, sizes):
            typer.echo(line)


def shown(
    segment: SavedSegment, uses: Sequence[Use], sizes: Sequence[SegmentSize]
) -> Iterator[str]:
    """Yield a segment as lines: its facts, who names it, and its sizes, the newest first."""
    facts = {
        "id": segment.id,
        "brand": segment.brand,
        "name": segment.name,
        "kind": segment.kind,
        "version": segment.version,
        "rule": segment.rule or "-",
        "created": _moment(segment.created_at),
        "changed": _moment(segment.changed_at),
        "archived": "-" if segment.archived_at is None else _moment(segment.archived_at),
        "players": "-" if segment.size is None else f"{segment.size.players:,}",
    }
    for name, value in facts.items():
        yield f"{name:10} {value}"
    yield ""
    yield f"{'named by':24}  {'version':>7}  name" if uses else "named by   nothing"
    for use in uses:
        yield f"{use.id:24}  {use.version:7}  {use.name}"
    yield ""
    yield f"{'measured':24}  {'version':>7}  {'players':>11}" if sizes else "measured   not yet"
    for size in sizes:
        yield f"{_moment(size.at):24}  {size.version:7}  {size.players:11,}"


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def create(
    name: Annotated[str, typer.Argument(help="Unique within the brand.")],
    rule: Annotated[str | None, typer.Argument(help="Such as: bet_count_7d >= 10")] = None,
    brand: BrandName = None,
    *,
    players: Annotated[
        Path | None, typer.Option(help="A CSV or JSON file of player ids: a list, not a rule.")
    ] = None,
    json: Json = False,
) -> None:
    """Save a rule, or a list of players, under a name."""
    from crm.domain.player_lists import from_csv, from_json

    if (rule is None) == (players is None):
        raise typer.BadParameter("give a rule, or a file with --players")

    async def ask(saved: SavedSegments, of: Brand) -> dict[str, Any]:
        if rule is not None:
            done = await saved.create(of, name, rule, None)
        else:
            file = Path(str(players))
            read = from_json if file.suffix == ".json" else from_csv
            done = await saved.create_list(of, name, read(_content(file)), None)
        return {**_plain(done.segment), "report": _plain(done.report)}

    made = _asked(brand, ask)
    if json:
        emit_json(made)
        return
    size = made["size"] or {"players": "not counted yet:"}
    typer.echo(f"{made['id']}: {size['players']} players in {made['name']!r}")
    if report := made["report"]:
        typer.echo(f"{report['rejected']} lines rejected, {report['unknown']} players unknown")
        for error in report["errors"]:
            typer.echo(f"line {error['line']}: {error['message']}", err=True)


def members(
    segment: Which,
    brand: BrandName = None,
    *,
    out: Annotated[Path | None, typer.Option(help="Default: stdout.")] = None,
    format: Annotated[  # noqa: A002 - the option's name
        Literal["csv", "parquet"], typer.Option(help="How players are written.")
    ] = "csv",
    limit: Annotated[int | None, typer.Option(min=1, help="Default: all.")] = None,
) -> None:
    """Write who is in a segment, in the order of ids."""
    from crm.adapters.player_files import csv_of, parquet_of

    async def ask(saved: SavedSegments, of: Brand) -> int:
        found = await _found(saved, of, segment)
        pages = saved.all_members(found, most=limit)
        parts = csv_of(pages) if format == "csv" else parquet_of(pages, {"segment": found.id})
        written = 0
        with _opened(out) as file:
            async for part in parts:
                written += file.write(part)
        return written

    if format == "parquet" and out is None:
        raise typer.BadParameter("a Parquet file needs --out")
    _asked(brand, ask)


def _asked(brand: str | None, ask: Callable[[SavedSegments, Brand], Awaitable[Result]]) -> Result:
    """Return what `ask` finds in the running service."""
    from configs.brands import load_brands
    from configs.settings import load_settings
    from crm.domain.brands import choose

    of = choose(load_brands(load_settings().brands_dir), brand)
    with connected() as settings:

        async def run() -> Result:
            async with saved_segments(settings) as saved:
                return await ask(saved, of)

        return asyncio.run(run())


@asynccontextmanager
async def saved_segments(settings: Settings) -> AsyncIterator[SavedSegments]:
    """Yield the saved segments of the running service; Ray is connected."""
    from actors.gateway import connect
    from configs.brands import load_brands
    from crm.adapters import clock
    from crm.adapters.postgres.segments import open_segments
    from crm.services.saved_segments import SavedSegments, new_segment_id

    brands = load_brands(settings.brands_dir)
    async with open_segments(str(settings.postgres.dsn)) as store:
        shards = connect(settings, brands)
        yield SavedSegments(store, shards, brands, clock.now, new_segment_id)


async def _found(saved: SavedSegments, brand: Brand, named: str) -> SavedSegment:
    for one in await saved.store.active(brand.id):
        if one.name == named:
            return await saved.store.get(one.id)
    return await saved.store.get(named)


def _last(found: list[SavedSegment]) -> Any:
    return (found[-1].created_at, found[-1].id) if found else None


def _plain(found: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(found)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror}")


def _opened(out: Path | None) -> Any:
    from contextlib import nullcontext

    try:
        return nullcontext(sys.stdout.buffer) if out is None else out.open("wb")
    except OSError as error:
        fail(f"cannot write {out}: {error.strerror}")
