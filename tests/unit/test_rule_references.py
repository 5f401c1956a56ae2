"""Segments as terms: looked up by id or name, refused in circles, and bounded as a whole."""

from __future__ import annotations

import pytest

from crm.domain.errors import InvalidRule
from crm.domain.rule_references import Known, by_id, references, resolve
from crm.domain.rule_text import parse, to_text
from crm.domain.segments import compile_mask
from tests.support.builders import a_brand
from tests.support.columns import ListColumns


def known(**rules: str | None) -> dict[str, Known]:
    """Segments by id, named by it in capitals; None is a list."""
    return {
        name: Known(name, name.upper(), None if rule is None else parse(rule))
        for name, rule in rules.items()
    }


def resolved(text: str, itself: str | None = None, **rules: str | None) -> str:
    return to_text(resolve(parse(text), known(**rules), itself))


def test_a_segments_rule_stands_in_its_place() -> None:
    active = {"active": "bet_count_30d > 0 or deposit_count_30d > 0"}
    assert resolved('segment "active"', **active) == active["active"]
    assert resolved('not segment "ACTIVE" and bet_count_7d = 0', **active) == (
        "not (bet_count_30d > 0 or deposit_count_30d > 0) and bet_count_7d = 0"
    )
    assert resolved('exists first_bet_at or segment "active"', **active) == (
        "exists first_bet_at or bet_count_30d > 0 or deposit_count_30d > 0"
    )


def test_segments_are_followed_through_others_down_to_lists() -> None:
    segments = {
        "a": 'segment "b" and segment "c"',
        "b": 'segment "c" or bet_count_7d = 1',
        "c": 'segment "vip"',
        "vip": None,
    }
    assert resolved('segment "a"', **segments) == (
        '(list "vip" or bet_count_7d = 1) and list "vip"'
    )
    assert references(parse('segment "a" and not (segment "b" or list "vip")')) == {"a", "b"}


def test_a_rule_without_references_is_itself() -> None:
    text = "bet_count in 14 days > 3 and player_id = 'a'"
    assert resolve(parse(text), {}) == parse(text)


def test_an_id_goes_before_a_name() -> None:
    segments = {
        "x": Known("x", "y", parse("bet_count_7d = 1")),
        "y": Known("y", "x", parse("bet_count_7d = 2")),
    }
    assert to_text(resolve(parse('segment "x"'), segments)) == "bet_count_7d = 1"


def test_names_become_ids() -> None:
    segments = {"s-1": Known("s-1", "High rollers", parse("bet_count_7d = 1"))}
    rule = parse('not segment "High rollers" and exists first_bet_at')
    assert to_text(by_id(rule, segments)) == 'not (segment "s-1") and exists first_bet_at'
    assert by_id(by_id(rule, segments), segments) == by_id(rule, segments)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('segment "High roller"', 'no segment "High roller"; did you mean High rollers'),
        ('segment "qqq"', 'there is no segment "qqq"$'),
        ('list "qqq"', 'there is no segment "qqq"'),
        ('list "s-1"', '"High rollers" is no list: write segment "High rollers"'),
    ],
)
def test_an_unknown_segment_is_refused_with_names_like_it(text: str, says: str) -> None:
    segments = {"s-1": Known("s-1", "High rollers", parse("bet_count_7d = 1"))}
    with pytest.raises(InvalidRule, match=says):
        resolve(parse(text), segments)


@pytest.mark.parametrize(
    ("rules", "itself", "path"),
    [
        ({"a": 'segment "a"'}, None, '"A" -> "A"'),
        ({"a": 'segment "b"', "b": 'not segment "A"'}, None, '"A" -> "B" -> "A"'),
        (
            {"a": 'exists first_bet_at or segment "b"', "b": 'segment "c"', "c": 'segment "b"'},
            None,
            '"B" -> "C" -> "B"',
        ),
        ({"a": "exists first_bet_at", "b": 'segment "a"'}, "b", '"B" -> "A" -> "B"'),
    ],
)
def test_a_circle_is_refused_with_its_path(
    rules: dict[str, str | None], itself: str | None, path: str
) -> None:
    segments = known(**rules)
    if itself:  # its new rule names what names it
        segments["a"] = Known("a", "A", parse('segment "b"'))
    with pytest.raises(InvalidRule) as refused:
        resolve(parse('segment "a"'), segments, itself)
    assert refused.value.message == f"segments go in a circle: {path}"


def test_a_chain_of_any_length_is_followed() -> None:
    segments = {str(n): Known(str(n), f"n{n}", parse(f'segment "{n + 1}"')) for n in range(5_000)}
    segments["5000"] = Known("5000", "last", parse("bet_count_7d = 1"))
    assert to_text(resolve(parse('segment "0"'), segments)) == "bet_count_7d = 1"
    segments["5000"] = Known("5000", "last", parse('segment "0"'))
    with pytest.raises(InvalidRule, match="circle"):
        resolve(parse('segment "0"'), segments)


def test_the_whole_is_bounded_in_terms_depth_and_length() -> None:
    doubled = {f"s{n}": f'segment "s{n + 1}" and segment "s{n + 1}"' for n in range(40)}
    with pytest.raises(InvalidRule, match='"S32" is too large: the rule has over 200 terms'):
        resolved('segment "s0"', **doubled, s40="bet_count_7d = 1")
    nested = {f"s{n}": f'not segment "s{n + 1}"' for n in range(60)}
    with pytest.raises(InvalidRule, match="nested over 50 deep"):
        resolved('segment "s0"', **nested, s60="bet_count_7d = 1")
    assert resolved('segment "s11"', **nested, s60="bet_count_7d = 1").count("not") == 49
    long = " or ".join(f'player_id = "{"x" * 120}{n}"' for n in range(50))
    with pytest.raises(InvalidRule, match="longer than 10000 bytes"):
        resolved('segment "long" and segment "long"', long=long)


def test_a_mask_asks_for_the_players_of_a_list_and_refuses_what_is_not_looked_up() -> None:
    table = ListColumns({"bet_count_7d": [1, 1, 0]}, lists={"vip": [True, False, True]})
    rule = parse('segment "VIP" and bet_count_7d > 0')
    with pytest.raises(InvalidRule, match='segment "VIP" has not been looked up'):
        compile_mask(rule, a_brand(), table, 3)
    found = compile_mask(resolve(rule, known(vip=None)), a_brand(), table, 3)
    assert found.tolist() == [True, False, False]
