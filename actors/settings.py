"""How many shard owners there are and how closely they are watched."""

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
