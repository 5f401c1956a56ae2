"""Columns of an imported file: how the text (or typed value) of one cell is read.

A cell is None where it is missing. Errors never repeat the cell: it may hold something personal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from crm.domain.errors import EventRefused, InvalidMapping
from crm.domain.expressions import Kind, parse_decimal

Cell = Any
# A day's file has few distinct dates and stakes: remembered ones cost a tenth of a parsed one.
_REMEMBERED = 20_000
_KINDS = ("text", "decimal", "time", "boolean")
_KEYS = {
    "type", "missing", "scale", "decimal_mark", "thousands_mark", "format", "zone", "optional",
}  # fmt: skip
_UNIX_SCALES = {"unix": 1, "unix_ms": 1_000, "unix_us": 1_000_000}


@dataclass(frozen=True)
class Column:
    """One column: its type, the spellings of "missing", units, and how times are written."""

    name: str
    kind: Kind = "text"
    missing: frozenset[str] = frozenset()
    scale: Decimal | None = None
    decimal_mark: str = "."
    thousands_mark: str = ""
    time_format: str = "iso"
    zone: ZoneInfo | None = None
    optional: bool = False

    def reader(self) -> Callable[[Cell], Any]:
        """Return what reads one cell; it raises EventRefused naming the column."""
        missing = self.missing | {""}
        convert = _remembering(self._converter())

        def read(cell: Cell) -> Any:
            if cell is None or (isinstance(cell, str) and cell in missing):
                return None
            try:
                return convert(cell)
            except EventRefused as error:
                message = f"column {self.name!r}: {error.message}"
                raise EventRefused(error.code, message, self.name) from None

        return read

    def _converter(self) -> Callable[[Cell], Any]:
        if self.kind == "text":
            return _text
        if self.kind == "decimal":
            return self._decimal
        if self.kind == "boolean":
            return _boolean
        return self._time

    def _decimal(self, cell: Cell) -> Decimal:
        if isinstance(cell, bool) or not isinstance(cell, str | int | float | Decimal):
            raise EventRefused("invalid_number", "not a number")
        text = cell.strip() if isinstance(cell, str) else str(cell)
        if isinstance(cell, str):
            if self.thousands_mark:
                text = text.replace(self.thousands_mark, "")
            if self.decimal_mark != ".":
                text = text.replace(".", "?").replace(self.decimal_mark, ".")
        value = parse_decimal(text)
        return value if self.scale is None else value * self.scale

    def _time(self, cell: Cell) -> datetime:
        if isinstance(cell, date) and not isinstance(cell, datetime):
            cell = datetime.combine(cell, time())
        try:
            at = cell if isinstance(cell, datetime) else self._parsed(str(cell).strip())
        except (ValueError, OverflowError, EventRefused):
            raise EventRefused("invalid_time", f"not a time ({self.time_format})") from None
        return self._in_zone(at)

    def _parsed(self, text: str) -> datetime:
        if self.time_format == "iso":
            return datetime.fromisoformat(text)
        if self.time_format in _UNIX_SCALES:
            microseconds = parse_decimal(text) * (1_000_000 // _UNIX_SCALES[self.time_format])
            seconds, rest = divmod(int(microseconds), 1_000_000)
            return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)
        return datetime.strptime(text, self.time_format)  # noqa: DTZ007  # _in_zone gives it one

    def _in_zone(self, at: datetime) -> datetime:
        """Return `at` in UTC; of the two readings of a repeated hour the first is taken."""
        try:
            if at.tzinfo is not None:
                return at.astimezone(UTC)
            if self.zone is None:
                raise EventRefused("invalid_time", "a time without zone; give the column a `zone`")
            known = at.replace(tzinfo=self.zone).astimezone(UTC)
            if known.astimezone(self.zone).replace(tzinfo=None) != at:
                raise EventRefused("invalid_time", "the clocks skipped this hour in the zone")
        except OverflowError:
            raise EventRefused("invalid_time", "out of range") from None
        return known


def parse_column(name: str, raw: object) -> Column:
    """Read one entry of a mapping's `columns`: a type, or an object; raises InvalidMapping."""
    where = f"columns.{name}"
    options = {"type": raw} if isinstance(raw, str) else raw
    if not isinstance(options, dict):
        raise InvalidMapping(f"{where}: a type ({', '.join(_KINDS)}), or an object with one")
    unknown = sorted(str(key) for key in options if key not in _KEYS)
    if unknown:
        raise InvalidMapping(f"{where}: unknown key {unknown[0]!r}; there are {sorted(_KEYS)}")
    kind = options.get("type", "text")
    if kind not in _KINDS:
        raise InvalidMapping(f"{where}.type: one of {', '.join(_KINDS)}")
    column = Column(
        name=name,
        kind=cast("Kind", kind),
        missing=_spellings(options.get("missing", []), where),
        scale=_scale(options.get("scale"), where),
        decimal_mark=_mark(options, "decimal_mark", "."),
        thousands_mark=_mark(options, "thousands_mark", ""),
        time_format=str(options.get("format", "iso")),
        zone=_zone(options.get("zone"), where),
        optional=options.get("optional", False) is True,
    )
    if column.decimal_mark == column.thousands_mark:
        raise InvalidMapping(f"{where}: decimal_mark and thousands_mark are the same")
    return column


def _mark(options: Mapping[str, object], key: str, default: str) -> str:
    mark = options.get(key, default)
    if not isinstance(mark, str) or len(mark) > 1:
        raise InvalidMapping(f"{key}: one character")
    return mark


def _spellings(raw: object, where: str) -> frozenset[str]:
    if not isinstance(raw, list) or not all(isinstance(text, str) for text in raw):
        raise InvalidMapping(f"{where}.missing: a list of texts, such as [NA]")
    return frozenset(raw)


def _scale(raw: object, where: str) -> Decimal | None:
    if raw is None:
        return None
    try:
        return parse_decimal(str(raw))
    except EventRefused as error:
        raise InvalidMapping(f"{where}.scale: a number, such as 0.01 for cents") from error


def _zone(raw: object, where: str) -> ZoneInfo | None:
    if raw is None:
        return None
    try:
        return ZoneInfo(str(raw))
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise InvalidMapping(f"{where}.zone: no such time zone {raw!r}") from error


def _text(cell: Cell) -> str:
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int) and not isinstance(cell, bool):
        return str(cell)
    raise EventRefused("invalid_field", "not a text")


def _boolean(cell: Cell) -> bool:
    if isinstance(cell, bool):
        return cell
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    value = known.get(str(cell).strip().lower())
    if value is None:
        raise EventRefused("invalid_field", "not true or false")
    return value


def _remembering(convert: Callable[[Cell], Any]) -> Callable[[Cell], Any]:
    """Return `convert` with a bounded memory for texts."""
    if convert is _text:
        return convert
    known: dict[str, Any] = {}

    def read(cell: Cell) -> Any:
        if not isinstance(cell, str):
            return convert(cell)
        value = known.get(cell)
        if value is None:
            value = convert(cell)
            if len(known) < _REMEMBERED:
                known[cell] = value
        return value

    return read
