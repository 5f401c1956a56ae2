"""Facts that no shard writes: streams of their own, each with a counter that has no gaps."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple, TypeAlias

import msgspec

Stream: TypeAlias = Literal["models"]
FactKind: TypeAlias = Literal["clustering.updated", "features.computed", "model.retrained"]
Body: TypeAlias = dict[str, str | int | float | bool | None]


class NewFact(NamedTuple):
    """What is to be told; nothing personal, for it leaves the house."""

    kind: FactKind
    brand: str
    body: Body


class Fact(msgspec.Struct, frozen=True):
    """What happened, at `seq` of its stream: who has read up to a seq misses nothing before it."""

    stream: Stream
    seq: int
    kind: FactKind
    brand: str
    at: datetime
    body: Body
