"""`crm shards`: who owns the virtual shards of the running service, and how many own them."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.commands.support import connected, emit_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.owners import Slot
    from actors.supervisor import Progress

_shards = typer.Typer(help="See and move the virtual shards.", no_args_is_help=True)
_LINE = "{owner:20}  {node:8}  {shards:>6}  {players:>11}  {epochs:>9}  {state}"


def register(app: typer.Typer) -> None:
    """Add `shards` and what belongs to it to `app`."""
    app.add_typer(_shards, name="shards")


@_shards.callback()
def shards() -> None:
    """See and move the virtual shards."""


@_shards.command("list")
def list_owners(
    *, json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False
) -> None:
    """List the shard owners: their node, shards, players, and lowest and highest epoch."""
    with connected():
        from actors import supervisor

        slots = supervisor.routes().slots
    owners = [_owner(slots[number]) for number in sorted(slots)]
    if json:
        emit_json({"owners": owners})
        return
    heads = ("owner", "node", "shards", "players", "epochs", "state")
    typer.echo(_LINE.format(**{head: head for head in heads}))
    for owner in owners:
        typer.echo(_LINE.format(**owner | {"node": str(owner["node"])[:8]}))


def _owner(slot: Slot) -> dict[str, str | int]:
    epochs = slot.state.epochs.values()
    return {
        "owner": slot.name,
        "node": slot.state.node,
        "shards": len(slot.shards),
        "players": slot.state.players,
        "epochs": f"{min(epochs)}-{max(epochs)}" if epochs else "",
        "state": "ready" if slot.state.ready else "warming",
    }


@_shards.command("resize")
def resize(
    owners: Annotated[int, typer.Argument(help="How many owners there shall be.")],
    *,
    json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
) -> None:
    """Divide the shards among so many owners, a few at a time, while the service runs.

    This holds until the next start, which follows CRM_SHARDS__OWNERS. Once begun it goes on to its
    end, also when this command is interrupted.
    """
    with connected(), ExitStack() as stack:
        from actors import supervisor

        done = supervisor.resize(owners, shown(stack))
    if json:
        emit_json(
            {
                "owners": done.owners,
                "moved": done.moved,
                "longest_pause_s": round(done.longest_pause_s, 3),
            }
        )
    else:
        typer.echo(
            f"{done.owners} owners; {done.moved} shards moved, none was away for longer than"
            f" {done.longest_pause_s:.2f} s"
        )


def shown(stack: ExitStack) -> Callable[[Progress], None]:
    """Return what shows how far a resize is, once there is something to show."""
    from pipelines.progress import progress

    shown = 0
    advance: Callable[[int], None] | None = None

    def show(now: Progress) -> None:
        nonlocal shown, advance
        if advance is None and now.to_move:
            advance = stack.enter_context(progress(now.to_move, "moving", "shards"))
        if advance is not None:
            advance(now.moved - shown)
            shown = now.moved

    return show
