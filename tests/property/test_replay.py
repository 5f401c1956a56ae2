"""What-if: each day's members are those of the rule on features by definition, at the day's end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm.adapters import lake_columns
from crm.adapters.lake_columns import LakeColumns
from crm.domain.brands import Brand
from crm.domain.errors import InvalidRange, InvalidRule
from crm.domain.events import LoggedEvent
from crm.domain.replay import MAX_DAYS, SAMPLE, Replay, Replayed, joined, replayed
from crm.domain.times import to_us
from tests.support.brute_force import features_of
from tests.support.builders import NOON, a_brand, a_logged_event
from tests.support.histories import ENDS, brands, histories
from tests.support.lake import Values, lake_rows


def _above(value: int | None, than: int) -> bool:
    return value is not None and value > than


RULES: dict[str, Callable[[Values], bool]] = {
    "bet_count_7d >= 1": lambda f: _above(f["bet_count_7d"], 0),
    "days_since_last_activity > 3": lambda f: _above(f["days_since_last_activity"], 3),
    "not (stake_amount_30d > 50)": lambda f: not _above(f["stake_amount_30d"], 5_000),
    "exists first_deposit_at and event_count_24h = 0": lambda f: (
        f["first_deposit_at"] is not None and f["event_count_24h"] == 0
    ),
    "active_days_30d >= 2 or deposit_count_90d > 1": lambda f: (
        _above(f["active_days_30d"], 1) or _above(f["deposit_count_90d"], 1)
    ),
    "session_seconds_lifetime > 0 or win_count_lifetime > 0": lambda f: (
        _above(f["session_seconds_lifetime"], 0) or _above(f["win_count_lifetime"], 0)
    ),
}


@st.composite
def _cases(draw: st.DrawFn) -> tuple[Brand, datetime, list[LoggedEvent]]:
    """Events that became known at once, or up to ten days later, at times at a day's end."""
    brand, end = draw(brands()), draw(st.sampled_from(ENDS))
    events = []
    for event in draw(histories(brand, end, max_size=40)):
        late = draw(st.sampled_from([timedelta(0), timedelta(hours=5), timedelta(days=10)]))
        known = event.occurred_at + late
        if draw(st.booleans()):
            midnight = _start(brand.local_day(known), brand)
            known = midnight + timedelta(microseconds=draw(st.integers(-1, 1)))
        known = max(known, event.occurred_at - timedelta(minutes=5))  # a clock that was ahead
        events.append(msgspec.structs.replace(event, known_at=known))
    return brand, end, events


def _start(day: date, brand: Brand) -> datetime:
    return datetime.combine(day, time(), brand.zone).astimezone(UTC)


def _replayed(events: Sequence[LoggedEvent], asked: Replay) -> Replayed:
    rows = lake_rows(events).lazy()
    columns = LakeColumns(rows, asked.brand, asked.ends_us[-1], asked.known_by_us)
    return replayed(asked, columns.between)


def _members(events: Sequence[LoggedEvent], asked: Replay, day: date) -> tuple[int, set[str]]:
    """How many players there are at the end of a day, and who of them is in."""
    brand = asked.brand
    at = _start(day + timedelta(days=1), brand) - timedelta(microseconds=1)
    known = to_us(at) if asked.known_by_us is None else asked.known_by_us
    told = [e for e in events if e.occurred_at <= at and to_us(e.known_at) <= known]
    players = {event.player_id for event in told}
    features = {p: features_of([e for e in told if e.player_id == p], brand, at) for p in players}
    return len(players), {p for p, values in features.items() if RULES[asked.rule](values)}


@given(_cases(), st.sampled_from(sorted(RULES)), st.data())
def test_every_day_is_what_the_definition_says_at_its_end(
    case: tuple[Brand, datetime, list[LoggedEvent]], rule: str, data: st.DataObject
) -> None:
    brand, end, events = case
    last = brand.local_day(end) - timedelta(days=data.draw(st.integers(0, 12)))
    first = last - timedelta(days=data.draw(st.integers(0, 8)))
    known_by = data.draw(st.sampled_from([None, end, end - timedelta(days=5)]))
    asked = Replay(brand, rule, first, last, None if known_by is None else to_us(known_by))
    found = _replayed(events, asked)
    _, was = _members(events, asked, first - timedelta(days=1))
    assert found.members_before == len(was)
    ever: set[str] = set()
    for number, day in enumerate(found.days):
        players, now = _members(events, asked, first + timedelta(days=number))
        assert (day.players, day.members) == (players, len(now))
        assert (day.entered, day.left) == (len(now - was), len(was - now))
        assert day.entered_sample == sorted(now - was)[:SAMPLE]
        assert day.left_sample == sorted(was - now)[:SAMPLE]
        was, ever = now, ever | now
    assert found.ever == len(ever)
    assert len(found.days) == (last - first).days + 1


@given(_cases(), st.sampled_from(sorted(RULES)))
def test_shards_apart_are_the_same_as_all_at_once(
    case: tuple[Brand, datetime, list[LoggedEvent]], rule: str
) -> None:
    brand, end, events = case
    last = brand.local_day(end) - timedelta(days=1)
    asked = Replay(brand, rule, last - timedelta(days=5), last)
    parts = [
        _replayed([event for event in events if event.shard % 3 == number], asked)
        for number in range(3)
    ]
    assert joined(parts, 6) == _replayed(events, asked)


def test_chunks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [
        a_logged_event(event_id=f"e{n}", player_id=f"p{n % 7}", backfill=True,
                       occurred_at=NOON - timedelta(hours=7 * n))
        for n in range(60)
    ]  # fmt: skip
    asked = Replay(a_brand(), "bet_count_7d >= 4", date(2026, 2, 25), date(2026, 3, 9), to_us(NOON))
    whole = _replayed(events, asked)
    assert any(day.left for day in whole.days)
    monkeypatch.setattr(lake_columns, "CHUNK", 4)
    assert _replayed(events, asked) == whole


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        (date(2026, 3, 9), date(2026, 3, 8), "ends before it begins"),
        (date(2026, 3, 9), date(2026, 3, 10), "a day that is over"),
        (date(2019, 12, 31), date(2020, 1, 2), "began on 2020-01-01"),
        (date(2025, 3, 8), date(2026, 3, 9), f"at most {MAX_DAYS} days"),
    ],
)
def test_days_that_cannot_be_replayed_are_refused(first: date, last: date, said: str) -> None:
    with pytest.raises(InvalidRange, match=said):
        Replay(a_brand(), "bet_count_7d >= 1", first, last).check(to_us(NOON))


def test_a_day_may_be_replayed_from_its_end_on_and_a_wrong_rule_never() -> None:
    monday = Replay(a_brand(), "bet_count_7d >=", date(2026, 3, 9), date(2026, 3, 9))
    over = to_us(_start(date(2026, 3, 10), a_brand()))
    monday.check(over)
    with pytest.raises(InvalidRange):
        monday.check(over - 2)
    with pytest.raises(InvalidRule):
        _replayed([a_logged_event()], monday)
