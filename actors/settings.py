"""How many shard owners there are, how closely they are watched, and what is done on the side."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ShardSettings:
    """Times in seconds; `misses` unanswered pings in a row bring a successor.

    Without `coalesce` every request is a call of its own to each owner, and every call a
    transaction: what bench/ingest.py holds the service against, and nothing to run.
    """

    owners: int = 2
    ping_s: float = 1.0
    misses: int = 3
    snapshot_age_s: float = 15.0
    coalesce: bool = True


@dataclass(frozen=True)
class SegmentSettings:
    """Each live segment is counted every `size_every_s` seconds, for the curve of its size."""

    size_every_s: float = 3_600.0
