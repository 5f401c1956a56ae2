"""What a rule says in plain words."""

from __future__ import annotations

import re

import pytest
from hypothesis import given

from crm.domain.brands import Currency
from crm.domain.feature_list import features_of
from crm.domain.rule_meaning import describe
from crm.domain.rule_references import Known
from crm.domain.rule_text import parse
from crm.domain.segments import from_tree
from tests.support.builders import a_brand
from tests.support.own_measures import OWN
from tests.support.rule_trees import Tree, trees

BRAND = a_brand(measures=OWN)
YEN = a_brand(currency=Currency("JPY", 0))


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        (
            "bet_count_lifetime >= 10 and days_since_last_bet > 7",
            "who bet 10 times or more in all, and whose last bet was more than 7 days ago",
        ),
        ("bet_count_lifetime = 0", "who never bet"),
        ("deposit_count_7d < 1", "who did not deposit in the last 7 days"),
        ("deposit_count_lifetime > 0", "who deposited at least once in all"),
        ("bet_count_24h in (1, 2, 3)", "who bet 1, 2 or 3 times in the last 24 hours"),
        ("bet_count in 1 day = 1", "who bet exactly 1 time today"),
        ("casino_bet_count_30d < 5", "who bet on casino fewer than 5 times in the last 30 days"),
        (
            "stake_amount in 10 days between 5 and 20",
            "who staked from EUR 5.00 to EUR 20.00 in the last 10 days",
        ),
        (
            "stake_amount from 2026-11-01 to 2026-11-15 > 1000.5",
            "who staked more than EUR 1,000.50 from 2026-11-01 to 2026-11-15",
        ),
        (
            "ggr_amount_7d < -10",
            "whose gross gaming revenue in the last 7 days is less than EUR -10.00",
        ),
        (
            "win_share_30d > 0.5",
            "whose share of won bets among won and lost ones in the last 30 days is more than 50 %",
        ),
        (
            "deposits_per_deposit_day_30d >= 1.5",
            "whose number of deposits on a day with any in the last 30 days is 1.5 or more",
        ),
        (
            "message_sent_count_30d = 3",
            "whose number of messages sent in the last 30 days is exactly 3",
        ),
        (
            "session_seconds_7d > 3600",
            "whose length of the sessions ended in the last 7 days is more than 3,600 seconds",
        ),
        (
            "stake_amount_rise_7d >= 2",
            (
                "whose trend of money staked (7 days against the weekly mean of the 28 before)"
                " is 200 % or more"
            ),
        ),
        (
            "mean_cashout in 5 days > 1.5",
            "whose mean cash-out multiplier of won bets in the last 5 days is more than 1.5",
        ),
        ("first_bet_at < 2026-01-31", "whose first bet was before 2026-01-31"),
        (
            'last_activity_at >= "2026-01-31T18:00:00Z"',
            "whose last act was at or after 2026-01-31 18:00:00 UTC",
        ),
        ("days_since_registration <= 1", "whose registration was 1 day ago or less"),
        ("days_since_last_bet between 3 and 7", "whose last bet was 3 to 7 days ago"),
        ("exists first_bet_at", "who have ever bet"),
        (
            "exists mean_stake_amount in 3 days",
            "for whom the mean stake in the last 3 days is known",
        ),
        (
            "not (days_since_last_bet > 7) and (bet_count_7d > 0 or deposit_count_7d >= 2)",
            (
                "other than those whose last bet was more than 7 days ago, and (who bet at least"
                " once in the last 7 days, or who deposited 2 times or more in the last 7 days)"
            ),
        ),
        ("did bet in 30 days", "who bet in the last 30 days"),
        (
            "did not bet in 30 days, newcomers included",
            "who did not bet in the last 30 days (newcomers too)",
        ),
        (
            "did not bet in 30 days, newcomers excluded",
            "who did not bet in the last 30 days (of those known for 30 days or more)",
        ),
        (
            "did not message_sent from 2026-01-01 to 2026-01-31, newcomers excluded",
            (
                "for whom there were no messages sent from 2026-01-01 to 2026-01-31 (of those known"
                " since before 2026-01-01)"
            ),
        ),
        ("did tagged in 3 days", "for whom there were tagged events in the last 3 days"),
        ('player_id contains "x"', 'whose player id contains "x"'),
        ('player_id in ("a", "b")', 'whose player id is "a" or "b"'),
        (
            'segment "s-1" or list "other" or segment "nobody knows"',
            (
                'who are in the segment "High rollers" (those who bet at least once in the last 7'
                ' days, and who are on the list "Friends"), or who are on the list "other", or who'
                ' are in the segment "nobody knows"'
            ),
        ),
    ],
)
def test_a_rule_says_what_it_means(text: str, meaning: str) -> None:
    inner = parse('bet_count_7d > 0 and list "s-2"', BRAND)
    segments = {"s-1": Known("s-1", "High rollers", inner), "s-2": Known("s-2", "Friends", None)}
    assert describe(parse(text, BRAND), BRAND, segments) == f"players {meaning}"


def test_money_is_in_the_brands_currency_with_its_decimals() -> None:
    assert describe(parse("stake_amount_7d > 1500", YEN), YEN) == (
        "players who staked more than JPY 1,500 in the last 7 days"
    )


@given(trees(BRAND))
def test_every_rule_is_said_in_words_that_name_no_feature(tree: Tree) -> None:
    rule = from_tree(tree, BRAND)
    said = describe(rule, BRAND)
    assert said.startswith("players ")
    words = {word.strip("(),") for word in re.sub(r'".*"', "", said).split()}
    names = {*features_of(BRAND).features, *features_of(BRAND).windowed}
    assert not words & names


def test_every_feature_can_be_said_in_every_comparison() -> None:
    for name, feature in features_of(BRAND).features.items():
        value = '"2026-01-31"' if feature.unit == "time" else "2"
        said = {
            describe(parse(text, BRAND), BRAND)
            for text in (
                *(f"{name} {op} {value}" for op in ("=", "!=", "<", "<=", ">", ">=")),
                f"{name} between {value} and {value}",
                f"{name} in ({value}, {value})",
                f"exists {name}",
            )
        }
        assert len(said) == 9, said
