"""Which of the events that reach an owner are new: pure, so that every store decides the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from crm.domain.events import LoggedEvent

# accepted: stored now. duplicate: stored before, the same. conflict: the id is taken by another
# content. withheld: acceptable, but its group holds a conflict. moved: the shard has another owner.
Verdict = Literal["accepted", "duplicate", "conflict", "withheld", "moved"]
Group = Sequence[LoggedEvent]
EventKey = tuple[str, str]


@dataclass
class AppendPlan:
    """What one transaction writes, and the verdict of every event once it has committed."""

    verdicts: list[list[Verdict]] = field(default_factory=list)
    new: list[LoggedEvent] = field(default_factory=list)

    def counts(self) -> dict[int, int]:
        """Return how many new events each shard gets, in shard order."""
        return dict(sorted(Counter(event.shard for event in self.new).items()))

    def seqs(self, heads: Mapping[int, int]) -> list[int]:
        """Number the new events, given the last seq of each shard after them: no gap is left."""
        following = {shard: heads[shard] - count for shard, count in self.counts().items()}
        seqs = []
        for event in self.new:
            following[event.shard] += 1
            seqs.append(following[event.shard])
        return seqs


def plan_append(
    groups: Sequence[Group], owned: Container[int], known: Mapping[EventKey, bytes]
) -> AppendPlan:
    """Decide on `groups`, given the shards owned and the fingerprints of the ids taken.

    A group is stored whole or not at all.
    """
    plan = AppendPlan()
    taken: dict[EventKey, bytes] = dict(known)
    for group in groups:
        plan.verdicts.append(_decide(group, plan, owned, taken))
    return plan


def _decide(
    group: Group, plan: AppendPlan, owned: Container[int], taken: dict[EventKey, bytes]
) -> list[Verdict]:
    if any(event.shard not in owned for event in group):
        return ["moved"] * len(group)
    mine: dict[EventKey, LoggedEvent] = {}
    verdicts: list[Verdict] = []
    for event in group:
        key = (event.brand, event.event_id)
        stored = taken.get(key) or (mine[key].fingerprint if key in mine else None)
        if stored is None:
            mine[key] = event
            verdicts.append("accepted")
        else:
            verdicts.append("duplicate" if stored == event.fingerprint else "conflict")
    if "conflict" in verdicts:
        return ["withheld" if verdict == "accepted" else verdict for verdict in verdicts]
    for key, event in mine.items():
        taken[key] = event.fingerprint
        plan.new.append(event)
    return verdicts
