"""Laws of converted amounts: they are what integers alone say, in any order of the file's lines."""

from __future__ import annotations

import tempfile
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from crm.adapters.rates import load_rates
from crm.domain.brands import Currency
from crm.domain.events import LoggedEvent
from crm.domain.rates import Rates
from tests.support.builders import NOON, a_brand, a_door, an_event

FIRST = date(2026, 1, 1)
UNITS = st.integers(0, 10**12) | st.sampled_from([0, 1, 5, 10**6, 5 * 10**5, 15 * 10**5])
PICO = st.integers(1, 10**15) | st.sampled_from([10**12, 5 * 10**11, 25 * 10**10])
DAYS = st.integers(0, 60)  # NOON is the 68th


def accept(rates: Rates, units: int, day: int, decimals: int = 2) -> LoggedEvent:
    """Accept an amount in millionths of a dollar, on a day counted from FIRST."""
    event = an_event(
        amount=Decimal(units).scaleb(-6),
        currency="USD",
        occurred_at=NOON.replace(month=1, day=1) + timedelta(days=day),
    )
    brand = a_brand(currency=Currency("EUR", decimals))
    return a_door(brand, rates=rates).accept(event, NOON)


def load(header: str, lines: list[str], decimals: int = 2) -> Rates:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rates.csv"
        path.write_text("\n".join([header, *lines]))
        return load_rates(path, [a_brand(currency=Currency("EUR", decimals))])


def half_even(top: int, bottom: int) -> int:
    """Divide, rounding half to even, without any other number than integers."""
    whole, rest = divmod(top, bottom)
    up = 2 * rest > bottom or (2 * rest == bottom and whole % 2 == 1)
    return whole + up


def written(pico: int) -> str:
    return f"{pico // 10**12}.{pico % 10**12:012d}"


@given(UNITS, PICO, st.integers(0, 8))
def test_a_conversion_is_what_integers_alone_say(units: int, pico: int, decimals: int) -> None:
    rates = load("day,from,to,rate", [f"{FIRST},USD,EUR,{written(pico)}"])
    logged = accept(rates, units, 0, decimals)
    assert logged.amount_minor == half_even(units * pico * 10**decimals, 10**18)
    assert logged.original_amount == Decimal(units).scaleb(-6)


@given(UNITS, PICO, st.integers(0, 3))
def test_so_is_one_against_the_euro(units: int, pico: int, decimals: int) -> None:
    pico = max(pico, 10**9)
    rates = load("Date,USD,", [f"{FIRST},{written(pico)},"])
    expected = half_even(units * 10**12 * 10**decimals, pico * 10**6)
    assert accept(rates, units, 0, decimals).amount_minor == expected


@given(
    st.dictionaries(DAYS, st.none() | PICO, min_size=1, max_size=8),
    st.lists(DAYS, min_size=1, max_size=5),
    st.data(),
)
def test_the_last_rate_up_to_the_day_holds_in_any_order_of_lines(
    by_day: dict[int, int | None], asked: list[int], data: st.DataObject
) -> None:
    lines = [
        f"{FIRST + timedelta(days=day)},USD,EUR,{'' if pico is None else written(pico)}"
        for day, pico in by_day.items()
    ]
    rates = load("day,from,to,rate", data.draw(st.permutations(lines)))
    for day in asked:
        held = [by_day[d] for d in sorted(by_day) if d <= day]
        found = rates.on(FIRST + timedelta(days=day), "USD", "EUR")
        assert (found and found * 10**12) == (held[-1] if held else None)
