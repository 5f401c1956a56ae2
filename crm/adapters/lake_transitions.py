"""Transitions of the past in the lake, as Parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from io import BytesIO
from secrets import token_hex
from typing import TYPE_CHECKING

import polars as pl

from crm.domain.live import Position, Transition
from crm.domain.transition_files import TransitionFile

if TYPE_CHECKING:
    from crm.adapters.lake import Lake

_FOLDER = "transitions"
_TIME = pl.Datetime("us", "UTC")
# `xact`, `id`: its place in the stream; `seq`: of the event that caused it, null: the clock did
_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
        "xact": pl.Int64, "id": pl.Int64, "brand": pl.String, "segment": pl.String,
        "version": pl.Int32, "player_id": pl.String, "entered": pl.Boolean, "shard": pl.Int16,
        "seq": pl.Int64, "at": _TIME, "made_at": _TIME,
}  # fmt: skip
SCHEMA = pl.Schema(_COLUMNS)


class LakeTransitionFiles:
    """Writes the lake's files of transitions; a name is used once, so that writers never meet."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    def write(self, after: Position, transitions: Sequence[Transition]) -> TransitionFile:
        """Store what follows a place of the stream, durably."""
        first, last = transitions[0], transitions[-1]
        rows = [
            (*one.position, one.brand, one.segment, one.version, one.player_id, one.entered,
             one.shard, one.seq, one.at, one.made_at)
            for one in transitions
        ]  # fmt: skip
        out = BytesIO()
        pl.DataFrame(rows, schema=SCHEMA, orient="row").write_parquet(out, compression="zstd")
        day = f"{first.made_at:%Y-%m}"
        place = f"{last.position.xact:016x}-{last.position.id:016x}"
        name = f"{_FOLDER}/{day}/{place}.{token_hex(4)}.parquet"
        self._lake.write(name, out.getvalue(), durable=True)
        return TransitionFile(
            name, after, last.position, len(transitions), first.made_at, last.made_at
        )

    def names(self) -> Mapping[str, datetime]:
        """Return every file that is there, and when it was written."""
        return self._lake.names(_FOLDER)

    def delete(self, name: str) -> None:
        """Forget a file."""
        self._lake.delete(name)
