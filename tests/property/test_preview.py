"""Laws of a preview: masks and counts that are taken by a shorter way equal a look at each player.

Players are in a table whose rows may be dead, and each feature is asked for in ranges around what
somebody has.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from crm.domain.event_columns import EventColumns
from crm.domain.feature_list import features_of
from crm.domain.feature_table import FeatureTable
from crm.domain.ports import TermCount
from crm.domain.rules import And, Compare, Exists, In, Not, Or, Rule
from crm.domain.segments import from_tree, to_tree
from crm.domain.spans import LEAST, MOST, Spans
from crm.domain.times import to_us
from crm.services.segments import SAMPLE, matching, summed
from tests.support.builders import NOON, a_brand, a_logged_event
from tests.support.histories import ENDS, brands, histories

NUMBERS = st.integers(-3, 3) | st.sampled_from([LEAST - 1, LEAST, LEAST + 1, MOST, MOST + 1])
MANY_ONES = st.just([(number, number) for number in range(-60, 60, 2)])
PARTS = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=6) | MANY_ONES


@given(PARTS, st.integers(-3, 3) | st.sampled_from([LEAST, MOST]))
def test_spans_hold_what_lies_in_any_of_their_parts(
    parts: list[tuple[int, int]], gone: int
) -> None:
    values = [*range(-5, 6), LEAST, LEAST + 1, MOST - 1, MOST]
    spans = Spans.of(parts)
    expected = [any(first <= value <= last for first, last in parts) for value in values]
    assert spans.hold(np.array(values)).tolist() == expected
    assert [value in spans for value in values] == expected
    left = [here and value != gone for here, value in zip(expected, values, strict=True)]
    assert spans.without(gone).hold(np.array(values)).tolist() == left


@given(PARTS, st.integers(-50, 50), st.integers(1, 7))
def test_whole_units_since_are_a_range_of_times(
    parts: list[tuple[int, int]], now: int, unit: int
) -> None:
    times = Spans.of(parts).as_times(now, unit)
    for time in range(now - 30, now + 30):
        assert (time in times) == ((now - time) // unit in Spans.of(parts))


@st.composite
def _tables(draw: st.DrawFn) -> FeatureTable:
    """Histories, of which some shards may have gone, at a later moment."""
    brand, end = draw(brands()), draw(st.sampled_from(ENDS))
    table = FeatureTable(brand.zone, to_us(end), features_of(brand))
    table.apply(EventColumns.of(draw(histories(brand, end)), table.features))
    gone = draw(st.lists(st.sampled_from(sorted(table.shards()) or [0]), max_size=2))
    table.drop(gone)
    later = end + timedelta(days=draw(st.sampled_from([0, 0, 1, 8, 40, 100])))
    table.advance(to_us(later))
    return table


@given(_tables(), st.integers(0, 2**32))
def test_where_a_feature_is_in_a_range_is_read_without_its_column(
    table: FeatureTable, seed: int
) -> None:
    chance = Random(seed)
    for name in table.features.features:
        values, missing = table.column(name)
        near = [value + off for value in {0, *values.tolist()} for off in (-1, 0, 1)]
        ends = [chance.choice([*near, LEAST, MOST]) for _ in range(4)]
        spans = Spans.of([(ends[0], ends[1]), (ends[2], ends[3])][: chance.randint(1, 2)])
        here = np.ones(len(values), bool) if missing is None else ~missing
        assert (table.within(name, spans) == (spans.hold(values) & here)).all(), name


BRAND = a_brand()
COUNTS = ("bet_count_7d", "bet_count_lifetime", "deposit_count_30d", "event_count_lifetime")
PLAYERS = 12


def _rules() -> st.SearchStrategy[Rule]:
    name, value = st.sampled_from(COUNTS), st.integers(0, 3)
    one = st.one_of(
        st.builds(Compare, name, st.sampled_from(["=", "!=", "<", ">="]), value),
        st.builds(lambda n, v: In(n, tuple(v)), name, st.lists(value, min_size=1, max_size=3)),
        st.sampled_from(["first_bet_at", "last_deposit_at"]).map(Exists),
    )
    terms = st.lists(one | one.map(Not), min_size=1, max_size=5).map(tuple)
    either = st.lists(terms.map(And), min_size=1, max_size=2).map(lambda some: Or(tuple(some)))
    return (one | terms.map(And) | either).map(lambda rule: from_tree(to_tree(rule)))


def _table(acts: Sequence[tuple[int, str, int]]) -> FeatureTable:
    table = FeatureTable(BRAND.zone, to_us(NOON), features_of(BRAND))
    events = [
        a_logged_event(
            event_id=f"e{n}", type=kind, player_id=f"p{player:02d}",
            occurred_at=NOON - timedelta(days=days), amount=Decimal(1),
        )
        for n, (player, kind, days) in enumerate(acts)
    ]  # fmt: skip
    table.apply(EventColumns.of(events, table.features))
    return table


def _of_player(rule: Rule, values: dict[str, int | None]) -> bool:
    match rule:
        case And(terms):
            return all(_of_player(term, values) for term in terms)
        case Or(terms):
            return any(_of_player(term, values) for term in terms)
        case Not(term):
            return not _of_player(term, values)
        case Exists(name):
            return values[name] is not None
        case In(name, literals):
            return values[name] in literals
        case Compare(name, op, literal):
            value = values[name] or 0
            sign = (value > int(literal)) - (value < int(literal))
            return sign in {"=": {0}, "!=": {-1, 1}, "<": {-1}, ">=": {0, 1}}[op]
        case _:
            raise AssertionError(rule)


ACTS = st.lists(
    st.tuples(
        st.integers(0, PLAYERS - 1),
        st.sampled_from(["bet.placed", "deposit.completed", "session.started"]),
        st.integers(0, 40),
    ),
    max_size=40,
)


@given(ACTS, _rules(), st.integers(0, 4))
def test_counts_and_removals_equal_those_of_looking_at_each_player(
    acts: list[tuple[int, str, int]], rule: Rule, dead: int
) -> None:
    table = _table(acts)
    table.drop(sorted(table.shards())[:dead])
    found = matching(table, BRAND, rule)
    people = {player: table.values(table.row(player) or 0) for player in table.player_ids}
    terms = rule.terms if isinstance(rule, And) else (rule,)
    members = [player for player, values in people.items() if _of_player(rule, values)]
    assert (found.matches, found.total) == (len(members), len(people))
    assert found.sample == members[:SAMPLE]
    assert found.terms == [
        TermCount(
            sum(_of_player(term, values) for values in people.values()),
            sum(
                all(_of_player(other, values) for n, other in enumerate(terms) if n != place)
                for values in people.values()
            )
            - len(members),
        )
        for place, term in enumerate(terms)
    ]


@given(ACTS, _rules())
def test_the_parts_of_two_owners_add_up(acts: list[tuple[int, str, int]], rule: Rule) -> None:
    halves = [[act for act in acts if act[0] % 2 == side] for side in range(2)]
    parts = [matching(_table(half), BRAND, rule) for half in halves]
    whole = matching(_table(acts), BRAND, rule)
    assert summed([part.terms for part in parts]) == whole.terms
