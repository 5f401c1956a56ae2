"""Import mappings: which columns of a file become which fields of which events.

A mapping is read strictly (`parse_mapping`), then bound to the columns that a file really has
(`BoundMapping`); only then are rows turned into events. Values in a mapping are expressions when
they are texts, constants when they are numbers, true, false or `{is: value}`: docs/imports.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from crm.domain.columns import Column, parse_column
from crm.domain.errors import InvalidMapping
from crm.domain.expressions import (
    Kind,
)

FormatKind = Literal["csv", "whitespace", "jsonl", "parquet"]
_FORMATS = ("csv", "whitespace", "jsonl", "parquet")
_ENCODINGS = ("utf-8", "latin-1", "cp1252", "ascii")  # a line end is one byte in all of them
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")

FIELDS: dict[str, Kind] = {
    "event_id": "text",
    "type": "text",
    "player_id": "text",
    "brand": "text",
    "occurred_at": "time",
    "known_at": "time",
    "amount": "decimal",
    "currency": "text",
    "backfill": "boolean",
    "when": "boolean",
}
_TOP_KEYS = {
    "source", "format", "columns", "identity", "filter", "player_id", "brand", "occurred_at",
    "known_at", "currency", "backfill", "events",
}  # fmt: skip
_SHARED = ("occurred_at", "known_at", "currency", "backfill")
_EVENT_KEYS = {"name", "when", "type", "event_id", "amount", "properties", *_SHARED}


@dataclass(frozen=True)
class Format:
    """How the file is written; `columns` names them where the file has no header line."""

    kind: FormatKind
    delimiter: str = ","
    quote: str = '"'
    encoding: str = "utf-8"
    columns: tuple[str, ...] | None = None

    @property
    def has_header(self) -> bool:
        """Whether line 1 names the columns."""
        return self.kind in ("csv", "whitespace") and self.columns is None


@dataclass(frozen=True)
class EventRule:
    """One event of a row: its name within the row, and a raw value per field."""

    name: str
    fields: dict[str, object]
    properties: object


@dataclass(frozen=True)
class ImportMapping:
    """A mapping as written; `identity` lists the columns that make up a row's hash (None: all)."""

    source: str
    format: Format
    columns: dict[str, Column]
    player_id: object
    brand: object
    filter: object
    identity: tuple[str, ...] | None
    events: tuple[EventRule, ...]

    @property
    def constant_brand(self) -> str | None:
        """The brand of all events, if it does not depend on the row."""
        value = self.brand.get("is") if isinstance(self.brand, dict) else None
        return value if isinstance(value, str) else None

    def with_brand(self, brand: str) -> ImportMapping:
        """Return the same mapping for another brand."""
        return replace(self, brand={"is": brand})


def parse_mapping(raw: object) -> ImportMapping:
    """Read a mapping (parsed YAML); raises InvalidMapping naming the key."""
    top = _object(raw, "the mapping", _TOP_KEYS)
    for key in ("source", "format", "player_id", "occurred_at", "events"):
        if key not in top and not (key == "occurred_at" and _each_has(top, key)):
            raise InvalidMapping(f"{key} is missing")
    source = top["source"]
    if not isinstance(source, str) or not _NAME.fullmatch(source):
        raise InvalidMapping("source: a short name in lower case; it is part of event ids")
    columns = top.get("columns", {})
    if not isinstance(columns, dict):
        raise InvalidMapping("columns: an object of column names and types")
    identity = top.get("identity")
    return ImportMapping(
        source=source,
        format=_parse_format(top["format"]),
        columns={str(name): parse_column(str(name), value) for name, value in columns.items()},
        player_id=top["player_id"],
        brand=top.get("brand"),
        filter=top.get("filter"),
        identity=None if identity is None else tuple(_texts(identity, "identity")),
        events=_parse_events(top),
    )


def _each_has(top: dict[str, Any], key: str) -> bool:
    events = top.get("events")
    return isinstance(events, list) and all(isinstance(e, dict) and key in e for e in events)


def _parse_format(raw: object) -> Format:
    options = {"kind": raw} if isinstance(raw, str) else raw
    keys = {"kind", "delimiter", "quote", "encoding", "columns"}
    options = _object(options, "format", keys)
    kind = options.get("kind")
    if kind not in _FORMATS:
        raise InvalidMapping(f"format.kind: one of {', '.join(_FORMATS)}")
    delimiter, quote = options.get("delimiter", ","), options.get("quote", '"')
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in "\r\n":
        raise InvalidMapping("format.delimiter: one character")
    if not isinstance(quote, str) or len(quote) > 1:
        raise InvalidMapping('format.quote: one character, or "" for none')
    encoding = options.get("encoding", "utf-8")
    if encoding not in _ENCODINGS:
        raise InvalidMapping(f"format.encoding: one of {', '.join(_ENCODINGS)}")
    columns = options.get("columns")
    if columns is not None and kind not in ("csv", "whitespace"):
        raise InvalidMapping("format.columns: only for csv and whitespace files without a header")
    return Format(
        kind=cast("FormatKind", kind),
        delimiter=delimiter,
        quote=quote,
        encoding=encoding,
        columns=None if columns is None else tuple(_texts(columns, "format.columns")),
    )


def _parse_events(top: dict[str, Any]) -> tuple[EventRule, ...]:
    raw = top["events"]
    if not isinstance(raw, list) or not raw:
        raise InvalidMapping("events: a list of at least one event")
    rules = []
    for index, entry in enumerate(raw):
        where = f"events[{index}]"
        event = _object(entry, where, _EVENT_KEYS)
        name = event.get("name", str(index))
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidMapping(f"{where}.name: a short name in lower case")
        if "type" not in event:
            raise InvalidMapping(f"{where}.type is missing")
        shared = {key: top[key] for key in _SHARED if key in top}
        own = {key: event[key] for key in event if key in FIELDS}
        rules.append(EventRule(name, shared | own, event.get("properties")))
    if len({rule.name for rule in rules}) < len(rules):
        raise InvalidMapping("events: two have the same name, which is part of their ids")
    return tuple(rules)


def _object(raw: object, where: str, keys: set[str]) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise InvalidMapping(f"{where}: an object with keys {', '.join(sorted(keys))}")
    for key in raw:
        if key not in keys:
            raise InvalidMapping(
                f"{where}: unknown key {key!r}; there are {', '.join(sorted(keys))}"
            )
    return raw


def _texts(raw: object, where: str) -> list[str]:
    if not isinstance(raw, list) or not raw or not all(isinstance(text, str) for text in raw):
        raise InvalidMapping(f"{where}: a list of names")
    if len(set(raw)) < len(raw):
        raise InvalidMapping(f"{where}: a name stands twice")
    return raw
