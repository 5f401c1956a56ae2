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
from crm.domain.ports import ClusterCount, TermCount
from crm.domain.rules import Rule

encode = msgspec.msgpack.encode


class AppendCall(msgspec.Struct, array_like=True, gc=False):
    """Groups of events of one owner's shards."""

    groups: list[list[LoggedEvent]]


class FeaturesOf(NamedTuple):
    """Whose features are asked for."""

    brand: str
    player_id: str
    shard: int


@dataclass(frozen=True)
class OwnerState:
    """What an owner says of itself; `node` is Ray's id of the machine that it runs on."""

    ready: bool
    epochs: dict[int, int]
    players: int
    node: str = ""
    pid: int = 0


class CountCall(msgspec.Struct, array_like=True):
    """A question about all of an owner's players of a brand, at a moment or later."""

    brand: str
    rule: Rule
    as_of_us: int


class CountPart(msgspec.Struct, array_like=True, gc=False):
    """One owner's part of a count; `epochs` says which shards it counted."""

    as_of_us: int
    epochs: dict[int, int]
    count: int
    total: int
    sample: list[str]
    terms: list[TermCount]
    clusters: list[ClusterCount]


@dataclass(frozen=True)
class ColumnsPart:
    """One owner's part of the columns; `epochs` says which shards it holds."""

    as_of_us: int
    epochs: dict[int, int]
    player_ids: list[str]
    values: dict[str, NDArray[np.int64]]
    missing: dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class PlayersPart:
    """One owner's part of some players' features; `epochs` says of which shards they are.

    Who is `known` stands first to last in the columns of `values` and `missing` (names x players).
    """

    as_of_us: int
    epochs: dict[int, int]
    known: NDArray[np.bool_]
    values: NDArray[np.int64]
    missing: NDArray[np.bool_]


@dataclass(frozen=True)
class TotalsPart:
    """One owner's part of the totals by day; `epochs` says which shards it holds."""

    as_of_us: int
    epochs: dict[int, int]
    totals: DayTotals


@dataclass(frozen=True)
class MembersPart:
    """One owner's part of a page of players, in order; `epochs` says which shards it looked at."""

    as_of_us: int
    epochs: dict[int, int]
    player_ids: list[str]


@dataclass(frozen=True)
class KnownPart:
    """How many players one owner knows; `epochs` says of which shards."""

    as_of_us: int
    epochs: dict[int, int]
    known: int


decode_append = msgspec.msgpack.Decoder(AppendCall).decode
decode_verdicts = msgspec.msgpack.Decoder(list[list[Verdict]]).decode
decode_count_call = msgspec.msgpack.Decoder(CountCall).decode
decode_count = msgspec.msgpack.Decoder(CountPart).decode
