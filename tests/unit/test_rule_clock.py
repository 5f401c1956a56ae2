"""What the clock alone can change in a rule: exact days, windows, hours."""

from __future__ import annotations

import pytest

from crm.domain.errors import InvalidRule
from crm.domain.rule_clock import has_fixed_dates, thresholds, windows
from crm.domain.rule_text import parse
from tests.support.builders import a_brand
from tests.support.own_measures import OWN

BRAND = a_brand(measures=OWN)


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("days_since_last_bet > 7", {8}),
        ("days_since_last_bet >= 7", {7}),
        ("days_since_last_bet < 7", {7}),
        ("days_since_last_bet <= 7", {8}),
        ("days_since_last_bet = 7", {7, 8}),
        ("days_since_last_bet != 0", {1}),
        ("days_since_last_bet between 3 and 5", {3, 6}),
        ("days_since_last_bet between 5 and 3", set()),
        ("days_since_last_bet in (1, 2, 3, 9)", {1, 4, 9, 10}),
        ("days_since_last_bet >= 0", set()),
        ("days_since_last_bet > -5", set()),
        ("days_since_last_bet > 999999999999999999", set()),
        ("exists days_since_last_bet", set()),
        ("not (days_since_last_bet > 7) or days_since_last_bet = 8", {8, 9}),
    ],
)
def test_a_condition_on_days_since_flips_at_these_days(text: str, days: set[int]) -> None:
    assert thresholds(parse(text), BRAND) == {("last_bet_at", day) for day in days}


def test_thresholds_name_the_time_that_they_count_from() -> None:
    assert thresholds(parse("days_since_registration >= 30"), BRAND) == {
        ("first_registration_at", 30)
    }
    text = (
        "did not bet in 14 days, newcomers excluded and did not bet in 9 days, newcomers included"
    )
    assert thresholds(parse(text), BRAND) == {("first_activity_at", 14)}
    text = (
        "did not bet from 2026-01-01 to 2026-01-31, newcomers excluded or last_bet_at < 2026-01-31"
    )
    assert thresholds(parse(text), BRAND) == set()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bet_count_7d > 1 and mean_stake_amount_90d > 1 and exists win_share_30d", {7, 30, 90}),
        (
            "bet_count in 14 days > 1 or did bet in 3 days or exists win_share in 30 days",
            {3, 14, 30},
        ),
        ("did not bet in 21 days, newcomers excluded", {21}),
        ("bet_count_trend_7d > 1", {7, 14}),
        ("bet_count_lifetime > 1 or bet_count_24h > 1 or first_bet_at < 2026-01-31", set()),
        ("bet_count from 2026-01-01 to 2026-01-31 > 1 and player_id = 'a' and list 'b'", set()),
        ("tagged_days_30d > 1 and mean_cashout in 5 days > 1.5", {5, 30}),
    ],
)
def test_windows_are_those_whose_days_leave(text: str, expected: set[int]) -> None:
    assert windows(parse(text, BRAND), BRAND) == expected


def test_rises_are_held_against_35_days() -> None:
    assert windows(parse("bet_count_7d > 1 and stake_amount_rise_7d > 2"), BRAND) == {7, 35}


def test_fixed_dates_are_seen_wherever_they_stand() -> None:
    for text in (
        "bet_count_7d > 1 and not (stake_amount from 2026-01-01 to 2026-01-02 > 5)",
        "did bet from 2026-01-01 to 2026-01-02",
        "did not bet from 2026-01-01 to 2026-01-02, newcomers included",
    ):
        assert has_fixed_dates(parse(text))
    assert not has_fixed_dates(parse("did bet in 5 days and first_bet_at > 2026-01-01"))


def test_of_a_segment_that_is_merely_named_nothing_is_said() -> None:
    rule = parse('segment "a" and bet_count_7d > 1')
    for asked in (thresholds, windows):
        with pytest.raises(InvalidRule, match="not been looked up"):
            asked(rule, BRAND)
