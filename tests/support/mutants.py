"""Mechanisms switched off, one at a time, in the process that runs the owner: for controls.

An experiment that does not notice its mutant, by the fault that it must cause, proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
import numpy as np
import pytest
from asyncpg.transaction import Transaction

from crm.adapters.postgres import events, pool
from crm.adapters.postgres.events import PostgresEventLog
from crm.adapters.postgres.quarantine import PostgresQuarantine
from crm.domain.appending import EventKey
from crm.domain.event_columns import OF_MOMENT, EventColumns
from crm.domain.feature_table import FeatureTable
from crm.domain.ports import Past
from crm.services.shard_adoption import Adoption
from crm.services.shard_owner import ShardOwner

Switch = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Mutant:
    """A mechanism switched off; the faults that an experiment finds then must match `sign`."""

    switch_off: Switch
    sign: str

    @property
    def __name__(self) -> str:  # by which pytest names a test
        return self.switch_off.__name__

    @property
    def mechanism(self) -> str:
        """What is off."""
        return self.__name__.removeprefix("no_").replace("_", " ")


# an owner that cannot go on ends itself, and here nobody succeeds it
OWNER_ENDED = 'a batch is taken.*"code":"warming"'


def seen_as(sign: str) -> Callable[[Switch], Mutant]:
    """Make a mutant of what switches a mechanism off."""
    return lambda switch_off: Mutant(switch_off, sign)


@seen_as("not what was sent")
def no_replay(patch: pytest.MonkeyPatch) -> None:
    """A successor serves without reading the log."""

    async def replay(_self: Adoption, _past: Past) -> int:
        return 0

    patch.setattr(Adoption, "_replay", replay)


@seen_as("a former owner has written")
def no_epoch_check(patch: pytest.MonkeyPatch) -> None:
    """A write goes in under whatever epoch there is."""
    whole = PostgresEventLog._store

    async def store(
        self: PostgresEventLog,
        connection: asyncpg.Connection[asyncpg.Record],
        _epochs: Mapping[int, int],
        *rest: Any,
    ) -> dict[int, int] | None:
        return await whole(self, connection, await self._epochs(connection), *rest)

    patch.setattr(PostgresEventLog, "_store", store)


@seen_as("lacked what was acknowledged")
def no_lease(patch: pytest.MonkeyPatch) -> None:
    """An owner believes itself for ever."""
    patch.setattr(ShardOwner, "_lease_is_over", lambda _self: False)


@seen_as("stored twice")
def no_deduplication(patch: pytest.MonkeyPatch) -> None:
    """No id is ever known; `without_the_key` takes the database's own last word away."""

    async def known(
        _self: PostgresEventLog,
        _connection: asyncpg.Connection[asyncpg.Record],
        _groups: Sequence[object],
    ) -> dict[EventKey, bytes]:
        return {}

    patch.setattr(PostgresEventLog, "_known", known)


async def without_the_key(dsn: str) -> None:
    """Take the uniqueness of event ids from the database."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("ALTER TABLE event_ids DROP CONSTRAINT event_ids_pkey")
    await connection.execute("CREATE INDEX ON event_ids (brand, event_id)")
    await connection.close()


@seen_as(OWNER_ENDED)
def no_wait_for_the_commit(patch: pytest.MonkeyPatch) -> None:
    """What was written is acknowledged, whatever becomes of its commit."""

    async def commit(self: PostgresEventLog, transaction: Transaction) -> None:
        with suppress(*pool.AWAY):
            await transaction.commit()

    patch.setattr(PostgresEventLog, "_commit", commit)


@seen_as("while the disk was full")
def no_look_at_errors(patch: pytest.MonkeyPatch) -> None:
    """What PostgreSQL says of a write is not looked at."""
    whole = PostgresEventLog._write

    async def write(self: PostgresEventLog, *args: Any) -> None:
        with suppress(asyncpg.PostgresError):
            await whole(self, *args)

    patch.setattr(PostgresEventLog, "_write", write)


@seen_as(OWNER_ENDED)
def no_read_back(patch: pytest.MonkeyPatch) -> None:
    """After a commit of unknown outcome the log is not read."""

    async def settle(self: ShardOwner) -> set[EventKey]:
        self._doubtful = False
        return set()

    patch.setattr(ShardOwner, "_settle", settle)


@seen_as("acknowledged events lost")
def no_synchronous_commit(patch: pytest.MonkeyPatch) -> None:
    """PostgreSQL answers before the commit is in its files."""
    patch.setitem(events._SERVER_SETTINGS, "synchronous_commit", "off")


@seen_as(f"while the disk was full|without a connection|{OWNER_ENDED}")
def no_name_for_full_servers(patch: pytest.MonkeyPatch) -> None:
    """That PostgreSQL has no room or no connection left is an error like any other."""
    rest = [e for e in pool.AWAY if e is not asyncpg.exceptions.InsufficientResourcesError]
    for module in (events, pool):
        patch.setattr(module, "AWAY", tuple(rest))


@seen_as("the quarantine holds")
def no_quarantine(patch: pytest.MonkeyPatch) -> None:
    """Refused events are gone."""

    async def keep(_self: PostgresQuarantine, *_args: object) -> None: ...

    patch.setattr(PostgresQuarantine, "keep", keep)


@seen_as("not the recount")
def no_monotone_windows(patch: pytest.MonkeyPatch) -> None:
    """Windows follow the clock backwards."""

    def advance(self: FeatureTable, now_us: int) -> None:
        self.now_us = now_us
        self._advance_hours(now_us // 3_600_000_000)
        self._advance_days(self._local_day(now_us))

    patch.setattr(FeatureTable, "advance", advance)


@seen_as("not what was sent|not the recount")
def no_late_events(patch: pytest.MonkeyPatch) -> None:
    """What is older than a day when it comes is left out."""
    whole = FeatureTable.apply

    def apply(self: FeatureTable, columns: EventColumns) -> None:
        whole(self, columns.take(columns.at > self.now_us - 24 * 3_600_000_000))

    patch.setattr(FeatureTable, "apply", apply)


@seen_as("not the recount")
def no_order_but_of_arrival(patch: pytest.MonkeyPatch) -> None:
    """The last to come is taken for the last that happened."""
    whole = FeatureTable.apply

    def apply(self: FeatureTable, columns: EventColumns) -> None:
        whole(self, columns)
        rows = np.array([self._row.get(player, -1) for player in columns.player_ids])
        for index, kinds in enumerate(OF_MOMENT):
            here = kinds[columns.kinds] & (rows >= 0)
            self._last[index, rows[here]] = columns.at[here]

    patch.setattr(FeatureTable, "apply", apply)
