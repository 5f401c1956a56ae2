"""The balance complains: a checker that passes a loss or a double is worth nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from decimal import Decimal

from tests.support.balance import Balance, Sent, totals_of

EVENTS = [
    Sent("a", "p1", "bet.placed", Decimal("1.50")),
    Sent("b", "p1", "bet.settled", Decimal("3.00")),
    Sent("c", "p2", "deposit.completed", Decimal(10)),
    Sent("d", "p2", "session.started", None),
]
TOTALS = totals_of(EVENTS)
TRUE = Balance(
    acknowledged=frozenset("abcd"), stored=Counter("abcd"),
    sent=TOTALS, live=TOTALS,
)  # fmt: skip


def test_a_true_balance_has_no_fault() -> None:
    assert TRUE.faults() == []


def test_an_acknowledged_event_that_is_not_stored_is_lost() -> None:
    assert replace(TRUE, stored=Counter("abd")).faults() == ["1 acknowledged events lost"]


def test_an_event_that_is_stored_twice_is_seen() -> None:
    assert replace(TRUE, stored=Counter("abccd")).faults() == ["1 events stored twice"]


def test_an_event_that_nobody_sent_is_seen() -> None:
    faults = replace(TRUE, stored=Counter("abcdx")).faults()
    assert faults == ["1 events stored that were never acknowledged"]


def test_a_feature_that_misses_or_repeats_one_event_is_seen() -> None:
    for events in (EVENTS[1:], EVENTS[:-1], [*EVENTS, EVENTS[0]], [*EVENTS, EVENTS[3]]):
        wrong = totals_of(events)
        (line,) = replace(TRUE, live=wrong).faults()
        assert line == "features of 1 players are not what was sent"


def test_a_feature_that_is_not_the_recounts_is_seen() -> None:
    (line,) = replace(TRUE, differences=["p1.bet_count_7d: 2, not 1"]).faults()
    assert line == "1 features are not the recount's, first p1.bet_count_7d: 2, not 1"


def test_an_answer_without_what_was_acknowledged_is_seen() -> None:
    assert replace(TRUE, stale_reads=2).faults() == [
        "2 answers lacked what was acknowledged before"
    ]


def test_an_event_of_an_unknown_fate_may_be_stored_or_not() -> None:
    unknown = replace(TRUE, unknown=frozenset("xy"))
    assert replace(unknown, stored=Counter("abcdx")).faults() == []
    assert replace(unknown, stored=Counter("abcxz")).faults() != []
