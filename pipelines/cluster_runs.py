"""What a run keeps in the lake until it has ended, so that it can go on after a crash.

Players as they were at its beginning, what was asked, and (pipelines/cluster_tune.py) the outcome
of each trial. A run with all of it there again, and the same seed, finds the same.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
import numpy as np
import polars as pl

from crm.adapters.lake import Lake
from crm.domain.clustering import CannotCluster, PlayerClusters
from crm.domain.model_changes import id_taken
from crm.domain.models import RegisteredModel
from crm.domain.ports import Columns
from pipelines.cluster_inputs import Request
from pipelines.cluster_tune import Memory

FOLDER = "searches"
FORGOTTEN_AFTER = timedelta(days=1)
_COLUMNS, _BEGUN = "players.parquet", "begun.json"


class Begun(msgspec.Struct, frozen=True):
    """How a run began; `before` is the document of the model that served then."""

    brand: str
    params: dict[str, str]
    at: datetime
    as_of: datetime
    before: PlayerClusters | None = None


class Runs:
    """The runs of one lake."""

    def __init__(self, lake_uri: str) -> None:
        self._lake_uri, self._lake = lake_uri, Lake(lake_uri)

    def memory(self, run: str) -> Memory:
        """Return where the outcomes of a run's trials lie."""
        return Memory(self._lake_uri, f"{FOLDER}/{run}")

    def begin(self, run: str, begun: Begun, columns: Columns) -> None:
        """Store what a run works on; it has begun when this returns."""
        missing = {name: mask for name, mask in columns.missing.items() if name in columns.values}
        frame = pl.DataFrame(
            {
                "player_id": pl.Series(columns.player_ids, dtype=pl.String),
                **columns.values,
                **{f"-{name}": mask for name, mask in missing.items()},
            }
        )
        out = io.BytesIO()
        frame.write_parquet(out)
        self._lake.write(f"{FOLDER}/{run}/{_COLUMNS}", out.getvalue())
        self._lake.write(f"{FOLDER}/{run}/{_BEGUN}", msgspec.json.encode(begun))

    def begun(self, run: str) -> Begun | None:
        """Return how a run began that has not ended; None if there is none."""
        try:
            return msgspec.json.decode(self._lake.read(f"{FOLDER}/{run}/{_BEGUN}"), type=Begun)
        except FileNotFoundError:
            return None

    def columns(self, run: str, begun: Begun) -> Columns:
        """Return the players of a run."""
        frame = pl.read_parquet(io.BytesIO(self._lake.read(f"{FOLDER}/{run}/{_COLUMNS}")))
        names: Sequence[str] = frame.columns[1:]
        return Columns(
            begun.as_of,
            frame["player_id"].to_list(),
            {n: frame[n].to_numpy().astype(np.int64) for n in names if not n.startswith("-")},
            {n[1:]: frame[n].to_numpy().astype(bool) for n in names if n.startswith("-")},
        )

    def forget(self, run: str) -> None:
        """Delete what a run has kept: first what says that it has begun."""
        self._lake.delete(f"{FOLDER}/{run}/{_BEGUN}")
        for name in self._lake.names(f"{FOLDER}/{run}"):
            self._lake.delete(name)

    def forget_old(self, now: datetime, but: str) -> None:
        """Delete runs of which nothing was written for a long time, but for one that goes on."""
        newest: dict[str, datetime] = {}
        for name, written in self._lake.names(FOLDER).items():
            run = name.split("/")[1]
            newest[run] = max(written, newest.get(run, written))
        for run, written in newest.items():
            if run != but and written < now - FORGOTTEN_AFTER:
                self.forget(run)


def check_new(begun: Begun | None, registered: RegisteredModel | None) -> None:
    """Raise InvalidModel if what is registered under a run's id is not of this very run."""
    if registered is None:
        return
    of_run = None if begun is None else (begun.brand, "clusters", begun.at)
    if (registered.brand, registered.kind, registered.created_at) != of_run:
        raise id_taken(registered)


def must_be_same(run: str, begun: Begun, request: Request) -> None:
    """Raise CannotCluster if a run was begun with other options than it is to go on with."""
    if (begun.brand, begun.params) != (request.brand.id, request.as_params()):
        asked = ", ".join(f"{name} {value}" for name, value in begun.params.items())
        raise CannotCluster(f"run {run} is of brand {begun.brand} with {asked}: ask for the same")
