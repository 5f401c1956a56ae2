"""Who enters and leaves a segment: the moment, the cause, and what says nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from crm.domain.event_columns import EventColumns
from crm.domain.events import LoggedEvent
from crm.domain.feature_table import FeatureTable
from crm.domain.membership import LiveSegment, Membership, Transition
from crm.domain.rule_text import parse
from crm.domain.times import to_us
from tests.support.builders import NOON, a_brand, a_logged_event

BRAND = a_brand()
DAY = timedelta(days=1)


class _Members:
    """A table and the members of one segment, told of everything in its order."""

    def __init__(self, rule: str, now: datetime = NOON) -> None:
        self.table = FeatureTable(BRAND.zone, to_us(now))
        self.membership = Membership(BRAND, self.table)
        self.membership.use([LiveSegment("s", 1, parse(rule, BRAND))])
        self.seq = 0

    def happens(
        self, *events: LoggedEvent, meanwhile: timedelta = timedelta()
    ) -> Sequence[Transition]:
        """Apply events; the clock may go on while they are being written."""
        seqs = [self.seq + n for n in range(1, len(events) + 1)]
        self.seq += len(events)
        caused = self.membership.caused_by(events, seqs)
        self.table.advance(self.table.now_us + to_us(NOON + meanwhile) - to_us(NOON))
        self.table.apply(EventColumns.of(events, self.table.features))
        self.membership.settle(caused, [event.player_id for event in events])
        return caused.transitions

    def at(self, now: datetime) -> Sequence[Transition]:
        """Move the clock."""
        self.table.advance(to_us(now))
        return self.membership.moved()


def _told(transitions: Sequence[Transition]) -> list[tuple[str, bool, int | None, datetime]]:
    return [(one.player_id, one.entered, one.seq, one.at) for one in transitions]


def test_no_bet_for_seven_days_is_entered_at_that_second_and_left_at_the_bet() -> None:
    members = _Members("days_since_last_bet >= 7")
    assert members.happens(a_logged_event(occurred_at=NOON)) == []
    due = NOON + 7 * DAY
    assert members.at(due - timedelta(microseconds=1)) == []
    assert _told(members.at(due)) == [("p1", True, None, due)]
    assert members.at(due + DAY) == []
    later = a_logged_event(event_id="again", occurred_at=due + DAY, received_at=due + DAY)
    assert _told(members.happens(later)) == [("p1", False, 2, due + DAY)]


def test_the_second_is_right_though_the_clock_is_looked_at_later() -> None:
    members = _Members("days_since_last_bet >= 7")
    members.happens(a_logged_event(occurred_at=NOON))
    assert _told(members.at(NOON + 7 * DAY + timedelta(hours=3))) == [
        ("p1", True, None, NOON + 7 * DAY)
    ]


def test_who_has_acted_again_is_not_taken_for_idle() -> None:
    members = _Members("days_since_last_bet >= 7")
    members.happens(a_logged_event(occurred_at=NOON))
    members.at(NOON + 3 * DAY)
    again = NOON + 3 * DAY
    members.happens(a_logged_event(event_id="again", occurred_at=again, received_at=again))
    assert members.at(NOON + 7 * DAY) == []
    assert _told(members.at(again + 7 * DAY)) == [("p1", True, None, again + 7 * DAY)]


def test_a_late_event_brings_the_moment_forward() -> None:
    members = _Members("days_since_registration >= 7")
    at = NOON - 2 * DAY
    members.happens(a_logged_event(type="player.registered", amount=None, currency=None))
    members.happens(
        a_logged_event(event_id="first", type="player.registered", amount=None, currency=None,
                       occurred_at=at)
    )  # fmt: skip
    assert _told(members.at(NOON + 5 * DAY)) == [("p1", True, None, at + 7 * DAY)]


def test_hours_leave_their_window_by_the_clock() -> None:
    members = _Members("bet_count_24h >= 1")
    assert [one.entered for one in members.happens(a_logged_event(occurred_at=NOON))] == [True]
    assert members.at(NOON + DAY - timedelta(microseconds=1)) == []
    assert _told(members.at(NOON + DAY)) == [("p1", False, None, NOON + DAY)]


def test_each_event_of_a_batch_is_the_cause_of_its_own() -> None:
    members = _Members("bet_count_lifetime >= 1 and bet_count_lifetime < 3")
    events = [a_logged_event(event_id=f"e{n}", occurred_at=NOON) for n in range(4)]
    assert [(one.entered, one.seq) for one in members.happens(*events)] == [(True, 1), (False, 3)]
    assert members.membership.members() == {"s": set()}


def test_what_tells_of_the_past_changes_who_is_in_and_says_nothing() -> None:
    members = _Members("bet_count_lifetime >= 1")
    late = a_logged_event(occurred_at=NOON - timedelta(hours=73), received_at=NOON)
    assert members.happens(late) == []
    told = a_logged_event(event_id="b", player_id="p2", occurred_at=NOON, backfill=True)
    assert members.happens(told) == []
    assert members.membership.members() == {"s": {"p1", "p2"}}
    assert members.happens(a_logged_event(event_id="c", occurred_at=NOON)) == []


def test_an_event_ahead_of_the_clock_counts_when_its_time_has_come() -> None:
    members = _Members("bet_count_lifetime >= 1")
    at = NOON + timedelta(seconds=90)
    assert members.happens(a_logged_event(occurred_at=at)) == []
    assert members.at(at - timedelta(seconds=1)) == []
    assert _told(members.at(at)) == [("p1", True, None, at)]


def test_a_clock_that_goes_on_while_an_event_is_written_misses_nothing() -> None:
    members = _Members("days_since_last_bet >= 1")
    members.happens(a_logged_event(occurred_at=NOON - timedelta(hours=12)), meanwhile=DAY)
    told = members.at(NOON + DAY)
    assert [(one.player_id, one.entered) for one in told] == [("p1", True)]


def test_an_edit_moves_nobody_aloud() -> None:
    members = _Members("bet_count_lifetime >= 5")
    members.happens(a_logged_event(occurred_at=NOON))
    members.membership.use([LiveSegment("s", 2, parse("bet_count_lifetime >= 1", BRAND))])
    assert members.membership.members() == {"s": {"p1"}}
    assert members.at(NOON + DAY) == []
    assert members.happens(a_logged_event(event_id="b", occurred_at=NOON)) == []
