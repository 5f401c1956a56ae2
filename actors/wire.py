"""What travels between the gateway and the owners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from crm.domain.appending import Verdict
from crm.domain.day_totals import DayTotals
from crm.domain.events import LoggedEvent

encode = msgspec.msgpack.encode
_verdicts = msgspec.msgpack.Decoder(list[list[Verdict]])


class AppendCall(msgspec.Struct, array_like=True, gc=False):
    """Groups of events of one owner's shards."""

    groups: list[list[LoggedEvent]]


class FeaturesOf(NamedTuple):
    """Whose features are asked for."""

    brand: str
    player_id: str
    shard: int


def decode_verdicts(data: bytes) -> list[list[Verdict]]:
    """Return the verdicts of an append."""
    return _verdicts.decode(data)


@dataclass(frozen=True)
class OwnerState:
    """What an owner says of itself; `node` is Ray's id of the machine that it runs on."""

    ready: bool
    epochs: dict[int, int]
    players: int
    node: str = ""
    pid: int = 0


@dataclass(frozen=True)
class CountPart:
    """One owner's part of a count; `epochs` says which shards it counted."""

    as_of_us: int
    epochs: dict[int, int]
    count: int
    total: int
    sample: list[str]


@dataclass(frozen=True)
class ColumnsPart:
    """One owner's part of the columns; `epochs` says which shards it holds."""

    as_of_us: int
    epochs: dict[int, int]
    player_ids: list[str]
    values: dict[str, NDArray[np.int64]]
    missing: dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class TotalsPart:
    """One owner's part of the totals by day; `epochs` says which shards it holds."""

    as_of_us: int
    epochs: dict[int, int]
    totals: DayTotals
