"""Members are who the rule holds for at every step, and transitions lead from step to step."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from crm.domain.brands import Brand
from crm.domain.event_columns import EventColumns
from crm.domain.events import LoggedEvent
from crm.domain.feature_list import features_of
from crm.domain.feature_table import FeatureTable
from crm.domain.membership import LiveSegment, Membership, Transition
from crm.domain.rule_text import parse
from crm.domain.times import from_us, to_us
from tests.support.brute_force import features_of as features_by_definition
from tests.support.histories import ENDS, brands, histories
from tests.support.rule_force import Check, rule_texts

Case = tuple[Brand, datetime, list[LoggedEvent], list[tuple[str, Check]]]


class _World:
    """A table with its membership, and beside them nothing but the events and the checks."""

    def __init__(self, case: Case, start: datetime) -> None:
        self.brand, _, _, self.rules = case
        self.table = FeatureTable(self.brand.zone, to_us(start), features_of(self.brand))
        self.membership = Membership(self.brand, self.table)
        self.events: list[LoggedEvent] = []
        self.told: list[Transition] = []

    def use(self) -> None:
        self.membership.use(
            LiveSegment(f"s{n}", 1, parse(text, self.brand))
            for n, (text, _) in enumerate(self.rules)
        )
        self.in_ = self.members()

    def advance(self, now: datetime) -> None:
        self.table.advance(to_us(now))
        self._take(self.membership.moved())

    def apply(self, events: Sequence[LoggedEvent], between_s: int = 0) -> None:
        seqs = range(len(self.events) + 1, len(self.events) + len(events) + 1)
        caused = self.membership.caused_by(events, list(seqs))
        self.table.advance(self.table.now_us + between_s * 10**6)  # a reader asks meanwhile
        self.table.apply(EventColumns.of(events, self.table.features))
        self.membership.settle(caused, [event.player_id for event in events])
        self.events += events
        self._take(caused.transitions)
        if between_s:
            self._take(self.membership.moved())

    def _take(self, transitions: Sequence[Transition]) -> None:
        """Follow transitions: each must change something."""
        for one in transitions:
            members = self.in_[one.segment]
            assert (one.player_id in members) != one.entered
            (members.add if one.entered else members.discard)(one.player_id)
        self.told += transitions

    def members(self) -> dict[str, set[str]]:
        """Who the rules hold for now, by definition."""
        now = from_us(self.table.now_us)
        known = [event for event in self.events if event.occurred_at <= now]
        values = {
            player: features_by_definition(
                [event for event in known if event.player_id == player], self.brand, now
            )
            for player in {event.player_id for event in known}
        }
        return {
            f"s{n}": {player for player, found in values.items() if holds(found)}
            for n, (_, holds) in enumerate(self.rules)
        }


@st.composite
def _cases(draw: st.DrawFn) -> Case:
    brand, end = draw(brands()), draw(st.sampled_from(ENDS))
    events = [_alive(event) for event in draw(histories(brand, end, max_size=16))]
    return (
        brand,
        end,
        draw(st.permutations(events)),
        draw(st.lists(rule_texts(), min_size=1, max_size=4)),
    )


def _alive(event: LoggedEvent) -> LoggedEvent:
    """The event as if it had been received at once: late ones change members, and tell nothing."""
    return replace(event, received_at=event.occurred_at, backfill=False)


@given(_cases(), st.data())
def test_members_are_who_the_rule_holds_for_and_transitions_lead_there(
    case: Case, data: st.DataObject
) -> None:
    _, end, events, _ = case
    world = _World(case, end - timedelta(days=data.draw(st.sampled_from([0, 0, 0, 3, 40]))))
    before = data.draw(st.integers(0, len(events)))
    world.apply(events[:before]) if before else None
    world.use()
    left = events[before:]
    while left:
        size = data.draw(st.integers(1, len(left)))
        world.advance(data.draw(_later(world, events)))
        world.apply(left[:size], data.draw(st.sampled_from([0, 0, 1, 90_000])))
        assert world.in_ == world.members() == dict(world.membership.members())
        left = left[size:]
    for _ in range(3):
        world.advance(data.draw(_later(world, events)))
        assert world.in_ == world.members() == dict(world.membership.members())
    keys = [(t.segment, t.player_id, t.seq, t.at) for t in world.told]
    assert len(keys) == len(set(keys))


def _later(world: _World, events: Sequence[LoggedEvent]) -> st.SearchStrategy[datetime]:
    """A moment not before now: often one at which the clock alone changes something."""
    now = from_us(world.table.now_us)
    midnight = now.astimezone(world.brand.zone).replace(hour=0, minute=0, second=0, microsecond=0)
    hour = now.replace(minute=0, second=0, microsecond=0)
    edges = [
        *[event.occurred_at + timedelta(days=n) for event in events for n in range(35)],
        *[(midnight + timedelta(days=n)).astimezone(UTC) for n in (1, 2, 7, 30)],
        *[hour + timedelta(hours=n) for n in (1, 23, 24)],
    ]
    coming = sorted(at for at in edges if at > now)[:12]
    return st.one_of(st.just(now), st.sampled_from(coming))
