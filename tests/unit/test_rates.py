"""Amounts in another currency: converted exactly, by the day, and what was sent is kept."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from configs.settings import DEFAULTS, load_settings
from crm.adapters.rates import load_rates
from crm.domain.brands import Currency
from crm.domain.errors import EventRefused, InvalidRates
from crm.domain.events import LoggedEvent
from crm.domain.expressions import exact_arithmetic
from crm.domain.rates import Rates
from tests.support.builders import NOON, a_brand, a_door, an_event, some_rates

RATES = some_rates(USD_EUR={"2026-03-01": "0.9", "2026-03-10": "0.5"}, GBP_EUR={"2026-03-10": "1"})
EURO = a_brand()
POUND = a_brand(id="pound", currency=Currency("GBP", 2))


def accept(rates: Rates = RATES, **changes: Any) -> LoggedEvent:
    event = an_event(**{"currency": "USD", "amount": Decimal(100)} | changes)
    return a_door(EURO, POUND, rates=rates).accept(event, NOON)


def refused(**changes: Any) -> EventRefused:
    with pytest.raises(EventRefused) as found:
        accept(**changes)
    return found.value


def test_an_amount_is_converted_and_what_was_stated_is_kept() -> None:
    logged = accept(amount=Decimal("12.50"))
    assert (logged.amount_minor, logged.currency) == (625, "EUR")
    assert (logged.original_amount, logged.original_currency) == (Decimal("12.5"), "USD")


@pytest.mark.parametrize("currency", [None, "EUR"])
def test_the_brands_own_currency_is_not_converted(currency: str | None) -> None:
    logged = accept(currency=currency)
    assert (logged.amount_minor, logged.currency) == (10_000, "EUR")
    assert (logged.original_amount, logged.original_currency) == (None, None)


@pytest.mark.parametrize(
    ("amount", "rate", "minor"),
    [
        ("0.01", "0.5", 0),  # half a cent: to the even one
        ("0.03", "0.5", 2),
        ("0.05", "0.5", 2),
        ("0.01", "0.500000000000000001", 1),
        ("0.03", "0.499999999999999999", 1),
        ("0.00000001", "0.000000000000000001", 0),
        ("0.00000001", "999999999999999.999999999999999999", 10**9),
        ("999999999.99999999", "3", 300_000_000_000),
        ("0", "3", 0),
    ],
)
def test_a_conversion_is_exact_and_rounded_once_half_to_even(
    amount: str, rate: str, minor: int
) -> None:
    rates = some_rates(USD_EUR={"2026-03-01": rate})
    assert accept(rates, amount=Decimal(amount)).amount_minor == minor
    with exact_arithmetic():  # as an import does
        assert accept(rates, amount=Decimal(amount)).amount_minor == minor


@pytest.mark.parametrize(
    ("at", "minor"),
    [
        (datetime(2026, 3, 1, 0, 0, tzinfo=UTC), 9000),
        (datetime(2026, 3, 9, 23, 59, 59, 999_999, tzinfo=UTC), 9000),
        (datetime(2026, 3, 10, 0, 0, tzinfo=UTC), 5000),
    ],
)
def test_a_rate_holds_from_its_day_until_the_next(at: datetime, minor: int) -> None:
    assert accept(occurred_at=at).amount_minor == minor


def test_the_day_is_the_brands() -> None:
    kathmandu = a_brand(time_zone="Asia/Kathmandu")  # its 10th begins at 18:15 UTC of the 9th
    for minute, minor in ((14, 9000), (15, 5000)):
        at = datetime(2026, 3, 9, 18, minute, tzinfo=UTC)
        event = an_event(currency="USD", amount=Decimal(100), occurred_at=at)
        assert a_door(kathmandu, rates=RATES).accept(event, NOON).amount_minor == minor


def test_before_the_first_rate_and_after_the_last_there_is_none() -> None:
    before = datetime(2026, 2, 28, 23, 59, tzinfo=UTC)
    for changes in ({"occurred_at": before}, {"currency": "BRL"}, {"brand": "pound"}):
        error = refused(**changes)
        assert (error.code, error.field) == ("unknown_currency", "currency")
    ended = some_rates(USD_EUR={"2026-03-01": "0.9", "2026-03-10": None})
    assert refused(rates=ended).code == "unknown_currency"
    assert accept(ended, occurred_at=before + timedelta(days=1)).amount_minor == 9000


def test_the_refusal_names_currency_and_day_but_no_amount() -> None:
    error = refused(currency="BRL", amount=Decimal("98765.43"))
    assert (
        error.message == "no rate from BRL to EUR held on 2026-03-10: add it to the file of rates"
    )


@pytest.mark.parametrize("currency", ["usd", "", "US", "USD ", "ana@example.com", "+5511987654321"])
def test_what_is_no_currency_is_not_repeated(currency: str) -> None:
    error = refused(currency=currency)
    assert error.message == "a currency is 3 to 8 capital letters; this brand's is EUR"
    assert error.code == "unknown_currency"


@pytest.mark.parametrize("amount", ["999999999999999.99999999", "1.00000001", "1.000000010000"])
def test_a_stated_amount_has_up_to_15_digits_and_8_decimals(amount: str) -> None:
    tiny = some_rates(USD_EUR={"2026-03-01": "0.001"})
    assert accept(tiny, amount=Decimal(amount)).original_amount == Decimal(amount)


@pytest.mark.parametrize(
    "amount",
    [
        "1000000000000000", "0.000000001", "1.0000000000000000000000000000000001", "-1", "NaN",
        "Infinity", "1E+999999999999", "1E-999999999999",
        "20000000000000",  # within the limit, but no more in cents at half a euro each
    ],
)  # fmt: skip
def test_an_absurd_amount_is_refused_before_and_after_its_conversion(amount: str) -> None:
    error = refused(amount=Decimal(amount))
    assert (error.code, error.field) == ("invalid_amount", "amount")
    assert amount not in error.message


def test_an_event_without_an_amount_keeps_no_currency() -> None:
    logged = accept(type="custom.x", amount=None)
    assert (logged.currency, logged.original_amount, logged.original_currency) == (None, None, None)


def test_a_corrected_rate_leaves_the_fingerprint_as_it_was() -> None:
    corrected = some_rates(USD_EUR={"2026-03-10": "0.7"})
    first, again = accept(), accept(corrected)
    assert (first.amount_minor, again.amount_minor) == (5000, 7000)
    assert first.fingerprint == again.fingerprint


def test_the_fingerprint_tells_stated_amounts_and_currencies_apart() -> None:
    fine = some_rates(USD_EUR={"2026-03-01": "0.01"}, GBP_EUR={"2026-03-01": "0.01"})
    amounts = [Decimal(text) for text in ("1", "1.1", "1.10000001")]  # one cent each
    logged = [accept(fine, amount=a, currency=c) for a in amounts for c in ("USD", "GBP")]
    assert {event.amount_minor for event in logged} == {1}
    assert len({event.fingerprint for event in logged}) == 6
    own = accept(fine, amount=Decimal("0.01"), currency="EUR")
    assert own.fingerprint not in {event.fingerprint for event in logged}


@pytest.mark.parametrize("spelling", ["12.5", "12.50", "12.5000000000000", "1.25E+1"])
def test_the_same_amount_in_another_spelling_has_the_same_fingerprint(spelling: str) -> None:
    assert (
        accept(amount=Decimal(spelling)).fingerprint == accept(amount=Decimal("12.5")).fingerprint
    )


def test_zero_has_one_spelling() -> None:
    zeros = [accept(amount=Decimal(text)) for text in ("0", "-0", "0.00", "0E-99")]
    assert len({event.fingerprint for event in zeros}) == 1
    assert {str(event.original_amount) for event in zeros} == {"0"}


BANK = """\
Date,USD,JPY,GBP,RUB,
2026-03-10,1.25,160,0.8,N/A,
2026-03-09,1.2,150,0.75,100,
"""


def of_file(folder: Path, text: str | bytes) -> Rates:
    path = folder / "rates.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_rates(path, [EURO, POUND])


def test_a_file_lists_one_rate_a_line_in_any_order(tmp_path: Path) -> None:
    rates = of_file(
        tmp_path,
        "\ufeff# ours\n\nday, from, to, rate\r\n2026-03-10,USD,EUR,0.92\n"
        '"2026-03-01","USD","EUR","0.90"\n2026-03-05,USD,EUR,\n2026-03-10,USD,EUR,0.92\n',
    )
    found = [rates.on(date(2026, 3, day), "USD", "EUR") for day in (1, 4, 5, 9, 10, 31)]
    nine, more = Fraction(9, 10), Fraction(23, 25)
    assert found == [nine, nine, None, None, more, more]
    assert rates.on(date(2026, 2, 28), "USD", "EUR") is None
    assert rates.on(date(2026, 3, 10), "EUR", "USD") is None


def test_the_central_banks_file_gives_every_pair_that_a_brand_needs(tmp_path: Path) -> None:
    rates = of_file(tmp_path, BANK)
    day = date(2026, 3, 10)
    assert rates.on(day, "USD", "EUR") == Fraction(4, 5)
    assert rates.on(day, "JPY", "EUR") == Fraction(1, 160)
    assert rates.on(day, "EUR", "GBP") == Fraction(4, 5)
    assert rates.on(day, "USD", "GBP") == Fraction(16, 25)
    assert rates.on(date(2026, 3, 9), "USD", "GBP") == Fraction(5, 8)
    assert rates.on(date(2026, 3, 9), "RUB", "EUR") == Fraction(1, 100)
    assert rates.on(day, "RUB", "EUR") is None  # no longer published: not the last one for ever
    assert rates.on(day, "EUR", "USD") is None  # no brand counts in dollars
    assert rates.on(date(2026, 3, 8), "USD", "EUR") is None


OWN = "day,from,to,rate\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1: the header is day,from,to,rate, or Date,USD,... of the ECB"),
        ("# nothing\n2026-03-10,USD,EUR,0.9\n", "line 2: the header is"),
        (OWN + "2026-03-10;USD;EUR;0,9\n", "line 2: has 2 cells; day,from,to,rate are wanted"),
        (OWN + "2026-03-10,USD,EUR,0,9\n", "line 2: has 5 cells"),
        (OWN + "10.03.2026,USD,EUR,0.9\n", "line 2: the day is written as 2026-01-31"),
        (OWN + "2026-02-30,USD,EUR,0.9\n", "line 2: the day is written as 2026-01-31"),
        (OWN + "2026-03-10,usd,EUR,0.9\n", "line 2: a currency is 3 to 8 capital letters"),
        (OWN + "2026-03-10,EUR,EUR,1\n", "line 2: from and to are both EUR"),
        *[
            (OWN + f"2026-03-10,USD,EUR,{rate}\n", "line 2: the rate of USD is a decimal above 0")
            for rate in ("0", "0.000", "-1", "1e3", "NaN", "1.", "abc", "1" * 16, "\u0661")
        ],
        (
            OWN + "2026-03-10,USD,EUR,0.9\n\n2026-03-10,USD,EUR,0.91\n",
            "line 4: line 2 has another rate from USD to EUR on 2026-03-10",
        ),
        (BANK + "2026-03-08,1.2,150\n", "line 4: has 2 rates; the header has 4 currencies"),
        (BANK + "2026-03-08,1.2,150,0.7,90,5,\n", "line 4: has 6 rates"),
        (BANK + "2026-03-08\n", "line 4: has 0 rates"),
        (BANK + "2026-03-10,1.3,160,0.8,N/A,\n", "line 4: line 2 has other rates on 2026-03-10"),
        (BANK + "2026-03-08,1.2,-,0.7,90,\n", "line 4: the rate of JPY is a decimal above 0"),
        ("Date,USD,USD,\n", "line 1: a currency stands there twice"),
        ("Date,USD,EUR,\n", "line 1: a currency stands there twice, or EUR does"),
        ("Date,USD,yen,\n", "line 1: a currency is 3 to 8 capital letters"),
        (b"PK\x03\x04\xff", "is not UTF-8 text"),
    ],
)
def test_a_bad_file_is_told_with_its_line(tmp_path: Path, text: str | bytes, reason: str) -> None:
    with pytest.raises(InvalidRates) as found:
        of_file(tmp_path, text)
    assert found.value.message.startswith(f"{tmp_path / 'rates.csv'}")
    assert reason in found.value.message
    assert "\n" not in found.value.message


def test_a_file_that_is_not_there_is_told_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(InvalidRates, match=r"none\.csv: cannot be read .* CRM_RATES_FILE"):
        load_rates(tmp_path / "none.csv", [EURO])


def test_the_shipped_file_has_no_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRM_RATES_FILE", raising=False)
    settings = load_settings()
    assert settings.rates_file == DEFAULTS.with_name("rates.csv")
    assert load_rates(settings.rates_file, [EURO]).series == {}
