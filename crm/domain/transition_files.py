"""Files of the lake that hold transitions of the past."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from crm.domain.live import Position


class TransitionFile(NamedTuple):
    """All transitions after one place of the stream, up to another; times are of their writing."""

    name: str
    after: Position
    last: Position
    transitions: int
    first_at: datetime
    last_at: datetime
