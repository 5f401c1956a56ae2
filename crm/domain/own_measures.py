"""A measure of the operator's own: which events count for it, and what one of them adds.

The same definition counts in the live features, in the recount (SQL) and in batch; `scaled` and
`canonical` are the two rules that all of them keep to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from typing import Literal

import msgspec

from crm.domain.features import Derived, Measure, Unit

Aggregate = Literal["count", "sum", "mean", "days"]

MAX_DECIMALS = 6
LARGEST = 10**15  # of what one event adds, in integer units
_NUMBER_STARTS = frozenset("-0123456789")
_STEPS = [Decimal(1).scaleb(-decimals) for decimals in range(MAX_DECIMALS + 1)]
_ROUNDING = Context(prec=40, rounding=ROUND_HALF_UP, traps=[InvalidOperation])
_EXACT = Context(prec=20_000)  # more digits than an event's properties may have


@dataclass(frozen=True)
class OwnMeasure:
    """Events of `event_types` whose properties equal one of the values in `where` are counted.

    What is added is the property in units of its last decimal (1.27 with 2 decimals is 127), or 1
    without a property. `where` has the values as canonical JSON; `days` are local days with any.
    """

    name: str
    event_types: tuple[str, ...]
    aggregate: Aggregate
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()
    property_name: str | None = None
    decimals: int = 0
    meaning: str = ""

    @property
    def stem(self) -> str:
        """The features' name without the window, as built-in ones have it."""
        return f"mean_{self.name}" if self.aggregate == "mean" else f"{self.name}_{self.aggregate}"

    @property
    def unit(self) -> Unit:
        """A number has the property's decimals."""
        return "count" if self.property_name is None else "number"

    @property
    def formula(self) -> str:
        """What is counted, in one line."""
        of = f"({self.property_name})" if self.property_name else ""
        tests = [f"{name} in ({', '.join(values)})" for name, values in self.where]
        where = f" where {' and '.join(tests)}" if tests else ""
        return f"{self.aggregate}{of} of {', '.join(self.event_types)}{where}"

    def stored(self) -> tuple[Measure, ...]:
        """Return the totals that are kept: of a mean a sum and a count, which are no features."""
        total = Measure(self.stem, self.event_types, "one", self.meaning)
        match self.aggregate:
            case "count":
                return (total,)
            case "days":
                return (replace(total, once_a_day=True),)
            case "sum":
                return (replace(total, adds="property"),)
            case "mean":
                return (
                    replace(total, name=f"{self.stem}.sum", adds="property"),
                    replace(total, name=f"{self.stem}.count"),
                )

    def derived(self) -> Derived | None:
        """Return how a mean is made of its totals, None for what is a total itself."""
        if self.aggregate != "mean":
            return None
        total, count = self.stored()
        return Derived(self.stem, "number", (total.name,), self.meaning, by=(count.name,))

    def adds(self, properties: Mapping[str, msgspec.Raw]) -> int | None:
        """Return what an event of `event_types` adds, by its raw properties; None: nothing."""
        for name, values in self.where:
            found = properties.get(name)
            if found is None or canonical(bytes(found).decode()) not in values:
                return None
        if self.property_name is None:
            return 1
        found = properties.get(self.property_name)
        return None if found is None else scaled(bytes(found).decode(), self.decimals)


def scaled(json: str, decimals: int) -> int | None:
    """Return a JSON number x 10^decimals as an integer; None for what is no number, or too large.

    The exact value of the text, never of a double, is rounded half away from zero, as PostgreSQL's
    round(numeric) does; at most LARGEST in size. A text such as "1.27" is no number.
    """
    if json[0] not in _NUMBER_STARTS:
        return None
    try:
        rounded = Decimal(json).quantize(_STEPS[decimals], context=_ROUNDING)
    except InvalidOperation:  # over 40 digits
        return None
    value = int(rounded.scaleb(decimals, _ROUNDING))
    return value if abs(value) <= LARGEST else None


def canonical(json: str) -> str | None:
    """Return the one spelling that all equal JSON scalars share, None for what is no scalar.

    As PostgreSQL's jsonb compares: 1, 1.0 and 1e0 are equal, 1 and "1" and true are not.
    """
    if json[0] == '"':
        if "\\" not in json:  # nothing is escaped: it is spelled as it will be
            return json
        return msgspec.json.encode(msgspec.json.decode(json, type=str)).decode()
    if json[0] in _NUMBER_STARTS:
        number = Decimal(json).normalize(_EXACT)
        return str(number) if number else "0"
    return json if json in {"true", "false"} else None
