"""Why a player is in a rule that names other segments: each by its name, its terms below."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import UNSET
from msgspec.structs import replace

from crm.domain.rule_references import found
from crm.domain.rule_terms import InSegment, OnList
from crm.domain.rule_text import to_text
from crm.domain.rules import And, Not, Or, Rule
from crm.domain.saved_segments import Why
from crm.services.segment_rules import NamedRule


def with_names(named: NamedRule, whole: Why) -> Why:
    """Return why a rule holds as it is written itself, by why the whole of it does.

    What joins others, and a segment, holds as its conditions do in `whole`.
    """
    conditions = {one.text: one for one in _conditions(whole)}

    def of(rule: Rule) -> Why:
        match rule:
            case And(terms):
                parts = [of(term) for term in terms]
                return Why("and", all(part.holds for part in parts), terms=parts)
            case Or(terms):
                parts = [of(term) for term in terms]
                return Why("or", any(part.holds for part in parts), terms=parts)
            case Not(term):
                part = of(term)
                return Why("not", not part.holds, terms=[part])
            case InSegment(name) | OnList(name):
                return of_segment(name)
            case _:
                return conditions[to_text(rule)]

    def of_segment(name: str) -> Why:
        known = found(name, named.segments)
        assert known is not None  # noqa: S101 - the whole was made of it
        if known.rule is None:
            on_list = conditions[to_text(OnList(known.id))]
            text = to_text(OnList(known.name))
            return replace(on_list, text=text, segment=known.id, name=known.name)
        inner, text = of(known.rule), to_text(InSegment(known.name))
        return Why("segment", inner.holds, [inner], text, segment=known.id, name=known.name)

    return of(named.rule)


def _conditions(node: Why) -> Iterator[Why]:
    if node.terms is UNSET:
        yield node
        return
    for term in node.terms:
        yield from _conditions(term)
