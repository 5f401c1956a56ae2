"""Who is in a single term of a rule: values over days, did, texts, lists."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
from numpy.typing import NDArray

from crm.domain import rules
from crm.domain.brands import Brand
from crm.domain.column_source import CodedTexts, Column, ColumnSource, Mask
from crm.domain.errors import InvalidRule
from crm.domain.features import DAYS_OF_WINDOW
from crm.domain.rule_terms import (
    MAX_DAYS,
    Dates,
    Did,
    DidNot,
    InSegment,
    LastDays,
    OnList,
    Over,
    Term,
    TextCompare,
    TextIn,
)
from crm.domain.rule_words import measure_of

# since when a player is known: his first act, or his registration if nothing was before it
KNOWN_SINCE = "first_activity_at"
DAY_US = 86_400_000_000
_NAMED = {days: window for window, days in DAYS_OF_WINDOW.items()}


def column_over(name: str, over: Over | None, table: ColumnSource) -> Column:
    """Return what a comparison reads; raises InvalidRule for days that are no longer kept."""
    if over is None:
        return table.column(name)
    named = named_window(name, over)
    return table.column(named) if named else table.over(name, *days_of(over, table.today))


def named_window(name: str, over: Over) -> str | None:
    """Return the feature that is the same value, if there is one: its column is ready."""
    window = _NAMED.get(over.days) if isinstance(over, LastDays) else None
    return f"{name}_{window}" if window else None


def days_of(over: Over, today: int) -> tuple[int, int]:
    """Return the first and last day of a window as ordinals; raises InvalidRule."""
    if isinstance(over, LastDays):
        return today - over.days + 1, today
    first, oldest = over.first.toordinal(), today - MAX_DAYS + 1
    if first < oldest:
        raise InvalidRule(
            f"days since {date.fromordinal(oldest)} are kept, the last {MAX_DAYS};"
            f" {over.first} is before that"
        )
    return first, over.last.toordinal()


def term_mask(rule: Term, brand: Brand, table: ColumnSource) -> Mask:
    """Return a new array that is true where a player is in the term."""
    match rule:
        case Did(event, over):
            did: Mask = _times(event, over, table) > 0
            return did
        case DidNot(event, over, newcomers):
            did_not: Mask = _times(event, over, table) == 0
            if newcomers == "excluded":
                did_not &= _known_before(over, brand, table)
            return did_not
        case TextCompare() | TextIn():
            return _text_mask(rule, table)
        case OnList(segment):
            return table.on_list(segment).copy()
        case InSegment(segment):
            raise InvalidRule(f'segment "{segment}" has not been looked up')


def _times(event: str, over: Over, table: ColumnSource) -> NDArray[np.int64]:
    return column_over(measure_of(event), over, table)[0]


def _known_before(over: Over, brand: Brand, table: ColumnSource) -> Mask:
    """Return who is known for the whole window: as many elapsed days, or since before its first."""
    since, missing = table.column(KNOWN_SINCE)
    if isinstance(over, Dates):
        known: Mask = since < rules.midnight(over.first, brand)
    else:
        known = since <= table.now_us - over.days * DAY_US
    return known if missing is None else known & ~missing


def _text_mask(rule: TextCompare | TextIn, table: ColumnSource) -> Mask:
    texts, missing = table.texts(rule.column)
    if isinstance(texts, CodedTexts):
        mask = np.array(_tested(rule, texts.labels), np.bool_)[texts.codes]
    else:
        mask = np.array(_tested(rule, texts), np.bool_)
    return mask if missing is None else mask & ~missing


def _tested(rule: TextCompare | TextIn, texts: Sequence[str]) -> list[bool]:
    """Test each text; a loop for each operator, for a call a text takes five times as long."""
    if isinstance(rule, TextIn):
        values = frozenset(rule.values)
        return [text in values for text in texts]
    value = rule.value
    match rule.op:
        case "=":
            return [text == value for text in texts]
        case "!=":
            return [text != value for text in texts]
        case "contains":
            return [value in text for text in texts]
        case "starts_with":
            return [text.startswith(value) for text in texts]
