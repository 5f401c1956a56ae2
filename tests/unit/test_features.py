"""The list of features: its names, its page, and the days that a zone makes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from crm.domain.event_columns import EventColumns
from crm.domain.feature_table import FeatureTable
from crm.domain.features import FEATURES, MEASURES, WINDOWS
from crm.domain.times import to_us
from crm.services.feature_page import markdown
from tests.support.builders import a_brand, a_door, an_event

CLONE = Path(__file__).parents[2]


def test_the_page_in_docs_is_that_of_the_list() -> None:
    assert (CLONE / "docs" / "features.md").read_text(encoding="utf-8") == markdown()


def test_the_contracts_names_are_there() -> None:
    kinds = ["deposit", "withdrawal", "stake", "payout", "ggr", "ngr", "bonus"]
    counts = "deposit withdrawal bet win loss bonus session failed_deposit cancelled_withdrawal"
    names = {f"{kind}_amount_{window}" for kind in kinds for window in WINDOWS}
    names |= {f"{kind}_count_{window}" for kind in counts.split() for window in WINDOWS}
    names |= {f"{name}_{w}" for name in ("session_seconds", "casino_stake_amount") for w in WINDOWS}
    names |= {f"active_days_{window}" for window in WINDOWS if window != "24h"}
    names |= {f"days_since_last_{what}" for what in ("bet", "deposit", "session", "activity")}
    names |= {"days_since_registration", "first_bet_at"}
    assert names <= FEATURES.keys()


def test_the_first_measure_counts_every_event() -> None:
    # a window forgets a player once it is 0
    assert MEASURES[0].name == "event_count"
    assert MEASURES[0].event_types == ()


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("America/Sao_Paulo", (2018, 11, 4)),
        ("America/Havana", (2026, 3, 8)),
        ("Africa/Cairo", (2026, 4, 24)),
        ("Australia/Lord_Howe", (2026, 10, 4)),
        ("UTC", (2026, 1, 1)),
    ],
)
def test_a_night_ends_at_six_on_the_clock_also_when_the_clock_changes(
    zone: str, day: tuple[int, int, int]
) -> None:
    brand = a_brand(time_zone=zone, starts_on=datetime(2015, 1, 1, tzinfo=UTC).date())
    six = datetime(*day, 6, tzinfo=brand.zone).astimezone(UTC)
    door = a_door(brand)
    bets = [
        door.accept(
            an_event(event_id=f"e{n}", occurred_at=six + timedelta(seconds=n)),
            six + timedelta(hours=1),
        )
        for n in (-3_600, -1, 0, 1)
    ]
    table = FeatureTable(brand.zone, to_us(six + timedelta(minutes=1)))
    table.apply(EventColumns.of(bets))
    assert table.values(0)["night_bet_count_24h"] == 2
    assert table.values(0)["night_bet_share_lifetime"] == 500_000


def test_a_day_counts_once_however_its_events_arrive() -> None:
    brand = a_brand()
    now = datetime(2026, 3, 10, 12, tzinfo=UTC)
    days = [3, 3, 0, 0, 3, 40, 400, 400]
    door = a_door(brand)
    table = FeatureTable(brand.zone, to_us(now))
    for number, back in enumerate(days):
        event = an_event(event_id=f"e{number}", occurred_at=now - timedelta(days=back))
        table.apply(EventColumns.of([door.accept(event, now)]))
    values = table.values(0)
    assert [values[f"bet_days_{w}"] for w in ("7d", "30d", "90d", "lifetime")] == [2, 2, 3, 4]
    assert values["bet_count_lifetime"] == len(days)


def test_a_share_beyond_all_measure_is_bounded_and_the_same_for_one_player_and_for_all() -> None:
    brand, now = a_brand(), datetime(2026, 3, 10, 12, tzinfo=UTC)
    door = a_door(brand)
    events = [
        an_event(event_id="a", type="bonus.granted", amount=Decimal("9999999999999.99")),
        an_event(event_id="b", type="deposit.completed", amount=Decimal("0.01")),
    ]
    table = FeatureTable(brand.zone, to_us(now))
    table.apply(EventColumns.of([door.accept(event, now) for event in events]))
    column, _ = table.column("bonus_share_lifetime")
    assert column.tolist() == [table.values(0)["bonus_share_lifetime"]] == [10**15]
