"""Laws of the live features: any order, any batching, any clock, any restart give the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from crm.domain.brands import Brand
from crm.domain.event_columns import EventColumns
from crm.domain.events import LoggedEvent
from crm.domain.feature_list import FeatureList, features_of
from crm.domain.feature_table import FeatureTable, TableSlice
from crm.domain.own_measures import OwnMeasure
from crm.domain.shards import SHARDS
from crm.domain.times import to_us
from tests.support.brute_force import features_of as features_by_definition
from tests.support.builders import NOON, a_brand, a_logged_event
from tests.support.histories import ENDS, brands, histories
from tests.support.own_measures import OWN

_DAYS = st.integers(1, 100)


def _table(brand: Brand, at: datetime) -> FeatureTable:
    return FeatureTable(brand.zone, to_us(at), features_of(brand))


def _columns(events: Sequence[LoggedEvent], brand: Brand) -> EventColumns:
    return EventColumns.of(events, features_of(brand))


def _features(table: FeatureTable) -> dict[str, dict[str, int | None]]:
    """Every feature of every player, as raw integers."""
    found: dict[str, dict[str, int | None]] = {player: {} for player in table.player_ids}
    for name in table.features.features:
        values, missing = table.column(name)
        for row, player in enumerate(table.player_ids):
            gone = missing is not None and missing[row]
            found[player][name] = None if gone else int(values[row])
    return found


def _bytes(table: FeatureTable) -> dict[int, TableSlice]:
    """All that the table knows, canonical, by shard."""
    return {shard: table.export(shard) for shard in table.shards()}


def _by_shard(table: FeatureTable) -> list[tuple[list[str], list[int]]]:
    """What is read of the players of one shard alone."""
    rows = [table.rows_of(shard) for shard in sorted(table.shards())]
    return [(table.ids_of(of), table.column("bet_count_30d", of)[0].tolist()) for of in rows]


def _brute_force(
    events: Sequence[LoggedEvent], brand: Brand, as_of: datetime
) -> dict[str, dict[str, int | None]]:
    players = {event.player_id for event in events if event.occurred_at <= as_of}
    return {
        player: features_by_definition([e for e in events if e.player_id == player], brand, as_of)
        for player in players
    }


@st.composite
def _cases(draw: st.DrawFn) -> tuple[Brand, datetime, list[LoggedEvent]]:
    brand = draw(brands())
    end = draw(st.sampled_from(ENDS))
    return brand, end, draw(histories(brand, end))


@given(_cases(), st.data())
def test_any_order_and_batching_under_a_moving_clock_equals_one_pass(
    case: tuple[Brand, datetime, list[LoggedEvent]], data: st.DataObject
) -> None:
    brand, end, events = case
    shuffled = data.draw(st.permutations(events))
    table = _table(brand, end - timedelta(days=data.draw(st.integers(0, 40))))
    while shuffled:
        size = data.draw(st.integers(1, len(shuffled)))
        step = timedelta(seconds=data.draw(st.integers(0, 20 * 86_400)))
        table.advance(min(table.now_us + int(step.total_seconds()) * 10**6, to_us(end)))
        table.apply(_columns(shuffled[:size], brand))
        shuffled = shuffled[size:]
    table.advance(to_us(end))
    once = _table(brand, end)
    once.apply(_columns(events, brand))
    assert _bytes(table) == _bytes(once)
    assert _features(table) == _features(once)


@given(_cases())
def test_one_players_features_are_those_of_the_columns(
    case: tuple[Brand, datetime, list[LoggedEvent]],
) -> None:
    brand, end, events = case
    table = _table(brand, end)
    table.apply(_columns(events, brand))
    of_columns = _features(table)
    assert {player: table.values(row) for row, player in enumerate(table.player_ids)} == of_columns


@given(_cases(), st.integers(0, 40 * 86_400))
def test_features_equal_the_definition_now_and_later(
    case: tuple[Brand, datetime, list[LoggedEvent]], later_s: int
) -> None:
    brand, end, events = case
    table = _table(brand, end)
    table.apply(_columns(events, brand))
    assert _features(table) == _brute_force(events, brand, end)
    later = end + timedelta(seconds=later_s)
    table.advance(to_us(later))
    assert _features(table) == _brute_force(events, brand, later)


@given(_cases(), st.integers(0, 40 * 86_400), st.integers(0, 40))
def test_a_restored_table_equals_one_that_was_never_stopped(
    case: tuple[Brand, datetime, list[LoggedEvent]], later_s: int, cut: int
) -> None:
    brand, end, events = case
    whole = _table(brand, end)
    whole.apply(_columns(events, brand))
    before = _table(brand, end)
    before.apply(_columns(events[:cut], brand))
    parts = _bytes(before)
    later = to_us(end + timedelta(seconds=later_s))
    restored = _table(brand, end)
    restored.advance(later)
    for shard, part in parts.items():
        restored.load(shard, part)
    restored.apply(_columns(events[cut:], brand))
    whole.advance(later)
    assert _bytes(restored) == _bytes(whole)
    assert _features(restored) == _features(whole)


@given(_cases(), st.permutations(OWN), st.data())
def test_a_slice_by_another_list_of_measures_gives_what_a_replay_gives(
    case: tuple[Brand, datetime, list[LoggedEvent]],
    own: list[OwnMeasure],
    data: st.DataObject,
) -> None:
    brand, end, events = case
    then = replace(brand, measures=tuple(own[: data.draw(st.integers(0, len(own)))]))
    kept = data.draw(st.permutations(then.measures))
    now = replace(brand, measures=tuple(kept[: data.draw(st.integers(0, len(kept)))]))
    before, replayed, restored = _table(then, end), _table(now, end), _table(now, end)
    before.apply(_columns(events, then))
    replayed.apply(_columns(events, now))
    shards = {event.shard for event in events}
    for shard in shards:
        part = before.export(shard)
        assert features_of(now).lacking(part.measures) == []
        restored.load(shard, part)
    for later in (end, end + timedelta(minutes=10), end + timedelta(days=data.draw(_DAYS))):
        restored.advance(to_us(later))
        replayed.advance(to_us(later))
        for shard in shards:
            assert restored.export(shard) == replayed.export(shard)
        assert _features(restored) == _features(replayed)


def test_a_day_that_counted_before_a_measure_went_counts_no_second_time_after() -> None:
    then, now = (a_brand(measures=measures) for measures in (OWN, OWN[3:4]))
    spins = [
        a_logged_event(event_id=f"e{n}", type="custom.spin", properties={"tag": "1", "x": 2})
        for n in range(2)
    ]
    before, after = _table(then, NOON), _table(now, NOON)
    before.apply(_columns(spins[:1], then))
    after.load(spins[0].shard, before.export(spins[0].shard))
    assert after.values(0)["tagged_days_30d"] == 1
    after.apply(_columns(spins[1:], now))
    assert after.values(0)["tagged_days_30d"] == 1
    assert after.values(0)["event_count_24h"] == 2


def test_a_slice_says_which_of_our_measures_it_lacks_or_has_otherwise() -> None:
    cashout, spins, tagged, *_ = OWN
    then = FeatureList((cashout, replace(spins, meaning="other words"), tagged))
    twice = replace(tagged, where=(("tag", ('"won"',)),))
    now = FeatureList((OWN[4], spins, replace(cashout, decimals=3), twice))
    assert now.lacking(then.digests) == [
        "mean_whole_x.sum", "mean_whole_x.count", "mean_cashout.sum", "mean_cashout.count",
        "tagged_count",
    ]  # fmt: skip
    assert FeatureList().lacking(then.digests) == []
    assert FeatureList().lacking(then.digests[1:]) == ["event_count"]


def test_dropping_a_shard_keeps_another_shards_event_that_waits_for_the_clock() -> None:
    now, brand = ENDS[0], a_brand()
    lost = a_logged_event(event_id="a", occurred_at=now - timedelta(hours=1))
    waits = a_logged_event(event_id="b", player_id="p2", occurred_at=now + timedelta(minutes=1))
    assert lost.shard != waits.shard
    table = _table(brand, now)
    table.apply(_columns([lost, waits], brand))
    table.drop([lost.shard])
    table.advance(to_us(now + timedelta(minutes=2)))
    assert list(table.player_ids) == ["p2"]


@given(_cases(), st.sets(st.integers(0, SHARDS - 1)), st.integers(0, 40 * 86_400))
def test_a_table_that_dropped_shards_equals_one_that_never_had_them(
    case: tuple[Brand, datetime, list[LoggedEvent]], dropped: set[int], later_s: int
) -> None:
    brand, end, events = case
    dropped |= {event.shard for event in events[:2]}
    table, never = _table(brand, end), _table(brand, end)
    table.apply(_columns(events, brand))
    never.apply(_columns([event for event in events if event.shard not in dropped], brand))
    table.drop(dropped)
    for later in (end, end + timedelta(seconds=later_s)):
        for one in (table, never):
            one.advance(to_us(later))
        assert _bytes(table) == _bytes(never)
        assert _features(table) == _features(never)
        assert (len(table), table.shards()) == (len(never), never.shards())
        assert _by_shard(table) == _by_shard(never)


@given(_cases(), st.integers(0, 40 * 86_400), st.data())
def test_shards_that_are_dropped_and_come_back_make_no_difference(
    case: tuple[Brand, datetime, list[LoggedEvent]], later_s: int, data: st.DataObject
) -> None:
    brand, end, events = case
    table, whole = _table(brand, end), _table(brand, end)
    shards = sorted({event.shard for event in events})
    away: dict[int, TableSlice] = {}
    for event in events:
        leaving = data.draw(st.sets(st.sampled_from(shards))) - away.keys()
        away |= {shard: table.export(shard) for shard in leaving}
        table.drop(leaving)
        back = data.draw(st.sets(st.sampled_from(shards))) | {event.shard}
        for shard in back & away.keys():
            table.load(shard, away.pop(shard))
        table.apply(_columns([event], brand))
        whole.apply(_columns([event], brand))
    for shard, part in away.items():
        table.load(shard, part)
    for later in (end, end + timedelta(seconds=later_s)):
        for one in (table, whole):
            one.advance(to_us(later))
        assert _bytes(table) == _bytes(whole)
        assert _features(table) == _features(whole)


def test_dropped_players_give_back_their_place_in_the_windows() -> None:
    now = ENDS[0]
    event = a_logged_event(occurred_at=now)
    table = _table(a_brand(), now)
    table.apply(EventColumns.of([event]))
    part, before = table.export(event.shard), table._windows["7d"].nbytes
    for _ in range(300):  # a window begins with 256 places
        table.drop([event.shard])
        table.load(event.shard, part)
    assert table._windows["7d"].nbytes == before
    assert _features(table)["p1"]["bet_count_7d"] == 1
