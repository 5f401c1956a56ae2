"""What a table says would be after each event is what it says once that event has been applied."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from crm.domain.brands import Brand
from crm.domain.event_columns import EventColumns
from crm.domain.events import LoggedEvent
from crm.domain.feature_list import features_of
from crm.domain.feature_table import FeatureTable
from crm.domain.times import to_us
from tests.support.histories import ENDS, brands, histories


@st.composite
def _cases(draw: st.DrawFn) -> tuple[Brand, datetime, list[LoggedEvent]]:
    brand, end = draw(brands()), draw(st.sampled_from(ENDS))
    happened = [e for e in draw(histories(brand, end)) if e.occurred_at <= end]
    return brand, end, draw(st.permutations(happened))


@given(_cases(), st.integers(0, 40), st.integers(0, 100))
def test_staged_features_are_those_of_a_table_that_applies_event_by_event(
    case: tuple[Brand, datetime, list[LoggedEvent]], before: int, later_h: int
) -> None:
    brand, end, events = case
    features = features_of(brand)
    known, new = events[:before], events[before:]
    table = FeatureTable(brand.zone, to_us(end), features)
    table.apply(EventColumns.of(known, features))
    table.advance(to_us(end + timedelta(hours=later_h)))
    if not new:
        return
    places, staged = table.stage(EventColumns.of(new, features))
    columns = {name: staged.column(name) for name in features.defined}
    over = [(name, table.today - n, table.today - k) for name in ("bet_count", "ggr_amount",
            "mean_stake_amount") for n, k in ((0, 0), (6, 0), (89, 3))]  # fmt: skip
    recent = {key: staged.over(*key) for key in over}
    at = {int(place): here for here, place in enumerate(places.order.tolist())}
    for place, event in enumerate(new):
        table.apply(EventColumns.of([event], features))
        row = table.row(event.player_id)
        assert row is not None
        found = {
            name: None if missing is not None and missing[at[place]] else int(values[at[place]])
            for name, (values, missing) in columns.items()
        }
        assert found == table.values(row)
        for key, (values, missing) in recent.items():
            value, gone = table.over(*key)
            assert values[at[place]] == value[row]
            assert (missing is not None and missing[at[place]]) == (gone is not None and gone[row])
