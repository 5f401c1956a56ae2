"""Brands as the log knows them: what their events were taken in under."""

from __future__ import annotations

from collections.abc import Mapping

import asyncpg

from crm.adapters.postgres.queries import load
from crm.domain.brands import Brand
from crm.domain.errors import BrandChanged


async def has_events(dsn: str, brand: str) -> bool:
    """Tell whether any event of `brand` was ever accepted."""
    connection = await asyncpg.connect(dsn)
    try:
        return bool(await connection.fetchval(load("brands")["has_events"], brand))
    finally:
        await connection.close()


async def registered(dsn: str, brands: Mapping[str, Brand]) -> dict[str, Brand]:
    """Return those of `brands` that the running service knows, under the same terms."""
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(load("brands")["known_brands"])
    finally:
        await connection.close()
    known = {row["id"]: (row["currency"], row["decimals"], row["time_zone"]) for row in rows}
    return {name: brand for name, brand in brands.items() if known.get(name) == _terms(brand)}


async def register(dsn: str, brands: Mapping[str, Brand]) -> None:
    """Note the configured brands.

    Raises BrandChanged where one that has events is missing now, or has another currency or zone.
    """
    sql = load("brands")
    connection = await asyncpg.connect(dsn)
    try:
        for row in await connection.fetch(sql["known_brands"]):
            before = (row["currency"], row["decimals"], row["time_zone"])
            if _terms(brands.get(row["id"])) == before:
                continue
            if await connection.fetchval(sql["forget_brand"], row["id"]) is None:
                raise BrandChanged(
                    f"brand {row['id']!r} has events in {before[0]} with {before[1]} decimals, by "
                    f"the days of {before[2]}: its file in configs/brands must say so"
                )
        for brand in brands.values():
            await connection.execute(sql["add_brand"], brand.id, *_terms(brand))
    finally:
        await connection.close()


def _terms(brand: Brand | None) -> tuple[str, int, str]:
    if brand is None:
        return ("", 0, "")
    return (brand.currency.code, brand.currency.decimals, brand.time_zone)
