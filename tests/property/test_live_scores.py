"""Columns of scores are what the models say of each player alone, and transitions follow them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from crm.adapters.scorers import open_scorer
from crm.domain.event_columns import EventColumns
from crm.domain.events import LoggedEvent
from crm.domain.feature_table import FeatureTable
from crm.domain.live_scores import ServingScores
from crm.domain.membership import Membership, WatchedSegment
from crm.domain.predictions import BrandModels
from crm.domain.rule_text import parse
from crm.domain.score_columns import RANK, SCORED
from crm.domain.times import to_us
from tests.support.brute_force import features_of as features_by_definition
from tests.support.builders import NOON, a_logged_event
from tests.support.histories import histories
from tests.support.live_scores import a_model_of_windows, scores_of, some_serving
from tests.support.owner_system import BRAND, OwnerSystem, Rules, do
from tests.support.rule_force import Values, feature_leaves, rule_texts, score_leaves

Scores = dict[str, int | str | None]
SERVING = [some_serving(number) for number in (1, 2, 3)]
BARE = ServingScores(
    BrandModels(churn=open_scorer(a_model_of_windows()), ids={"churn": "churn-windows"})
)
RULES = st.lists(rule_texts(st.one_of(score_leaves(), feature_leaves())), min_size=1, max_size=3)


def _said(table: FeatureTable) -> dict[str, Scores]:
    """What the table's columns say of each player."""
    found: dict[str, Scores] = {player: {} for player in table.player_ids}
    for name in SCORED:
        values, missing = table.column(name)
        assert missing is not None
        for player, value, none in zip(table.player_ids, values, missing, strict=True):
            found[player][name] = None if none else int(value)
    ranks, missing = table.texts(RANK)
    assert missing is not None
    for player, rank, none in zip(table.player_ids, ranks, missing, strict=True):
        found[player][RANK] = None if none else rank
    return found


def _expected(table: FeatureTable, serving: ServingScores) -> dict[str, Scores]:
    return {
        player: scores_of(serving, table.values(row))
        for row, player in enumerate(table.ids)
        if player
    }


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["apply", "apply", "advance", "advance", "read", "renew", "drop", "reload", "serve",
             "take", "copy"]
        ),
        st.integers(0, 10**6),
    ),
    min_size=4,
    max_size=16,
)  # fmt: skip


@given(histories(BRAND, NOON, max_size=20), st.sampled_from([SERVING[0], BARE]), _STEPS)
def test_columns_are_what_the_models_say_of_each_player_alone(  # noqa: C901 - a branch a step
    events: list[LoggedEvent], first: ServingScores, steps: list[tuple[str, int]]
) -> None:
    start = NOON - timedelta(days=2)
    table = FeatureTable(BRAND.zone, to_us(start), serving=first)
    serving = wanted = first
    left = list(events)
    for step, number in [*steps, ("apply", 99), ("advance", 3)]:
        match step:
            case "apply":
                size = number % 7 + 1
                table.apply(EventColumns.of(left[:size], table.features))
                left = left[size:]
            case "advance":
                hours = (0, 1, 7, 24, 31, 24 * 8, 24 * 40)[number % 7]
                table.advance(table.now_us + (hours * 3600 + number % 60) * 10**6)
            case "renew":
                table.renew_scores(number % 3)
            case "drop" if shards := sorted(table.shards()):
                table.drop([shards[number % len(shards)]])
            case "reload" if shards := sorted(table.shards()):
                shard = shards[number % len(shards)]
                part = table.export(shard)
                table.drop([shard])
                table.load(shard, part)
            case "serve":
                wanted = (*SERVING, BARE)[number % 4]
                table.serve(wanted)
            case "take":
                table.scores.take_over()
                serving = wanted
            case "copy":
                other = table.empty()
                for shard in table.shards():
                    other.load(shard, table.export(shard))
                table = other
            case _:
                assert _said(table) == _expected(table, serving)
        assert table.scores.serving is serving
    assert _said(table) == _expected(table, serving)


def test_without_a_serving_model_all_is_missing() -> None:
    table = FeatureTable(BRAND.zone, to_us(NOON))
    table.serve(SERVING[0])  # nobody is there yet, and nobody has taken them over
    said = _said(table)
    assert said == {}


@given(RULES, histories(BRAND, NOON, max_size=20), st.integers(0, 12), st.data())
def test_a_transition_is_at_the_event_that_moved_the_score(
    rules: Rules, events: list[LoggedEvent], before: int, data: st.DataObject
) -> None:
    alive = [
        replace(event, received_at=event.occurred_at, backfill=False)
        for event in data.draw(st.permutations(events))
        if event.occurred_at <= NOON
    ]
    known, new = alive[:before], alive[before:]
    table = FeatureTable(BRAND.zone, to_us(NOON), serving=SERVING[0])
    table.apply(EventColumns.of(known, table.features))
    membership = Membership(BRAND, table)
    membership.use(
        WatchedSegment(f"s{n}", 1, parse(text, BRAND)) for n, (text, _) in enumerate(rules)
    )
    caused = membership.caused_by(new, list(range(len(new))))
    told = {(one.segment, one.player_id, one.seq, one.entered) for one in caused.transitions}
    assert told == _flips(rules, known, new)
    table.apply(EventColumns.of(new, table.features))
    membership.settle(caused, new)
    players = {event.player_id for event in alive}
    assert membership.members() == {
        f"s{n}": {p for p in players if holds(_values(alive, p))}
        for n, (_, holds) in enumerate(rules)
    }


