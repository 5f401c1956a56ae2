"""The names that a rule may say, what each stands for, and what is said of one that is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import date
from difflib import get_close_matches
from functools import lru_cache

from crm.domain.errors import InvalidRule
from crm.domain.feature_list import FeatureList
from crm.domain.features import Feature, Measure
from crm.domain.personal import unstorable
from crm.domain.rule_terms import (
    MAX_DAYS,
    MAX_NAME_CHARS,
    MAX_TEXT_BYTES,
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
    over_text,
)
from crm.domain.score_columns import RANK, SCORED
from crm.domain.scores import RANKS

DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
YEARS = range(1900, 2200)  # zones and the next day stay within what a datetime can hold
TEXT_COLUMNS = {"player_id": "player id", RANK: "churn rank"}  # by name, in words
_FIXED_TEXTS = {RANK: tuple(RANKS)}  # what a column can be, where that is known
TEXT_OPERATORS = "=, !=, in, contains, starts with"
SHOWN_CHARS = 64  # of a name that is not known: it may be anything
_COUNT = "_count"
_RESERVED = {"not"}  # `did not` says something else
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def near(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" with up to three names like this one, or nothing."""
    spelled = {one.lower(): one for one in known}
    found = get_close_matches(name[:SHOWN_CHARS].lower(), spelled, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(spelled[one] for one in found)}?" if found else ""


def feature_named(name: str, features: FeatureList) -> Feature:
    """Return the feature; raises InvalidRule with the nearest names that there are."""
    feature = features.features.get(name)
    if feature is not None:
        return feature
    if name in SCORED:
        return SCORED[name].feature
    if name in features.windowed:
        raise InvalidRule(
            f"{name} needs its days: {name}_30d, {name} in 14 days,"
            f" {name} from 2026-01-01 to 2026-01-31, or {name}_lifetime"
        )
    if name in TEXT_COLUMNS:
        raise InvalidRule(f"{name} is a text: it takes {TEXT_OPERATORS}")
    hint = near(name, [*features.features, *SCORED, *TEXT_COLUMNS])
    raise InvalidRule(f"there is no feature {name[:SHOWN_CHARS]!r}{hint}")


def feature_over(name: str, features: FeatureList) -> Feature:
    """Return what is read over a window that the rule states; raises InvalidRule with names."""
    defined = features.windowed.get(name)
    if defined is not None:
        return replace(defined.feature, name=name)
    stem = name.rpartition("_")[0]
    if name in features.features or name in SCORED or name in TEXT_COLUMNS:
        why = f": say {stem}, which has none in its name" if stem in features.windowed else ""
        raise InvalidRule(f"{name} takes no days{why}")
    known = near(name, features.windowed)
    raise InvalidRule(f"there is nothing {name[:SHOWN_CHARS]!r} that is counted by days{known}")


def subject(name: str, over: Over | None, features: FeatureList) -> Feature:
    """Return what a comparison reads: a feature, or a value over its own window."""
    return feature_named(name, features) if over is None else feature_over(name, features)


def event_named(name: str, features: FeatureList) -> str:
    """Return an event's name in the one form (bet for bet.placed); raises InvalidRule."""
    known, by_type = _events(features)
    if name in known:
        return name
    if name in by_type:
        return by_type[name]
    if name.removesuffix(_COUNT) in known:
        return name.removesuffix(_COUNT)
    hint = near(name, [*known, *by_type])
    raise InvalidRule(f"no event {name[:SHOWN_CHARS]!r} is counted{hint}")


def event_spellings(features: FeatureList) -> tuple[str, ...]:
    """Return all that `event_named` takes: names, event types, and names of counts."""
    known, by_type = _events(features)
    return (*known, *by_type, *map(measure_of, known))


def measure_of(event: str) -> str:
    """Return the name of the measure that counts an event."""
    return event + _COUNT


