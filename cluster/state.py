"""What the running instance writes down for others: var/run/state.json."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field

from cluster.layout import Layout
from cluster.processes import Recorded


@dataclass(frozen=True)
class State:
    """One instance; `phase` is starting, ready or stopping; `left` lists its other processes."""

    service: Recorded
    phase: str
    url: str = ""
    dashboard: str = ""
    ray_address: str = ""
    postgres: str = ""
    redis: str = ""
    lake: str = ""
    vault_key: str = ""
    left: tuple[Recorded, ...] = field(default=())


def write(layout: Layout, state: State) -> None:
    """Replace the file at once; only its owner may read it (a DSN may hold a password)."""
    beside = layout.state.with_suffix(".new")
    file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(file, "w") as out:
        json.dump(asdict(state), out)
    beside.replace(layout.state)


def read(layout: Layout) -> State | None:
    """Return what was written last, if it can be read."""
    try:
        raw = json.loads(layout.state.read_text())
        service = Recorded(**raw.pop("service"))
        left = tuple(Recorded(**note) for note in raw.pop("left"))
        return State(service, left=left, **raw)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def running(layout: Layout) -> State | None:
    """Return the state of the instance if its main process is alive."""
    state = read(layout)
    return state if state is not None and state.service.find() is not None else None
