"""Rules of saved segments: in their canonical form, and with what other segments put into them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

from crm.domain.brands import Brand
from crm.domain.errors import InvalidRule
from crm.domain.rule_references import Known, by_id, resolve
from crm.domain.rule_terms import InSegment, OnList
from crm.domain.rule_text import parse, to_text
from crm.domain.rules import Rule, leaves_of
from crm.domain.saved_segments import LiveSegment
from crm.domain.segments import from_tree
from crm.services.segment_store import LiveSegments


class RuleForms(NamedTuple):
    """A rule as it is saved (segments named by id), and as shards evaluate it; both as text.

    One `on_lists` needs players of lists, which an owner may not have loaded yet.
    """

    saved: str
    whole: str
    on_lists: bool


class NamedRule(NamedTuple):
    """A rule that names segments by id, those `segments`, and the `whole` with them written out."""

    rule: Rule
    segments: Mapping[str, Known]
    whole: Rule


def named(rule: str | dict[str, Any], brand: Brand, live: Iterable[LiveSegment]) -> NamedRule:
    """Return a rule, given as text or as a tree, among a brand's live segments.

    Raises InvalidRule.
    """
    tree = _read(rule, brand)
    known = _known(live, brand) if _named(tree) else {}
    tree = by_id(tree, known)
    return NamedRule(tree, known, parse(to_text(resolve(tree, known)), brand))


async def named_in(rule: str | dict[str, Any], brand: Brand, store: LiveSegments) -> NamedRule:
    """Return a rule among the segments of a store, which is asked only if it names any."""
    return named(rule, brand, await store.active(brand.id) if names_segments(rule) else ())


def forms(
    rule: str | dict[str, Any], brand: Brand, live: Iterable[LiveSegment], itself: str | None = None
) -> RuleForms:
    """Return both forms of a new rule, given as text or as a tree, among a brand's live segments.

    Raises InvalidRule, also where it would make a segment that names `itself` go in a circle or
    grow too large.
    """
    tree = _read(rule, brand)
    known = _known(live, brand) if itself is not None or _named(tree) else {}
    tree = by_id(tree, known)
    whole = resolve(tree, known, itself)
    if itself in known:
        changed = {**known, itself: Known(itself, known[itself].name, tree)}
        for one in known.values():
            if one.rule is not None and one.id != itself and _named(one.rule):
                resolve(one.rule, changed, one.id)
    return RuleForms(to_text(tree), to_text(whole), bool(_named(whole)))


def names_segments(rule: str | dict[str, Any]) -> bool:
    """Whether a rule may name other segments; only then they need to be known."""
    return "segment" in str(rule) or "list" in str(rule)


async def written_out(rule: str | dict[str, Any], brand: Brand, store: LiveSegments) -> Rule:
    """Return a rule with what other segments put into it; raises InvalidRule."""
    return (await named_in(rule, brand, store)).whole


def whole(rule: str, brand: Brand, live: Iterable[LiveSegment]) -> str:
    """Return a saved rule as shards evaluate it; raises InvalidRule."""
    tree = _parsed(rule, brand)
    return to_text(resolve(tree, _known(live, brand))) if _named(tree) else rule


def names_in(rule: str, brand: Brand) -> set[str]:
    """Return the ids or names of the segments and lists that a saved rule names.

    None, if it cannot be read any more: a measure of the brand's own may have gone.
    """
    with suppress(InvalidRule):
        return _named(_parsed(rule, brand))
    return set()


def _read(rule: str | dict[str, Any], brand: Brand) -> Rule:
    return parse(rule, brand) if isinstance(rule, str) else from_tree(rule, brand)


def _named(rule: Rule) -> set[str]:
    found = set()
    for leaf in leaves_of(rule):
        match leaf:
            case InSegment(name) | OnList(name):
                found.add(name)
            case _:
                pass
    return found


def _known(live: Iterable[LiveSegment], brand: Brand) -> dict[str, Known]:
    """Return a brand's segments by id, without those whose rule cannot be read any more."""
    known: dict[str, Known] = {}
    for one in live:
        with suppress(InvalidRule):
            tree = None if one.rule is None else _parsed(one.rule, brand)
            known[one.id] = Known(one.id, one.name, tree)
    return known


@lru_cache(maxsize=4_096)
def _parsed(rule: str, brand: Brand) -> Rule:
    return parse(rule, brand)
