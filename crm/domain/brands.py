"""A brand: one of the operator's sites, with its own currency, time zone and first day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from zoneinfo import ZoneInfo

from crm.domain.errors import BrandNotFound
from crm.domain.own_measures import OwnMeasure

MAX_DIGITS = 15


@dataclass(frozen=True)
class Currency:
    """`decimals` minor digits; the code may be the brand's own, such as BIT."""

    code: str
    decimals: int

    def to_minor(self, amount: Decimal) -> int | None:
        """Return the exact number of minor units, or None if there are too many decimals."""
        scaled = amount.scaleb(self.decimals)
        minor = int(scaled)
        return minor if minor == scaled else None

    def to_major(self, minor: int) -> str:
        """Return `minor` as a decimal string in major units, with all its decimals."""
        if not self.decimals:
            return str(minor)
        digits = str(abs(minor)).zfill(self.decimals + 1)
        return f"{'-' * (minor < 0)}{digits[: -self.decimals]}.{digits[-self.decimals :]}"


@dataclass(frozen=True)
class Brand:
    """Its days are those of `time_zone`; nothing happened before `starts_on`.

    `measures` are its own, beside the built-in ones (feature_list.py joins them).
    """

    id: str
    name: str
    currency: Currency
    time_zone: str
    starts_on: date
    country: str
    products: tuple[str, ...] = ()
    measures: tuple[OwnMeasure, ...] = ()
    zone: ZoneInfo = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "zone", ZoneInfo(self.time_zone))

    @property
    def begins_at(self) -> datetime:
        """The first instant at which an event of this brand may have happened."""
        return datetime.combine(self.starts_on, time(), self.zone).astimezone(UTC)

    def local_day(self, at: datetime) -> date:
        """Return the calendar day of `at` where the brand is."""
        return at.astimezone(self.zone).date()


def choose(brands: Mapping[str, Brand], brand_id: str | None) -> Brand:
    """Return a brand, the first one if none is named; raises BrandNotFound."""
    brand = next(iter(brands.values())) if brand_id is None else brands.get(brand_id)
    if brand is None:  # what was asked for is not repeated: it may be anything
        raise BrandNotFound(f"no such brand; there are {', '.join(brands)}")
    return brand
