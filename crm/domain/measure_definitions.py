"""Own measures as a brand's file states them: read, checked, and each fault named by its key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, cast, get_args

import msgspec

from crm.domain.errors import EventRefused, InvalidMeasure
from crm.domain.events import check_type
from crm.domain.features import DERIVED, DISTINCT, FEATURES, MEASURES, TRENDS, WINDOWS
from crm.domain.own_measures import MAX_DECIMALS, Aggregate, OwnMeasure, canonical
from crm.domain.personal import unstorable

MAX_MEASURES = 32
MAX_TYPES = 20
MAX_VALUES = 50
MAX_CHARS = 128
_KEYS = ("name", "event", "where", "property", "scale", "aggregate", "meaning")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_AGGREGATES: tuple[Aggregate, ...] = get_args(Aggregate)
_OF_A_PROPERTY = ("sum", "mean")
_SCALES = {10**decimals: decimals for decimals in range(MAX_DECIMALS + 1)}
_BUILT_IN = frozenset(
    one.name for ones in (MEASURES, DERIVED, DISTINCT, TRENDS) for one in ones
)  # fmt: skip


def parse_measures(raw: object) -> tuple[OwnMeasure, ...]:
    """Read a brand's `measures` (parsed YAML); raises InvalidMeasure naming measure and key."""
    if not isinstance(raw, list):
        raise InvalidMeasure("measures: a list; see docs/measures.md")
    if len(raw) > MAX_MEASURES:
        raise InvalidMeasure(f"measures: at most {MAX_MEASURES} a brand")
    found: dict[str, OwnMeasure] = {}
    for place, entry in enumerate(raw, 1):
        where = f"measure {place}"
        if isinstance(entry, dict) and isinstance(entry.get("name"), str):
            where = f"measure {entry['name'][:64]!r}"
        try:
            one = _measure(entry, found)
        except InvalidMeasure as error:
            raise InvalidMeasure(f"{where}: {error.message}") from None
        found[one.stem] = one
    return tuple(found.values())


def _measure(raw: object, before: Mapping[str, OwnMeasure]) -> OwnMeasure:
    if not isinstance(raw, dict):
        raise InvalidMeasure(f"an object with keys {', '.join(_KEYS)}")
    for key in raw:
        if key not in _KEYS:
            raise InvalidMeasure(f"unknown key {str(key)[:64]!r}; there are {', '.join(_KEYS)}")
    for key in ("name", "event", "aggregate", "meaning"):
        if key not in raw:
            raise InvalidMeasure(f"{key} is missing")
    aggregate = raw["aggregate"]
    if aggregate not in _AGGREGATES:
        raise InvalidMeasure(f"aggregate: one of {', '.join(_AGGREGATES)}")
    property_name, decimals = _property(raw, aggregate)
    one = OwnMeasure(
        name=_name(raw["name"]),
        event_types=_event_types(raw["event"]),
        aggregate=cast("Aggregate", aggregate),
        where=_where(raw.get("where", {})),
        property_name=property_name,
        decimals=decimals,
        meaning=_text(raw["meaning"], "meaning"),
    )
    if not FEATURES.keys().isdisjoint(f"{one.stem}_{window}" for window in WINDOWS):
        raise InvalidMeasure(f"name: {one.stem}_... is built in")
    if one.stem in before:
        raise InvalidMeasure(f"name: another measure makes {one.stem}_... too")
    return one


def _name(raw: object) -> str:
    if not isinstance(raw, str) or not _NAME.fullmatch(raw):
        raise InvalidMeasure("name: up to 40 of a-z, 0-9 and _, a letter first")
    if raw in _BUILT_IN:
        raise InvalidMeasure("name: a built-in measure has it")
    return raw


def _event_types(raw: object) -> tuple[str, ...]:
    types: list[Any] = raw if isinstance(raw, list) else [raw]
    if not 0 < len(types) <= MAX_TYPES:
        raise InvalidMeasure(f"event: a type, or a list of 1 to {MAX_TYPES}")
    for one in types:
        try:
            check_type(one)
        except EventRefused as error:
            raise InvalidMeasure(f"event: {error.message}") from None
    return tuple(dict.fromkeys(types))


def _property(raw: Mapping[str, object], aggregate: str) -> tuple[str | None, int]:
    """Return what is added, and how many of its decimals are kept."""
    if aggregate not in _OF_A_PROPERTY:
        for key in ("property", "scale"):
            if key in raw:
                raise InvalidMeasure(f"{key}: goes with {' or '.join(_OF_A_PROPERTY)}")
        return None, 0
    if "property" not in raw:
        raise InvalidMeasure(f"property is missing: {aggregate} of what?")
    scale = raw.get("scale", 1)
    if type(scale) is not int or scale not in _SCALES:
        raise InvalidMeasure(f"scale: a power of ten from 1 to {max(_SCALES)}")
    return _text(raw["property"], "property"), _SCALES[scale]


def _where(raw: object) -> tuple[tuple[str, tuple[str, ...]], ...]:
    if not isinstance(raw, dict):
        raise InvalidMeasure("where: an object of properties and their values")
    found = []
    for name, value in raw.items():
        _text(name, "where: a property's name")
        values = value if isinstance(value, list) else [value]
        if not 0 < len(values) <= MAX_VALUES:
            raise InvalidMeasure(f"where.{name}: a value, or a list of 1 to {MAX_VALUES}")
        found.append((name, tuple(dict.fromkeys(_value(f"where.{name}", one) for one in values))))
    return tuple(found)


def _value(where: str, raw: object) -> str:
    """Return one value as canonical JSON."""
    if isinstance(raw, str):
        raw = _text(raw, where)
    elif isinstance(raw, float):
        raw = Decimal(str(raw))
    json = None
    if isinstance(raw, bool | str):
        json = canonical(msgspec.json.encode(raw).decode())
    elif isinstance(raw, int) or (isinstance(raw, Decimal) and raw.is_finite()):
        json = canonical(str(raw))
    if json is None:
        raise InvalidMeasure(f"{where}: a text, a number, true or false")
    return json


def _text(raw: object, where: str) -> str:
    if not isinstance(raw, str) or not 0 < len(raw) <= MAX_CHARS or unstorable(raw):
        raise InvalidMeasure(f"{where}: a text of 1 to {MAX_CHARS} characters")
    return raw
