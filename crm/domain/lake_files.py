"""Files of the event lake: each holds a run of one virtual shard's seqs, and none overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MERGED = 8  # so many files of a tier become one of the next: few files, each event rewritten rarely
_SMALL = 1_024  # events: up to here all files are of the lowest tier


class LakeFile(NamedTuple):
    """A file as the manifest lists it: the events `first_seq` to `last_seq` of `shard`, all."""

    shard: int
    first_seq: int
    last_seq: int
    name: str
    size: int
    schema_version: int

    @property
    def events(self) -> int:
        """How many events it holds."""
        return self.last_seq - self.first_seq + 1


def to_merge(files: Sequence[LakeFile]) -> Sequence[LakeFile]:
    """Return the newest files of one shard that should become one, or none.

    `files` are in the order of seqs. A file of tier t holds about 8^t small ones, so an event is
    rewritten once a tier.
    """
    tiers = [_tier(file) for file in files]
    for tier in sorted(set(tiers)):
        start = len(files)
        while start and tiers[start - 1] <= tier:
            start -= 1
        if len(files) - start >= MERGED:
            return files[start:]
    return ()


def _tier(file: LakeFile) -> int:
    tier, size = 0, _SMALL
    while file.events > size:
        tier, size = tier + 1, size * MERGED
    return tier
