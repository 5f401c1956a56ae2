"""The batch engine gives, for any history, zone and moment, what the definition says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from crm.domain.brands import Brand
from crm.domain.event_columns import EventColumns
from crm.domain.events import LoggedEvent
from crm.domain.feature_list import features_of as list_of
from crm.domain.feature_table import FeatureTable
from crm.domain.features import FEATURES
from crm.domain.times import to_us
from pipelines.batch_features import features_at
from tests.support.brute_force import features_of
from tests.support.histories import ENDS, brands, histories
from tests.support.lake import Values, features_by_player, lake_rows


@st.composite
def _cases(draw: st.DrawFn) -> tuple[Brand, datetime, list[LoggedEvent]]:
    brand, end = draw(brands()), draw(st.sampled_from(ENDS))
    return brand, end, draw(histories(brand, end, max_size=60))


def _batch(
    events: list[LoggedEvent], brand: Brand, as_of: datetime, known_by: datetime | None = None
) -> dict[str, Values]:
    return features_by_player(features_at(lake_rows(events).lazy(), brand, as_of, known_by))


def _expected(events: list[LoggedEvent], brand: Brand, as_of: datetime) -> dict[str, Values]:
    players = {event.player_id for event in events if event.occurred_at <= as_of}
    return {
        player: features_of([e for e in events if e.player_id == player], brand, as_of)
        for player in players
    }


@given(_cases(), st.integers(0, 40 * 86_400), st.randoms())
def test_as_of_any_moment_and_in_any_order_it_is_what_the_definition_says(
    case: tuple[Brand, datetime, list[LoggedEvent]], back_s: int, random: object
) -> None:
    brand, end, events = case
    random.shuffle(events)  # type: ignore[attr-defined]  # Hypothesis's own Random
    india = timezone(timedelta(hours=5, minutes=30))
    for as_of in (end, (end - timedelta(seconds=back_s)).astimezone(india)):
        assert _batch(events, brand, as_of) == _expected(events, brand, as_of.astimezone(UTC))


@given(_cases())
def test_it_equals_the_online_engine_value_for_value(
    case: tuple[Brand, datetime, list[LoggedEvent]],
) -> None:
    brand, end, events = case
    table = FeatureTable(brand.zone, to_us(end), list_of(brand))
    table.apply(EventColumns.of(events, list_of(brand)))
    batch = _batch(events, brand, end)
    assert batch.keys() == set(table.player_ids)
    for player, values in batch.items():
        row = table.row(player)
        assert row is not None
        assert values == table.values(row)


@given(_cases(), st.data())
def test_what_was_known_later_than_asked_changes_nothing(
    case: tuple[Brand, datetime, list[LoggedEvent]], data: st.DataObject
) -> None:
    brand, end, events = case
    as_of = end - timedelta(days=data.draw(st.integers(0, 30)))
    known: list[LoggedEvent] = []
    later: list[LoggedEvent] = []
    for event in events:
        late = data.draw(st.booleans()) or event.occurred_at > as_of
        (later if late else known).append(event)
    told = [_known_at(event, max(event.occurred_at, as_of - timedelta(days=1))) for event in known]
    untold = [_known_at(event, as_of + timedelta(microseconds=1)) for event in later]
    assert _batch(told + untold, brand, as_of, known_by=as_of) == _batch(told, brand, as_of)


def _known_at(event: LoggedEvent, at: datetime) -> LoggedEvent:
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    return LoggedEvent(**fields | {"known_at": at})


def test_other_brands_and_no_events_at_all_are_no_players() -> None:
    from tests.support.builders import NOON, a_brand, a_logged_event

    events = [a_logged_event()]
    assert _batch(events, replace(a_brand(), id="other"), NOON) == {}
    table = features_at(lake_rows([]).lazy(), a_brand(), NOON)
    assert table.num_rows == 0
    assert table.column_names == ["player_id", *FEATURES]
    assert pl.from_arrow(table).schema["bet_count_7d"] == pl.Int64  # type: ignore[union-attr]  # a table is a frame
