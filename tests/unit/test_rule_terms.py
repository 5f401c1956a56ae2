"""Windows, did, texts: what a text may say, what is said of one that is wrong, who is in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from crm.domain.errors import InvalidRule
from crm.domain.event_columns import EventColumns
from crm.domain.feature_list import features_of as list_of
from crm.domain.feature_table import FeatureTable
from crm.domain.segments import compile_mask, features_of, from_tree, parse, to_text
from crm.domain.times import to_us
from tests.support.builders import NOON, a_brand, a_logged_event
from tests.support.own_measures import OWN

BRAND = a_brand(measures=OWN)
NEEDS_DAYS = "bet_count needs its days: bet_count_30d, bet_count in 14 days,"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("bet_count IN 014 Days>=3", "bet_count in 14 days >= 3"),
        ("bet_count in 1 days in(1,2)", "bet_count in 1 day in (1, 2)"),
        (
            "stake_amount from '2026-11-01' to 2026-11-15 between 5.10 and 20",
            "stake_amount from 2026-11-01 to 2026-11-15 between 5.1 and 20",
        ),
        ("exists mean_cashout in 3 days", "exists mean_cashout in 3 days"),
        ("tagged_days in 3 days > 1", "tagged_days in 3 days > 1"),
        ("did bet.placed in 30 days", "did bet in 30 days"),
        ("did bet_count in 30 days", "did bet in 30 days"),
        ('did "session.started" in 30 days', "did session in 30 days"),
        ("did tagged in 30 days", "did tagged in 30 days"),
        (
            "DID NOT bet from 2026-11-01 to 2026-11-02 , Newcomers EXCLUDED",
            "did not bet from 2026-11-01 to 2026-11-02, newcomers excluded",
        ),
        ("not did bet in 2 days", "not (did bet in 2 days)"),
        ("segment 'VIP'", 'segment "VIP"'),
        ("segment 'it''s \"it\"'", 'segment "it\'s ""it"""'),
        ("list \"l\" and player_id='a'", 'list "l" and player_id = "a"'),
        ("player_id in ('a' , 'b')", 'player_id in ("a", "b")'),
        ("player_id STARTS  WITH 'a'", 'player_id starts with "a"'),
        ("player_id contains '5'", 'player_id contains "5"'),
        ("first_bet_at < 2026-01-31", 'first_bet_at < "2026-01-31"'),
    ],
)
def test_new_terms_have_one_canonical_spelling(text: str, canonical: str) -> None:
    assert to_text(parse(text, BRAND)) == canonical
    assert parse(canonical, BRAND) == parse(text, BRAND)


