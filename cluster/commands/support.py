"""What every subcommand needs: the running service, errors as one line, results as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from cluster import logs, ray_runtime, state
from cluster.errors import ServiceError
from cluster.layout import Layout
from configs.settings import Settings, load_settings
from crm.adapters.postgres.settings import PostgresSettings
from crm.adapters.redis.settings import RedisSettings
from crm.adapters.vault import VaultSettings

if TYPE_CHECKING:
    from crm.domain.models import RegisteredModel

NOT_RUNNING = "the service is not running: start it with `make run` or `crm up`"
Promote = Annotated[
    Literal["first", "always", "never"],
    typer.Option(
        help="Have it serve if nothing of its kind does, always, or never; a score that does not"
        " beat its baseline never does."
    ),
]


@contextmanager
def connected() -> Iterator[Settings]:
    """Connect to the running service's Ray; yields settings with the addresses it really uses."""
    settings = load_settings()
    layout = Layout(settings.var_dir)
    running = _ready(layout)
    logs.configure(layout.log)
    ray_runtime.connect(running.ray_address)
    try:
        yield resolved(settings, running)
    finally:
        ray_runtime.stop()


def addressed() -> Settings:
    """Return settings with the addresses of the running service, for what needs no Ray."""
    settings = load_settings()
    return resolved(settings, _ready(Layout(settings.var_dir)))


def _ready(layout: Layout) -> state.State:
    running = state.running(layout)
    if running is None or running.phase != "ready":
        raise ServiceError(NOT_RUNNING)
    return running


def resolved(settings: Settings, running: state.State) -> Settings:
    """Return the settings with the addresses of the running instance."""
    port = int(running.url.rpartition(":")[2])
    direct = settings.postgres.direct_dsn or running.postgres
    return settings.model_copy(
        update={
            "postgres": PostgresSettings(running.postgres, direct),
            "redis": RedisSettings(running.redis),
            "lake": replace(settings.lake, uri=running.lake),
            "vault": VaultSettings(Path(running.vault_key)),
            "api": replace(settings.api, port=port),
        }
    )


def said_of(model: RegisteredModel) -> str:
    """Return whether a training's model serves, in words."""
    return f"model {model.id}, number {model.number} of its kind: {model.state}"


def fail(message: str) -> NoReturn:
    """End the command with one line on stderr and exit code 1."""
    raise ServiceError(message)


def emit_json(result: Any) -> None:  # whatever JSON can say
    """Print the result as one JSON object, which must be the last line on stdout."""
    typer.echo(json.dumps(result, separators=(",", ":"), default=str))