def _flips(
    rules: Rules, known: Sequence[LoggedEvent], new: Sequence[LoggedEvent]
) -> set[tuple[str, str, int, bool]]:
    """Where each rule's answer changes, event by event."""
    found, events = set(), list(known)
    for seq, event in enumerate(new):
        player = event.player_id
        there = any(one.player_id == player for one in events)
        former = _values(events, player) if there else None
        events.append(event)
        now = _values(events, player)
        for n, (_, holds) in enumerate(rules):
            was = former is not None and holds(former)
            if holds(now) != was:
                found.add((f"s{n}", player, seq, not was))
    return found


def _values(events: Sequence[LoggedEvent], player: str, now: datetime = NOON) -> Values:
    of_player = [event for event in events if event.player_id == player]
    values = features_by_definition(of_player, BRAND, now)
    return {**values, **scores_of(SERVING[0], values)}


_ACTS = st.sampled_from(
    ["append", "append", "append", "crash", "snapshot", "move", "later", "later", "lose",
     "promote", "promote and move", "score"]
)  # fmt: skip


@given(
    RULES,
    histories(BRAND, NOON, max_size=16),
    st.lists(st.tuples(_ACTS, st.integers(0, 10**6)), min_size=6, max_size=20),
)
async def test_transitions_add_up_through_crashes_moves_and_promotions(
    rules: Rules, events: list[LoggedEvent], acts: list[tuple[str, int]]
) -> None:
    system = OwnerSystem(rules, SERVING[0])
    left = [replace(event, received_at=event.occurred_at, backfill=False) for event in events]
    await system.start()
    try:
        for act, number in [*acts, ("append", 99), ("later", 0)]:
            if act == "crash":
                await system.take_scores()  # else the next owners' models are others: silent, too
            if act == "promote":
                await system.promote(SERVING[number % 3], at_once=number % 2 == 0)
            elif act == "promote and move":
                await system.promote(SERVING[number // 2 % 3], at_once=False)
                left = await do(system, "move", number, left)
            elif act == "score":
                for owner in system.owners:
                    owner._tables.renew_scores(number % 3)
            else:
                left = await do(system, act, number, left)
        await system.take_scores()
        await system.tell()
        assert system.members_told() == system.members()
    finally:
        await system.stop()


@pytest.mark.parametrize("number", [2, 3, 4, 5])
async def test_a_move_amid_a_promotion_tells_nothing_twice(number: int) -> None:
    def holds(values: Values) -> bool:
        probability = values["churn_probability"]
        return isinstance(probability, int) and probability >= 600_000

    system = OwnerSystem([("churn_probability >= 0.6", holds)], SERVING[0])
    await system.start()
    try:
        await system.append(
            [
                a_logged_event(event_id=f"{n}", player_id=f"p{n}", occurred_at=at, received_at=at)
                for n in range(20)
                for at in [NOON - timedelta(days=n % 9)]
            ]
        )
        await system.promote(SERVING[number // 2], at_once=False)
        await do(system, "move", number, [])
        await system.take_scores()
        await system.tell()
        assert system.members_told() == system.members()
    finally:
        await system.stop()


def test_windows_move_scores_when_they_move() -> None:
    table = FeatureTable(BRAND.zone, to_us(NOON), serving=BARE)
    table.apply(EventColumns.of([a_logged_event(occurred_at=NOON)], table.features))
    said = []
    for later in (0, 23, 24, 48, 24 * 6, 24 * 7, 24 * 91):
        table.advance(to_us(NOON + timedelta(hours=later)))
        assert _said(table) == _expected(table, BARE)
        said.append(_said(table))
    assert len({str(one) for one in said}) == 4  # of an hour, of a week, of 90 days


def test_the_clock_moves_scores_at_the_second() -> None:
    table = FeatureTable(BRAND.zone, to_us(NOON), serving=SERVING[0])
    membership = Membership(BRAND, table)
    bet = a_logged_event(occurred_at=NOON - timedelta(minutes=30))
    before = scores_of(SERVING[0], features_by_definition([bet], BRAND, NOON))
    limit = before["churn_probability"]
    assert isinstance(limit, int)
    rule = f"churn_probability < {limit / 1e6:.6f}"  # of these models: days since lower it
    membership.use([WatchedSegment("s", 1, parse(rule, BRAND))])
    caused = membership.caused_by([bet], [1])
    table.apply(EventColumns.of([bet], table.features))
    membership.settle(caused, [bet])
    assert caused.transitions == []
    table.advance(to_us(bet.occurred_at + timedelta(days=1)) - 1)
    assert membership.moved() == []
    table.advance(to_us(bet.occurred_at + timedelta(days=1)))
    assert [(one.entered, one.seq, one.at) for one in membership.moved()] == [
        (True, None, bet.occurred_at + timedelta(days=1))
    ]


def test_a_day_that_passes_while_events_are_committed_is_seen() -> None:
    table = FeatureTable(BRAND.zone, to_us(NOON), serving=SERVING[0])
    membership = Membership(BRAND, table)
    bet = a_logged_event(occurred_at=NOON - timedelta(days=1) + timedelta(minutes=10))
    before = scores_of(SERVING[0], features_by_definition([bet], BRAND, NOON))
    limit = before["churn_probability"]
    assert isinstance(limit, int)
    rule = f"churn_probability < {limit / 1e6:.6f}"
    membership.use([WatchedSegment("s", 1, parse(rule, BRAND))])
    caused = membership.caused_by([bet], [1])
    assert caused.transitions == []
    table.advance(to_us(NOON + timedelta(minutes=11)))  # somebody reads meanwhile
    table.apply(EventColumns.of([bet], table.features))
    membership.settle(caused, [bet])
    (entered,) = membership.moved()
    assert (entered.seq, entered.at) == (None, bet.occurred_at + timedelta(days=1))