def check_over(over: Over) -> None:
    """Raise InvalidRule for days that no table can answer."""
    match over:
        case LastDays(days):
            if not 1 <= days <= MAX_DAYS:
                raise InvalidRule(f"1 to {MAX_DAYS} days")
        case Dates(first, last):
            if not {first.year, last.year} <= set(YEARS):
                raise InvalidRule(f"years from {YEARS.start} to {YEARS.stop - 1}")
            if last < first:
                raise InvalidRule(f"{last} is before {first}: the earlier day comes first")
            if (last - first).days >= MAX_DAYS:
                raise InvalidRule(f"at most {MAX_DAYS} days, both ends included")


def date_named(text: str) -> date:
    """Return a day; raises InvalidRule."""
    if DATE.fullmatch(text):
        with suppress(ValueError):
            return date.fromisoformat(text)
    raise InvalidRule(f"{text[:SHOWN_CHARS]!r} is no day: write it as 2026-01-31")


def term(rule: Term, features: FeatureList) -> Term:
    """Return `rule` in the one form in which it is kept; raises InvalidRule."""
    match rule:
        case Did(event, over):
            check_over(over)
            return Did(event_named(event, features), over)
        case DidNot(event, over, newcomers):
            check_over(over)
            return DidNot(event_named(event, features), over, newcomers)
        case TextCompare(column, op, value):
            check_text(column, value, whole=op in {"=", "!="})
        case TextIn(column, values):
            if not values:
                raise InvalidRule(f"{column} in (): at least one value")
            for value in values:
                check_text(column, value, whole=True)
        case InSegment(name) | OnList(name):
            check_name(name)
    return rule


def check_text(column: str, value: str, *, whole: bool) -> None:
    """Raise InvalidRule for a column that is no text, or a text that nothing can equal.

    `whole`: it is to be all of the column's text, not a part of it.
    """
    if column not in TEXT_COLUMNS:
        raise InvalidRule(
            f"{column[:SHOWN_CHARS]!r} is no text; texts are {', '.join(TEXT_COLUMNS)}"
        )
    if not 0 < len(value.encode(errors="surrogatepass")) <= MAX_TEXT_BYTES or _odd(value):
        raise InvalidRule(f"{column} is a text of 1 to {MAX_TEXT_BYTES} bytes in one line")
    fixed = _FIXED_TEXTS.get(column)
    if whole and fixed and value not in fixed:
        raise InvalidRule(f"{column} is one of {', '.join(fixed)}{near(value, fixed)}")


def check_name(name: str) -> None:
    """Raise InvalidRule for what can be no segment's name or id."""
    if not 0 < len(name) <= MAX_NAME_CHARS or _odd(name):
        raise InvalidRule(f"a segment's name or id: 1 to {MAX_NAME_CHARS} characters in one line")


def readings(event: str, over: Over) -> str:
    """What is said where a rule does not say which reading of "did not" it means."""
    text = f"did not {event} {over_text(over)}"
    young = f"{over.days} days" if isinstance(over, LastDays) else "these days"
    return (
        f'say what of players who are younger than {young}: "{text}, newcomers included" counts'
        f' them, for they have not either; "{text}, newcomers excluded" leaves them out, for they'
        " cannot be judged yet"
    )


def _odd(text: str) -> bool:
    return unstorable(text) or _CONTROL.search(text) is not None


@lru_cache(maxsize=64)
def _events(features: FeatureList) -> tuple[dict[str, Measure], dict[str, str]]:
    """Return what counts each event by its name, and the names by event type."""
    known = {
        one.name.removesuffix(_COUNT): one
        for one in features.measures
        if one.name.endswith(_COUNT) and one.name in features.windowed
    }
    known = {name: one for name, one in known.items() if name not in _RESERVED}
    by_type: dict[str, str] = {}
    filtered = {own.stem for own in features.own if own.where}
    for name, one in known.items():
        if _plain(one) and one.name not in filtered:
            by_type.setdefault(one.event_types[0], name)
    return known, by_type


def _plain(one: Measure) -> bool:
    """Whether a measure counts each event of one type, whatever its properties."""
    narrowed = one.result or one.product or one.method or one.night or one.weekend
    return len(one.event_types) == 1 and not narrowed
