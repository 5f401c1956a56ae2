"""Import mappings: which columns of a file become which fields of which events.

A mapping is read strictly (`parse_mapping`), then bound to the columns that a file really has
(`bind`); only then are rows turned into events. Values in a mapping are expressions when they are
texts, and constants when they are numbers, true, false or `{is: value}`. docs/imports.md has all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal, cast

from crm.domain.columns import Cell, Column, parse_column
from crm.domain.errors import EventRefused, InvalidMapping
from crm.domain.events import IncomingEvent
from crm.domain.expressions import (
    Expression,
    Kind,
    compile_expression,
    constant,
    listed,
)

ROW_HASH = "row_hash"
FormatKind = Literal["csv", "whitespace", "jsonl", "parquet"]
_FORMATS = ("csv", "whitespace", "jsonl", "parquet")
_ENCODINGS = ("utf-8", "latin-1", "cp1252", "ascii")  # a line end is one byte in all of them
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_SHEET_ERROR = re.compile(
    r"#(NAME\?|REF!|VALUE!|DIV/0!|N/A|NUM!|NULL!|SPILL!|CALC!|FIELD!|BLOCKED!)"
)
_SCIENTIFIC = re.compile(r"[+-]?\d+([.,]\d+)?[eE][+-]?\d+")

_FIELDS: dict[str, Kind] = {
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
        own = {key: event[key] for key in event if key in _FIELDS}
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


def looks_damaged(player_id: str) -> bool:
    """Whether a spreadsheet may have turned the id into a number (`1.21314E+15`)."""
    return bool(_SCIENTIFIC.fullmatch(player_id))


class BoundMapping:
    """A mapping compiled for a file's columns: rows of cells become events.

    Rows are the cells in the order of `columns` as given to `bind`.
    """

    def __init__(self, mapping: ImportMapping, columns: Sequence[str]) -> None:
        self._mapping = mapping
        self._file_columns = list(columns)
        self._check_declared()
        kinds: dict[str, Kind] = dict.fromkeys(columns, "text")
        kinds |= {name: column.kind for name, column in mapping.columns.items()}
        kinds[ROW_HASH] = "text"
        self._places = {name: (place, kind) for place, (name, kind) in enumerate(kinds.items())}
        self._player_id = self._compile("player_id", mapping.player_id, "text")
        self._brand = self._compile("brand", mapping.brand, "text")
        self._filter = (
            None if mapping.filter is None else self._compile("filter", mapping.filter, "boolean")
        )
        self._events = [self._event(i, rule) for i, rule in enumerate(mapping.events)]
        self.identity = self._identity_places()
        parts = [self._player_id, self._brand, *(x for event in self._events for x in event.parts)]
        used = {name for part in parts for name in part.columns}
        self.needs_hash = ROW_HASH in used
        first = self._filter.columns if self._filter is not None else frozenset()
        self._filter_readers = self._readers(first - {ROW_HASH})
        self._readers_after = self._readers(used - first - {ROW_HASH})

    def events(self, cells: Sequence[Cell], row_hash: str = "") -> list[IncomingEvent]:
        """Return the row's events, none if the mapping filters it; raises EventRefused.

        Call it within `exact_arithmetic`. `cells` are the file's columns; all events of a row are
        of one player.
        """
        row: list[Any] = [None] * len(self._places)
        row[-1] = row_hash
        for place, read in self._filter_readers:
            row[place] = read(cells[place])
        if self._filter is not None and not _value(self._filter, row, "filter"):
            return []
        for place, read in self._readers_after:
            row[place] = read(cells[place])
        player_id = _value(self._player_id, row, "player_id")
        if not player_id:
            raise EventRefused("missing_field", "the row has no player id", "player_id")
        if player_id[0] == "#" and _SHEET_ERROR.fullmatch(player_id):
            raise EventRefused(
                "spreadsheet_error", "the player id is a spreadsheet's error value", "player_id"
            )
        brand = _value(self._brand, row, "brand")
        made = [event.make(row, player_id, brand) for event in self._events]
        return [event for event in made if event is not None]

    def identity_cells(self, cells: Sequence[Cell]) -> list[Cell]:
        """Return the cells that make the row what it is, in an order free of the file's."""
        return [cells[place] for place in self.identity]

    def _check_declared(self) -> None:
        if len(set(self._file_columns)) < len(self._file_columns):
            twice = next(c for c in self._file_columns if self._file_columns.count(c) > 1)
            raise InvalidMapping(f"the file has two columns {twice!r}")
        for name, column in self._mapping.columns.items():
            if name not in self._file_columns and not column.optional:
                raise InvalidMapping(
                    f"columns.{name}: the file has no such column; it has"
                    f" {listed(self._file_columns)}"
                )
        if ROW_HASH in self._file_columns:
            raise InvalidMapping(f"the name {ROW_HASH!r} is taken; rename the file's column")

    def _identity_places(self) -> list[int]:
        names = self._mapping.identity or self._file_columns
        for name in names:
            if name not in self._file_columns:
                raise InvalidMapping(
                    f"identity: there is no column {name!r}; there are {listed(self._file_columns)}"
                )
        return [self._file_columns.index(name) for name in sorted(names)]

    def _readers(self, names: Iterable[str]) -> list[tuple[int, Any]]:
        """Return (place, reader) for the columns that the file has."""
        readers = []
        for name in names:
            place = self._places[name][0]
            if place < len(self._file_columns):
                column = self._mapping.columns.get(name) or Column(name)
                readers.append((place, column.reader()))
        return readers

    def _compile(self, where: str, raw: object, wanted: Kind) -> Expression:
        try:
            expression = self._expression(raw)
        except InvalidMapping as error:
            raise InvalidMapping(f"{where}: {error.message}") from error
        if expression.kind not in (wanted, None):
            raise InvalidMapping(f"{where}: is a {expression.kind}, and a {wanted} is wanted")
        return expression

    def _expression(self, raw: object) -> Expression:
        if raw is None:
            return Expression("None", None, frozenset(), lambda _row: None)
        if isinstance(raw, str):
            return compile_expression(raw, self._places)
        if isinstance(raw, dict) and set(raw) == {"is"}:
            return constant(raw["is"])
        return constant(raw)

    def _event(self, index: int, rule: EventRule) -> _BoundEvent:
        where = f"events[{index}]"
        fields = dict(rule.fields)
        fields.setdefault("event_id", f"row_hash + ':{rule.name}'")
        if fields.get("known_at") == "occurred_at":
            fields["known_at"] = fields["occurred_at"]
        compiled = {
            name: self._compile(f"{where}.{name}", raw, _FIELDS[name])
            for name, raw in fields.items()
        }
        return _BoundEvent(compiled, *self._properties(f"{where}.properties", rule.properties))

    def _properties(
        self, where: str, raw: object
    ) -> tuple[dict[str, Expression], Expression | None]:
        """Return an expression per property, or one for all of them (of type json)."""
        if raw is None:
            return {}, None
        if isinstance(raw, str):
            return {}, self._compile(where, raw, "json")
        if not isinstance(raw, dict):
            raise InvalidMapping(f"{where}: an object of names and values, or json(column)")
        return {
            str(name): self._property(f"{where}.{name}", value) for name, value in raw.items()
        }, None

    def _property(self, where: str, raw: object) -> Expression:
        try:
            return self._expression(raw)
        except InvalidMapping as error:
            raise InvalidMapping(f"{where}: {error.message}") from error