@pytest.mark.parametrize(
    ("text", "position", "says"),
    [
        ("bet_count > 3", 0, NEEDS_DAYS),
        ("bet_count_30d in 14 days > 3", 0, "say bet_count, which has none in its name"),
        ("days_since_last_bet in 14 days > 3", 0, "takes no days \\("),
        ("bet_cont in 14 days > 3", 0, "did you mean bet_count"),
        ("bet_count in 0 days > 3", 13, "1 to 90 days"),
        ("bet_count in 91 days > 3", 13, "1 to 90 days"),
        ("bet_count in -5 days > 3", 13, "1 to 90 days"),
        ("bet_count in 1.5 days > 3", 13, "1 to 90 days"),
        (f"bet_count in {'9' * 5000} days > 3", 13, "1 to 90 days"),
        ("bet_count in 14 > 3", 16, "expected days"),
        ("bet_count in 14 days", 20, "ends here; expected"),
        ("bet_count in 14 days > 1.5", 23, "whole number"),
        ("stake_amount in 14 days > 1.555", 26, "EUR, which has 2 decimals"),
        ("bet_count from 2026-02-30 to 2026-03-01 > 3", 15, "'2026-02-30' is no day"),
        ("bet_count from 'soon' to 2026-03-01 > 3", 15, "'soon' is no day: write it as"),
        ("bet_count from '2026-W01-1' to 2026-03-01 > 3", 15, "is no day"),
        ("bet_count from 2026-03-02 to 2026-03-01 > 3", 29, "the earlier day comes first"),
        ("bet_count from 2026-01-01 to 2026-04-01 > 3", 29, "at most 90 days"),
        ("bet_count from 0001-01-01 to 0001-01-02 > 3", 29, "years from 1900 to 2199"),
        ("did bets in 30 days", 4, "no event 'bets' is counted; did you mean bet"),
        ("did bet.settled in 30 days", 4, "no event 'bet.settled' is counted"),
        ("did bet", 7, "ends here; expected from, in"),
        ("did not bet in 30 days", 0, "newcomers included"),
        ("exists first_bet_at and did not bet in 9 days", 24, "younger than 9 days"),
        ("did not bets in 30 days", 8, "did you mean bet"),
        ("did not bet in 30 days, newcomers", 33, "expected included or excluded"),
        ("did bet in 30 days, newcomers included", 18, "',' does not fit"),
        ("segment VIP", 8, "expected a quoted text"),
        ("segment ''", 8, "1 to 200 characters"),
        ("player_id > 'a'", 10, "it takes =, !=, in, contains, starts with"),
        ("player_id = 5", 12, 'write "5"'),
        ("player_id in (5)", 14, 'write "5"'),
        ("player_id = ''", 12, "1 to 128 bytes"),
        (f"player_id = '{'é' * 65}'", 12, "1 to 128 bytes"),
        ("player_id = 'a\x00'", 12, "in one line"),
        ("player_id = '\ud800'", 12, "in one line"),
        ("player_id in 3 days = 'a'", 0, "takes no days"),
        ("player_id in 3 days in ('a')", 0, "takes no days"),
        ("player_id between 'a' and 'b'", 0, "player_id is a text"),
        ("exists player_id", 7, "player_id is a text"),
        ("bet_count_7d contains 'a'", 0, "bet_count_7d is no text; texts are player_id"),
        ("playerid contains 'a'", 0, "there is no feature 'playerid'"),
        ("bet_count_7d = '5'", 15, "whole number"),
    ],
)
def test_an_error_points_at_the_character(text: str, position: int, says: str) -> None:
    with pytest.raises(InvalidRule, match=says) as refused:
        parse(text, BRAND)
    assert refused.value.position == position


def test_without_a_reading_an_error_explains_both() -> None:
    tree = {"kind": "did_not", "event": "bet", "over": {"kind": "last_days", "days": 30}}
    for read, rule in ((parse, "did not bet in 30 days"), (from_tree, tree)):
        with pytest.raises(InvalidRule) as refused:
            read(rule)  # type: ignore[arg-type]  # each takes its own form
        for part in (
            "younger than 30 days",
            '"did not bet in 30 days, newcomers included" counts them',
            '"did not bet in 30 days, newcomers excluded" leaves them out',
        ):
            assert part in refused.value.message


@pytest.mark.parametrize(
    "tree",
    [
        {"kind": "did", "event": "bets", "over": {"kind": "last_days", "days": 30}},
        {"kind": "did", "event": "bet", "over": {"kind": "last_days", "days": 91}},
        {"kind": "did", "event": "bet", "over": None},
        {
            "kind": "did",
            "event": "bet",
            "over": {"kind": "dates", "first": "2026-01-02", "last": "2026-01-01"},
        },
        {"kind": "exists", "feature": "bet_count_7d", "over": {"kind": "last_days", "days": 3}},
        {"kind": "exists", "feature": "bet_count"},
        {"kind": "text", "column": "email", "op": "=", "value": "a"},
        {"kind": "text", "column": "player_id", "op": "=", "value": "\ud800"},
        {"kind": "text_in", "column": "player_id", "values": ["a\nb"]},
        {"kind": "text_in", "column": "player_id", "values": ["a"] * 201},
        {"kind": "segment", "segment": "a\nb"},
    ],
)
def test_a_wrong_tree_is_refused(tree: object) -> None:
    with pytest.raises(InvalidRule):
        from_tree(tree)


def a_table(*acts: tuple[str, str, float]) -> FeatureTable:
    """A table at noon after acts: player, event type, days ago."""
    table = FeatureTable(BRAND.zone, to_us(NOON), list_of(BRAND))
    events = [
        a_logged_event(
            event_id=f"e{n}",
            player_id=player,
            type=kind,
            occurred_at=NOON - timedelta(days=ago),
            amount=Decimal(1) if kind.startswith("bet.") else None,
            currency="EUR" if kind.startswith("bet.") else None,
        )
        for n, (player, kind, ago) in enumerate(acts)
    ]
    table.apply(EventColumns.of(events, list_of(BRAND)))
    return table


