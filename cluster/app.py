"""The `crm` command. Each subcommand imports what it needs when it runs: `crm --help` is quick."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import structlog
import typer

from cluster import logs, ray_runtime, system
from cluster.commands.support import emit_json
from cluster.errors import ServiceError
from cluster.layout import Layout
from configs.brands import InvalidBrand
from configs.settings import BadSettings, load_settings
from crm.domain.errors import CrmError

# cluster/commands/NAME.py
COMMANDS = (
    "apply",
    "imports", "features", "training", "models", "mlflow_page", "segments",
    "shards", "simulation", "verify", "openapi",
)  # fmt: skip

app = typer.Typer(
    name="crm",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # an error is a line, not a box
    pretty_exceptions_enable=False,
)


@app.callback()
def about() -> None:
    """CRM Inteligente: start, stop and use the service."""


@app.command()
def up(*, foreground: Annotated[bool, typer.Option(help="Stay until Ctrl-C.")] = False) -> None:
    """Start the service and wait until it answers."""
    code = system.up(load_settings(), typer.echo, foreground=foreground)
    if code != 0:
        raise typer.Exit(code)


@app.command()
def down() -> None:
    """Stop the service; its data stays."""
    stopped = system.down(load_settings())
    typer.echo("stopped" if stopped else "the service is not running")


@app.command()
def status(
    *, json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False
) -> None:
    """Show each part's state; exit code 1 when the service is not up."""
    facts = system.status(load_settings())
    up = facts["up"]
    if json:
        emit_json(facts)
    else:
        typer.echo(f"{'folder':10} {load_settings().var_dir}")
        parts = facts.pop("parts", {})
        for name, value in {**facts, **parts}.items():
            typer.echo(f"{name:10} {value}")
    if not up:
        raise typer.Exit(1)


for _name in COMMANDS:
    if find_spec(f"cluster.commands.{_name}") is not None:
        import_module(f"cluster.commands.{_name}").register(app)


def prepare() -> None:
    """Set Ray's flags for this process, before a command imports it."""
    with suppress(BadSettings):  # the command says what is wrong with them
        ray_runtime.prepare(Layout(load_settings().var_dir))


def run(arguments: list[str]) -> int:
    """Run a command and return its exit code: 1 for a failure, 2 for wrong usage.

    Whatever goes wrong is one line on stderr; the rest of the story is in the log.
    """
    try:
        app(args=arguments, prog_name="crm")
    except SystemExit as exit_:  # typer's own: 2 for wrong usage
        return int(exit_.code or 0)
    except (ServiceError, BadSettings, InvalidBrand, CrmError) as error:
        return _fail(str(error), 1)
    except Exception as error:  # noqa: BLE001  # the last resort: a person never sees a traceback
        story = _record(error)
        return _fail(f"unexpected error: {type(error).__name__} (the story is in {story})", 1)
    return 0


def _fail(line: str, code: int) -> int:
    typer.echo(f"crm: {line}", err=True)
    return code


def _record(error: Exception) -> Path:
    """Write an error with its traceback into the log; return where that is."""
    folder = Path("var/log")
    with suppress(BadSettings, OSError):
        folder = Layout(load_settings().var_dir).log
        folder.mkdir(parents=True, exist_ok=True)
        logs.configure(folder)
        structlog.get_logger("cluster.app").error("command_failed", exc_info=error)
    return folder / "crm.log"
