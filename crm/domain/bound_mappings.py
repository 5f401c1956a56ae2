"""A mapping compiled for the columns of a file: rows of cells become events."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from crm.domain.columns import Cell, Column
from crm.domain.errors import EventRefused, InvalidMapping
from crm.domain.events import IncomingEvent, check_type
from crm.domain.expressions import Expression, Kind, compile_expression, constant, listed
from crm.domain.mappings import FIELDS, EventRule, ImportMapping

ROW_HASH = "row_hash"
_SHEET_ERROR = re.compile(
    r"#(NAME\?|REF!|VALUE!|DIV/0!|N/A|NUM!|NULL!|SPILL!|CALC!|FIELD!|BLOCKED!)"
)
_SCIENTIFIC = re.compile(r"[+-]?\d+([.,]\d+)?[eE][+-]?\d+")


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

    def identity_cells(self, cells: Sequence[Cell]) -> list[tuple[str, Cell]]:
        """Return what makes the row what it is: column and cell, in an order free of the file's.

        Missing cells are left out: a key that other rows of JSON lines have changes nothing here.
        """
        return [(name, cell) for name, place in self.identity if (cell := cells[place]) is not None]

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

    def _identity_places(self) -> list[tuple[str, int]]:
        names = self._mapping.identity or self._file_columns
        for name in names:
            if name not in self._file_columns:
                raise InvalidMapping(
                    f"identity: there is no column {name!r}; there are {listed(self._file_columns)}"
                )
        return [(name, self._file_columns.index(name)) for name in sorted(names)]

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
        _check_constant_type(f"{where}.type", fields.get("type"))
        compiled = {
            name: self._compile(f"{where}.{name}", raw, FIELDS[name])
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


def _check_constant_type(where: str, raw: object) -> None:
    if isinstance(raw, dict) and set(raw) == {"is"}:
        try:
            check_type(raw["is"])
        except EventRefused as error:
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


def _value(part: Expression, row: list[Any], field: str) -> Any:
    try:
        return part.evaluate(row)
    except TypeError:
        # types were checked before: only a missing value can be in the way
        raise EventRefused(
            "missing_field", f"{field} needs a value that is missing", field
        ) from None
    except ArithmeticError:
        raise EventRefused("invalid_number", f"{field} cannot be computed exactly", field) from None


def _plain(value: Any) -> Any:
    """Return a property's value as JSON has it: whole numbers as integers, times as text."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value