def members(text: str, table: FeatureTable) -> set[str]:
    mask = compile_mask(parse(text, BRAND), BRAND, table, len(table))
    return {player for player, inside in zip(table.player_ids, mask, strict=True) if inside}


def test_the_two_readings_differ_in_who_is_new() -> None:
    table = a_table(
        ("old", "player.registered", 30),
        ("new", "player.registered", 29.9),
        ("bettor", "player.registered", 80),
        ("bettor", "bet.placed", 29),
        ("former", "bet.placed", 30),
        ("sent to", "message.sent", 60),  # nothing says since when he is a player
    )
    assert members("did bet in 30 days", table) == {"bettor"}
    quiet = {"old", "new", "former", "sent to"}
    assert members("did not bet in 30 days, newcomers included", table) == quiet
    assert members("not (did bet in 30 days)", table) == quiet
    assert members("did not bet in 30 days, newcomers excluded", table) == {"old", "former"}
    dates = "did not bet from 2026-02-09 to 2026-03-01, newcomers excluded"
    assert members(dates, table) == {"old", "former", "new"}  # known since the day before


def test_dates_are_local_days_with_both_ends_and_within_90_days() -> None:
    table = a_table(("a", "bet.placed", 89), ("b", "bet.placed", 1), ("c", "bet.placed", 0))
    assert members("bet_count from 2026-03-09 to 2026-03-10 = 1", table) == {"b", "c"}
    assert members("bet_count from 2026-03-09 to 2026-03-09 = 1", table) == {"b"}
    assert members("stake_amount from 2025-12-11 to 2026-01-01 = 1", table) == {"a"}
    assert members("bet_count from 2026-03-10 to 2026-05-01 = 1", table) == {"c"}
    for text in (
        "bet_count from 2025-12-10 to 2026-01-01 = 1",
        "did bet from 2020-01-01 to 2020-01-02",
    ):
        with pytest.raises(InvalidRule, match="days since 2025-12-11 are kept, the last 90"):
            members(text, table)


def test_texts_are_compared_case_and_all() -> None:
    table = a_table(*((player, "bet.placed", 1) for player in ("vip-1", "vip-2", "VIP-3", "a-vip")))
    assert members("player_id starts with 'vip'", table) == {"vip-1", "vip-2"}
    assert members("player_id contains 'vip'", table) == {"vip-1", "vip-2", "a-vip"}
    assert members("player_id != 'vip-1'", table) == {"vip-2", "VIP-3", "a-vip"}
    assert members("player_id in ('vip-1', 'x')", table) == {"vip-1"}


def test_a_table_answers_for_the_lists_that_it_is_given() -> None:
    table = a_table(("a", "bet.placed", 1), ("b", "bet.placed", 1))
    with pytest.raises(InvalidRule, match='there is no list "vip"'):
        members('list "vip"', table)
    table.lists["vip"] = ["b", "stranger"]
    assert members('list "vip"', table) == {"b"}
    assert members('not list "vip"', table) == {"a"}


def test_the_features_of_a_rule_are_the_columns_that_are_ready() -> None:
    rule = parse(
        "bet_count in 30 days > 1 and bet_count in 14 days > 1 and did deposit in 7 days"
        " and did not bet in 9 days, newcomers excluded and player_id = 'a' and list 'b'"
    )
    assert features_of(rule) == {"bet_count_30d", "deposit_count_7d", "first_activity_at"}


def test_a_date_in_a_rule_is_the_brands_day() -> None:
    havana = a_brand(time_zone="America/Havana")
    table = FeatureTable(havana.zone, to_us(NOON), list_of(havana))
    night = datetime(2026, 3, 10, 3, tzinfo=UTC)  # still the 9th in Havana
    event = a_logged_event(occurred_at=night)
    event.local_day = havana.local_day(night)
    table.apply(EventColumns.of([event], list_of(havana)))
    rule = parse("did bet from 2026-03-09 to 2026-03-09")
    assert compile_mask(rule, havana, table, 1).tolist() == [True]
