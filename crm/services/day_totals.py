"""Totals by day of an owner's tables, without keeping its events waiting for long."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from crm.domain.brands import Brand
from crm.domain.day_totals import CHURN_DAYS, Days, DayTotals, TableDays
from crm.domain.feature_table import FeatureTable


class DaysOfTables:
    """What was read of each table's days; forgotten with the table."""

    def __init__(self) -> None:
        self._of: WeakKeyDictionary[FeatureTable, TableDays] = WeakKeyDictionary()

    async def prepare(self, table: FeatureTable, asked: Days) -> None:
        """Read the days one by one, with room for others' calls between them.

        What changes meanwhile is read once more by `totals`, which gives way to nobody.
        """
        days = self._days_of(table)
        for day in range(asked.first - CHURN_DAYS, asked.last + 1):
            if day in table.days_held and days.read(table, day):
                await asyncio.sleep(0)

    def totals(
        self, table: FeatureTable, brand: Brand, asked: Days, spans: Sequence[Days]
    ) -> DayTotals:
        """Return the totals of a brand's table; raises InvalidRange."""
        return self._days_of(table).totals(table, brand.zone, asked, spans)

    def _days_of(self, table: FeatureTable) -> TableDays:
        return self._of.setdefault(table, TableDays())
