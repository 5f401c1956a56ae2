"""The file of currency rates, in one of two forms, told by its first line (docs/currencies.md).

`day,from,to,rate`: one rate a line. `Date,USD,JPY,...`: the reference rates as the European Central
Bank publishes them, what one euro was worth; they give every pair that a brand needs.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path

from crm.domain.brands import Brand
from crm.domain.errors import InvalidRates
from crm.domain.rates import CODE, Rates, Series

HEADER = ["day", "from", "to", "rate"]
MISSING = ("", "N/A")
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_RATE = re.compile(r"\d{1,15}(\.\d{1,18})?", re.ASCII)
_EURO = "EUR"
_ONE = Decimal(1)

Pair = tuple[str, str]
Line = tuple[int, list[str]]  # its number in the file, and its cells


class _Fault(Exception):
    """What is wrong with one line; never leaves this module."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(line, reason)
        self.line, self.reason = line, reason


def load_rates(path: Path, brands: Iterable[Brand]) -> Rates:
    """Read the file, in any order of its lines; raises InvalidRates."""
    try:
        return Rates(_series_in(_lines(path.read_text(encoding="utf-8-sig")), brands))
    except _Fault as fault:
        raise InvalidRates(f"{path}, line {fault.line}: {fault.reason}") from None
    except UnicodeDecodeError:
        raise InvalidRates(f"{path}: is not UTF-8 text; unpack it if it is packed") from None
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror}); CRM_RATES_FILE names the file"
        raise InvalidRates(message) from None


def _series_in(lines: Iterator[Line], brands: Iterable[Brand]) -> dict[Pair, Series]:
    header = next(lines, (1, []))
    if header[1] == HEADER:
        return _listed(lines)
    if header[1][:1] == ["Date"]:
        return _against_the_euro(header, lines, brands)
    raise _Fault(header[0], f"the header is {','.join(HEADER)}, or Date,USD,... of the ECB")


def _lines(text: str) -> Iterator[Line]:
    """Yield the cells of each line, but for empty lines and comments."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            try:
                cells = next(csv.reader([line]))
            except csv.Error as error:
                raise _Fault(number, f"it cannot be read ({error})") from None
            yield number, [cell.strip() for cell in cells]


def _listed(lines: Iterable[Line]) -> dict[Pair, Series]:
    """Read one rate a line."""
    found: dict[Pair, dict[date, tuple[Decimal | None, int]]] = {}
    for number, cells in lines:
        if len(cells) != len(HEADER):
            raise _Fault(number, f"has {len(cells)} cells; {','.join(HEADER)} are wanted")
        day, of, to = _day(number, cells[0]), _code(number, cells[1]), _code(number, cells[2])
        if of == to:
            raise _Fault(number, f"from and to are both {of}")
        rate = _rate(number, of, cells[3])
        before, first = found.setdefault((of, to), {}).setdefault(day, (rate, number))
        if before != rate:
            raise _Fault(number, f"line {first} has another rate from {of} to {to} on {day}")
    return {pair: _series(by_day) for pair, by_day in found.items()}


def _series(by_day: Mapping[date, tuple[Decimal | None, int]]) -> Series:
    days = sorted(by_day)
    return Series(days, [by_day[day][0] for day in days], [_ONE] * len(days))


def _against_the_euro(
    header: Line, lines: Iterable[Line], brands: Iterable[Brand]
) -> dict[Pair, Series]:
    """Read a day a line: what one euro was worth. From P to T it is T's rate divided by P's."""
    codes = [_code(header[0], cell) for cell in _without_the_last_comma(header[1])[1:]]
    if len({_EURO, *codes}) <= len(codes):
        raise _Fault(header[0], "a currency stands there twice, or EUR does")
    by_day: dict[date, tuple[list[Decimal | None], int]] = {}
    for number, (first, *cells) in lines:
        if len(_without_the_last_comma(cells, len(codes))) != len(codes):
            raise _Fault(number, f"has {len(cells)} rates; the header has {len(codes)} currencies")
        rates = [_rate(number, *pair) for pair in zip(codes, cells, strict=False)]
        day = _day(number, first)
        before, line = by_day.setdefault(day, (rates, number))
        if before != rates:
            raise _Fault(number, f"line {line} has other rates on {day}")
    days = sorted(by_day)
    of_euro: dict[str, Sequence[Decimal | None]] = {_EURO: [_ONE] * len(days)}
    of_euro |= {code: [by_day[day][0][i] for day in days] for i, code in enumerate(codes)}
    wanted = {brand.currency.code for brand in brands} & of_euro.keys()
    pairs = [(of, to) for to in wanted for of in of_euro if of != to and days]
    return {(of, to): Series(days, of_euro[to], of_euro[of]) for of, to in pairs}


def _without_the_last_comma(cells: list[str], at_least: int = 0) -> list[str]:
    """Leave out the empty cell behind the comma with which every line of the bank ends."""
    return cells[:-1] if len(cells) > at_least and cells[-1] == "" else cells


def _day(line: int, cell: str) -> date:
    try:
        if _DAY.fullmatch(cell):
            return date.fromisoformat(cell)
    except ValueError:  # no such day in the calendar
        pass
    raise _Fault(line, "the day is written as 2026-01-31")


def _code(line: int, cell: str) -> str:
    if not CODE.fullmatch(cell):
        raise _Fault(line, "a currency is 3 to 8 capital letters, such as USD")
    return cell


def _rate(line: int, code: str, cell: str) -> Decimal | None:
    if cell in MISSING:
        return None
    rate = Decimal(cell) if _RATE.fullmatch(cell) else None
    if not rate:
        raise _Fault(line, f"the rate of {code} is a decimal above 0, such as 1.0921")
    return rate
