"""What a brand's events were taken in under must not change below them."""

from __future__ import annotations

import asyncpg
import pytest

from crm.adapters.postgres.brands import has_events, register, registered
from crm.adapters.postgres.events import PostgresEventLog
from crm.domain.brands import Brand, Currency
from crm.domain.errors import BrandChanged
from tests.support.builders import NOON, a_brand, a_logged_event
from tests.support.own_measures import OWN
from tests.support.owners import an_owner


async def _take_an_event(dsn: str) -> None:
    log = PostgresEventLog(dsn, lambda: NOON)
    async with an_owner(log, lambda: NOON) as owner:
        await owner.append([[a_logged_event()]])
    await log.close()


@pytest.mark.parametrize(
    "changed",
    [{"time_zone": "UTC"}, {"currency": Currency("USD", 2)}, {"currency": Currency("EUR", 3)}],
)
async def test_a_brand_with_events_keeps_its_currency_and_its_days(
    dsn: str, changed: dict[str, object]
) -> None:
    await register(dsn, {"demo": a_brand()})
    await register(dsn, {"demo": a_brand(**changed)})  # nothing was taken in yet
    await register(dsn, {"demo": a_brand()})
    await _take_an_event(dsn)
    assert await has_events(dsn, "demo")
    with pytest.raises(BrandChanged, match="demo"):
        await register(dsn, {"demo": a_brand(**changed)})


async def test_a_brand_with_events_may_get_and_lose_measures_of_its_own(dsn: str) -> None:
    await register(dsn, {"demo": a_brand()})
    await _take_an_event(dsn)
    for measures in (OWN, OWN[:1], ()):
        brands = {"demo": a_brand(measures=measures)}
        await register(dsn, brands)
        assert await registered(dsn, brands) == brands


async def test_a_brand_with_events_cannot_leave_the_configuration(dsn: str) -> None:
    brands: dict[str, Brand] = {"demo": a_brand(), "other": a_brand(id="other")}
    await register(dsn, brands)
    await _take_an_event(dsn)
    await register(dsn, {"demo": a_brand()})  # the other one has no events
    with pytest.raises(BrandChanged, match="demo"):
        await register(dsn, {"other": a_brand(id="other")})
    connection = await asyncpg.connect(dsn)
    assert await connection.fetchval("SELECT count(*) FROM brands") == 1
    await connection.close()


async def test_a_brand_that_is_new_or_changed_is_not_known_to_the_running_service(dsn: str) -> None:
    await register(dsn, {"demo": a_brand(), "trial": a_brand(id="trial")})
    edited = {"demo": a_brand(), "trial": a_brand(id="trial", time_zone="UTC")}
    found = await registered(dsn, edited | {"new": a_brand(id="new")})
    assert list(found) == ["demo"]
