"""Which of the events that reach an owner are new: pure, so that every store decides the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """What one transaction writes: `new` with `seqs` (one each), and the verdict of every event."""

    verdicts: list[list[Verdict]] = field(default_factory=list)
    new: list[LoggedEvent] = field(default_factory=list)
    seqs: list[int] = field(default_factory=list)
    heads: dict[int, int] = field(default_factory=dict)


def plan_append(
    groups: Sequence[Group], heads: Mapping[int, int], known: Mapping[EventKey, bytes]
) -> AppendPlan:
    """Decide on `groups`, given each held shard's last seq and the fingerprints of the ids taken.

    A group is stored whole or not at all. Sequence numbers go on from `heads` without a gap.
    """
    plan = AppendPlan(heads=dict(heads))
    taken: dict[EventKey, bytes] = dict(known)
    for group in groups:
        plan.verdicts.append(_decide(group, plan, taken))
    return plan


def _decide(group: Group, plan: AppendPlan, taken: dict[EventKey, bytes]) -> list[Verdict]:
    if any(event.shard not in plan.heads for event in group):
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
        plan.heads[event.shard] += 1
        plan.new.append(event)
        plan.seqs.append(plan.heads[event.shard])
    return verdicts
