"""Partitions of the event tables, made on demand and outside of any write transaction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import asyncpg

from crm.adapters.postgres.queries import load
from crm.domain.events import SESSION_RETENTION, SESSION_TYPES, LoggedEvent

_LOCK = 0x70617274  # "part": one maker of partitions at a time


@dataclass(frozen=True)
class Partition:
    """One month of transactions or one day of sessions, by UTC."""

    table: str
    start: date
    end: date

    @property
    def name(self) -> str:
        """The partition's table name, such as user_transactions_2026_11."""
        form = "%Y_%m" if self.table == "user_transactions" else "%Y_%m_%d"
        return f"{self.table}_{self.start.strftime(form)}"


def table_of(event: LoggedEvent) -> str:
    """Return the table that keeps `event`."""
    return "user_sessions" if event.type in SESSION_TYPES else "user_transactions"


def _month(day: date) -> Partition:
    start = day.replace(day=1)
    return Partition("user_transactions", start, (start + timedelta(days=32)).replace(day=1))


@dataclass
class Partitions:
    """Knows which partitions exist, and makes those that events need."""

    _known: set[str] = field(default_factory=set)
    _days: set[tuple[str, date]] = field(default_factory=set)

    async def ensure(
        self,
        connection: asyncpg.Connection[asyncpg.Record],
        events: Iterable[LoggedEvent],
        now: datetime,
    ) -> None:
        """Make what is missing for `events`; call it while the connection is in no transaction."""
        days = {(table_of(event), event.occurred_at.date()) for event in events}
        for table, day in sorted(days - self._days):
            partition = self._needed(table, day, now)
            if partition is not None and partition.name not in self._known:
                await self._make(connection, partition)
            self._days.add((table, day))

    def _needed(self, table: str, day: date, now: datetime) -> Partition | None:
        if table == "user_transactions":
            return _month(day)
        if day < (now - SESSION_RETENTION).astimezone(UTC).date():
            return None
        return Partition(table, day, day + timedelta(days=1))

    async def _make(
        self, connection: asyncpg.Connection[asyncpg.Record], wanted: Partition
    ) -> None:
        """Create, then attach: CREATE ... PARTITION OF would lock out every writer."""
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            rows = await connection.fetch(load("events")["partitions"], wanted.table)
            self._known |= {row["name"] for row in rows}
            if wanted.name in self._known:
                return
            # identifiers and dates are our own, never a client's
            await connection.execute(
                f"CREATE TABLE {wanted.name} (LIKE {wanted.table} INCLUDING ALL)"
            )
            await connection.execute(
                f"ALTER TABLE {wanted.table} ATTACH PARTITION {wanted.name} "
                f"FOR VALUES FROM ('{wanted.start} 00:00Z') TO ('{wanted.end} 00:00Z')"
            )
        self._known.add(wanted.name)
