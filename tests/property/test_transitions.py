"""Through crashes, moves and lost commits each transition is written once, and they add up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from crm.domain.events import LoggedEvent
from tests.support.builders import NOON
from tests.support.histories import histories
from tests.support.owner_system import BRAND, OwnerSystem, Rules, do
from tests.support.rule_force import rule_texts

_ACTS = st.sampled_from(
    ["append", "append", "append", "crash", "snapshot", "move", "later", "later", "lose"]
)


@given(
    st.lists(rule_texts(), min_size=1, max_size=3),
    histories(BRAND, NOON, max_size=16),
    st.lists(st.tuples(_ACTS, st.integers(0, 10**6)), min_size=6, max_size=20),
)
async def test_transitions_add_up_to_the_members_whatever_happens_to_owners(
    rules: Rules, events: list[LoggedEvent], acts: list[tuple[str, int]]
) -> None:
    system = OwnerSystem(rules)
    left = [replace(event, received_at=event.occurred_at, backfill=False) for event in events]
    await system.start()
    try:
        for act, number in [*acts, ("append", 99), ("later", 0)]:
            left = await do(system, act, number, left)
        await system.tell()
        assert system.members_told() == system.members()
    finally:
        await system.stop()