class _BoundEvent:
    """One event rule, compiled."""

    def __init__(
        self,
        fields: dict[str, Expression],
        properties: dict[str, Expression],
        all_properties: Expression | None,
    ) -> None:
        self._when = fields.pop("when", None)
        self._fields = list(fields.items())
        self._properties = list(properties.items())
        self._all = all_properties
        self.parts = [*fields.values(), *properties.values()]
        self.parts += [part for part in (self._when, all_properties) if part is not None]

    def make(self, row: list[Any], player_id: str, brand: str | None) -> IncomingEvent | None:
        """Return the event of this row, or None where `when` is false."""
        if self._when is not None and not _value(self._when, row, "when"):
            return None
        values = {name: _value(part, row, name) for name, part in self._fields}
        for name in ("event_id", "type", "occurred_at"):
            if values[name] is None:
                raise EventRefused("missing_field", f"the row gives no {name}", name)
        values["backfill"] = bool(values.get("backfill"))
        return IncomingEvent(
            player_id=player_id, brand=brand or "", properties=self._stated(row), **values
        )

    def _stated(self, row: list[Any]) -> dict[str, Any] | None:
        if self._all is not None:
            value = _value(self._all, row, "properties")
            if value is not None and not isinstance(value, dict):
                raise EventRefused("invalid_field", "properties are an object", "properties")
            return value
        stated = {
            name: _plain(value)
            for name, part in self._properties
            if (value := _value(part, row, name)) is not None
        }
        return stated or None


def _value(part: Expression, row: list[Any], field: str) -> Any:  # noqa: ANN401
    try:
        return part.evaluate(row)
    except TypeError:
        # types were checked before: only a missing value can be in the way
        raise EventRefused(
            "missing_field", f"{field} needs a value that is missing", field
        ) from None
    except ArithmeticError:
        raise EventRefused("invalid_number", f"{field} cannot be computed exactly", field) from None


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Return a property's value as JSON has it: whole numbers as integers, times as text."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value


def bind(mapping: ImportMapping, columns: Sequence[str]) -> BoundMapping:
    """Compile `mapping` for a file with these columns; raises InvalidMapping."""
    return BoundMapping(mapping, columns)
