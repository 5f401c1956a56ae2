"""Segments that name other segments: looked up, held against cycles, and put in their places."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from crm.domain import rules
from crm.domain.errors import InvalidRule
from crm.domain.rule_terms import InSegment, OnList
from crm.domain.rule_text import bounded
from crm.domain.rule_words import SHOWN_CHARS, near
from crm.domain.rules import And, Leaf, Not, Or, Rule


@dataclass(frozen=True)
class Known:
    """A segment that a rule may name, by its id or its name; a list of players has no rule."""

    id: str
    name: str
    rule: Rule | None


def references(rule: Rule) -> set[str]:
    """Return the names or ids of the segments that the rule itself names."""
    return {leaf.segment for leaf in rules.leaves_of(rule) if isinstance(leaf, InSegment)}


def by_id(rule: Rule, segments: Mapping[str, Known]) -> Rule:
    """Return the rule with each segment named by its id: so it survives that one is renamed.

    `segments` are by id; raises InvalidRule for one that is not there, with names like it.
    """
    find = _finder(segments)
    return _with_leaves(
        rule, lambda leaf: InSegment(find(leaf.segment).id) if isinstance(leaf, InSegment) else leaf
    )


def resolve(rule: Rule, segments: Mapping[str, Known], itself: str | None = None) -> Rule:
    """Return the rule without references: the rules of segments stand in their places, lists stay.

    `segments` are by id. `itself` is the id of the segment whose new rule this is, if it has one.
    Raises InvalidRule for a segment that is not there, for a cycle (with its path), and where the
    whole would be too large, too deep or too long.
    """
    if itself is None:
        start = Known("", "this rule", rule)
    else:
        name = segments[itself].name if itself in segments else itself
        start = Known(itself, name, rule)
        segments = {**segments, itself: start}
    find = _finder(segments)
    done: dict[str, Rule] = {}

    def put(leaf: Leaf) -> Rule:
        match leaf:
            case InSegment(name) | OnList(name):
                known = find(name)
                return OnList(known.id) if known.rule is None else done[known.id]
            case _:
                return leaf

    for one in _in_order(start, find):
        if one.rule is not None:
            done[one.id] = _bounded(_with_leaves(one.rule, put), one)
    return done[start.id]


def _in_order(start: Known, find: Callable[[str], Known]) -> list[Known]:
    """Return all that `start` needs, each after what it needs itself; raises InvalidRule."""
    found: dict[str, Known] = {}
    path: dict[str, tuple[Known, Iterator[Known]]] = {start.id: (start, _needed(start, find))}
    while path:
        one, needs = next(reversed(path.values()))
        need = next(needs, None)
        if need is None:
            path.pop(one.id)
            found[one.id] = one
        elif need.id in path:
            names = [each.name for each, _ in path.values()]
            circle = [*names[list(path).index(need.id) :], need.name]
            raise InvalidRule(
                "segments go in a circle: " + " -> ".join(f'"{name}"' for name in circle)
            )
        elif need.id not in found:
            path[need.id] = (need, _needed(need, find))
    return list(found.values())


def _needed(one: Known, find: Callable[[str], Known]) -> Iterator[Known]:
    """Return what a segment names itself, in the order of the text."""
    for leaf in rules.leaves_of(one.rule) if one.rule is not None else ():
        if isinstance(leaf, InSegment):
            yield find(leaf.segment)
        elif isinstance(leaf, OnList):
            known = find(leaf.list)
            if known.rule is not None:
                raise InvalidRule(f'"{known.name}" is no list: write segment "{known.name}"')


def found(name: str, segments: Mapping[str, Known]) -> Known | None:
    """Return the segment of `segments` (by id) that has this id, or else this name."""
    by_name = (one for one in segments.values() if one.name == name)
    return segments.get(name) or next(by_name, None)


def _finder(segments: Mapping[str, Known]) -> Callable[[str], Known]:
    names = {one.name: one for one in segments.values()}

    def find(name: str) -> Known:
        known = segments.get(name) or names.get(name)
        if known is None:
            raise InvalidRule(f'there is no segment "{name[:SHOWN_CHARS]}"{near(name, names)}')
        return known

    return find


def _with_leaves(rule: Rule, put: Callable[[Leaf], Rule]) -> Rule:
    match rule:
        case And(terms) | Or(terms):
            return rules.joined(type(rule), tuple(_with_leaves(one, put) for one in terms))
        case Not(one):
            return Not(_with_leaves(one, put))
        case _:
            return put(rule)


def _bounded(rule: Rule, one: Known) -> Rule:
    """Return what `one` comes to, within the bounds of every rule."""
    whole = f'with what its segments hold, "{one.name}" is too large'
    if sum(map(rules.terms_of, rules.leaves_of(rule))) > rules.MAX_TERMS:
        raise InvalidRule(f"{whole}: {rules.too_many()}")
    if _depth(rule) > rules.MAX_DEPTH:
        raise InvalidRule(f"{whole}: {rules.too_deep()}")
    try:
        return bounded(rule)
    except InvalidRule as error:
        raise InvalidRule(f"{whole}: {error.message}") from None


def _depth(rule: Rule) -> int:
    match rule:
        case And(terms) | Or(terms):
            return 1 + max(map(_depth, terms))
        case Not(one):
            return 1 + _depth(one)
        case _:
            return 1
