"""The log in PostgreSQL, as one owner sees it: fenced appends, replay, snapshots' manifest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg
from asyncpg.transaction import Transaction

from crm.adapters.postgres.partitions import Partitions, table_of
from crm.adapters.postgres.pool import AWAY, away
from crm.adapters.postgres.queries import load
from crm.domain.appending import AppendPlan, EventKey, Group, plan_append
from crm.domain.errors import CommitUnknown, CrmError
from crm.domain.events import LoggedEvent
from crm.domain.membership import Transition
from crm.domain.ports import Appended, Claim, SnapshotName
from crm.domain.telling import SILENCE, Telling, Told

ID_COLUMNS = ("brand", "event_id", "shard", "seq", "fingerprint")
EVENT_COLUMNS = (
    "shard", "seq", "brand", "player_id", "event_id", "type", "occurred_at", "received_at",
    "known_at", "local_day", "amount_minor", "currency", "properties", "backfill",
    "original_amount", "original_currency",
)  # fmt: skip
_SERVER_SETTINGS = {
    "application_name": "crm-owner",
    "synchronous_commit": "on",
    # Every query here goes by index, whatever the statistics say: a plan made while the tables were
    # small, or for an array's true length, reads whole tables of ids (15 ms instead of 1).
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
_TRIES = 5
_CHUNK = 5_000  # events: applying more at once would hold up what an adopting owner serves
_COMMAND_TIMEOUT_S = 30
_BLOCKED_S = 1.0
# A notification takes a lock of the whole database until its commit is on the disk: owners that
# notified with every commit would wait for each other. Readers look by themselves every 20 ms for a
# second after what they have read last (crm/services/live_reading.py): one in half of it will do.
NOTIFY_EVERY_S = 0.5
# another writer took one of the ids since we looked, or stood in the way: look again
_LOOK_AGAIN = (asyncpg.UniqueViolationError, asyncpg.exceptions.TransactionRollbackError)


class PostgresEventLog:
    """One writer's connection to the log. Raises DatabaseAway when PostgreSQL does not answer.

    After CommitUnknown from `append`, read the log above what was applied before anything else.
    """

    def __init__(self, dsn: str, now: Callable[[], datetime]) -> None:
        self._dsn = dsn
        self._now = now
        self._partitions = Partitions()
        self._lock = asyncio.Lock()
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._sql = load("events")
        self._notified = float("-inf")  # by the loop's clock

    async def claim(self, shards: Sequence[int], owner: str) -> dict[int, Claim]:
        """Become the owner of `shards`; a transaction that stands in the way is ended."""
        async with self._using() as connection, connection.transaction():
            rows = await self._past_others(connection, self._sql["claim_shards"], shards, owner)
            # by a statement of its own: it must see what was committed while the first one waited
            claimed = [row["shard"] for row in rows], [row["former"] for row in rows]
            clocks = await connection.fetch(self._sql["stand_shards"], *claimed)
        stand = {row["shard"]: row["clock_us"] for row in clocks}
        return {r["shard"]: Claim(r["epoch"], r["seq"], stand[r["shard"]]) for r in rows}

    async def heads(self, shards: Sequence[int]) -> dict[int, int]:
        """Return the last seq of each of `shards`, once no write to them is under way any more."""
        async with self._using() as connection:
            rows = await self._past_others(connection, self._sql["settled_heads"], shards)
        return {row["shard"]: row["seq"] for row in rows}

    async def _past_others(
        self, connection: asyncpg.Connection[asyncpg.Record], query: str, *args: Any
    ) -> list[asyncpg.Record]:
        """Run a query that waits for locks; a transaction that holds them for long is ended."""
        asking = asyncio.create_task(connection.fetch(query, *args, timeout=_COMMAND_TIMEOUT_S))
        try:
            while not (await asyncio.wait({asking}, timeout=_BLOCKED_S))[0]:
                await self._end_blockers_of(connection.get_server_pid())
        except BaseException:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            raise
        return asking.result()

    async def append(
        self, epochs: Mapping[int, int], groups: Sequence[Group], telling: Telling = SILENCE
    ) -> Appended:
        """Store what is new, and what is told with it, in one transaction under the epochs."""
        async with self._using() as connection:
            for attempt in range(_TRIES):
                try:
                    events = (event for group in groups for event in group)
                    await self._partitions.ensure(connection, events, self._now())
                    return await self._append(connection, epochs, groups, telling)
                except _LOOK_AGAIN as error:
                    if attempt == _TRIES - 1:
                        raise away(error) from error
                except asyncpg.PostgresError as error:
                    if isinstance(error, AWAY):
                        raise
                    # rolled back; the driver's own text may hold values
                    reason = f"PostgreSQL refused the events ({type(error).__name__})"
                    raise CrmError(reason) from error
            raise AssertionError("the last try has raised")

    async def _append(
        self,
        connection: asyncpg.Connection[asyncpg.Record],
        epochs: Mapping[int, int],
        groups: Sequence[Group],
        telling: Telling,
    ) -> Appended:
        # read before the transaction: the primary key has the last word on who was first
        known = await self._known(connection, groups) if groups else {}
        lost: set[int] = set()
        while True:
            plan = plan_append(groups, epochs.keys() - lost, known)
            if not plan.new and not telling.due:
                return Appended(plan.verdicts, [], [], sorted(lost))
            counts = dict.fromkeys(sorted(telling.shards & epochs.keys() - lost), 0)
            counts = dict(sorted((counts | plan.counts()).items()))
            heads = await self._store(connection, epochs, plan, counts, telling, lost)
            if heads is not None:
                return Appended(plan.verdicts, plan.new, plan.seqs(heads), sorted(lost))
            current = await self._epochs(connection)
            refused = [shard for shard in counts if current[shard] != epochs[shard]]
            await connection.execute(self._sql["count_stale_refusals"], refused)
            lost.update(refused)

    async def _store(
        self,
        connection: asyncpg.Connection[asyncpg.Record],
        epochs: Mapping[int, int],
        plan: AppendPlan,
        counts: Mapping[int, int],
        telling: Telling,
        lost: set[int],
    ) -> dict[int, int] | None:
        """Write the plan in one transaction; return the new seqs, None to look again."""
        shards = list(counts)
        transaction = connection.transaction()
        await transaction.start()
        try:
            rows = await connection.fetch(
                self._sql["advance_shards"], shards, [epochs[s] for s in shards], [*counts.values()]
            )
            heads = {row["shard"]: row["seq"] for row in rows}
            if len(heads) < len(shards):
                await transaction.rollback()
                return None
            seqs = plan.seqs(heads)
            told = telling.of(plan.new, seqs, lost)
            if told is None:
                await transaction.rollback()
                return None
            await self._write(connection, plan.new, seqs)
            now = asyncio.get_running_loop().time()
            notify = bool(told.transitions) and now - self._notified >= NOTIFY_EVERY_S
            await self._tell(connection, told, notify=notify)
        except BaseException:
            if not connection.is_closed():
                await transaction.rollback()
            raise
        await self._commit(transaction)
        if notify:  # and not before: what was rolled back has woken nobody
            self._notified = now
        return heads

    async def _commit(self, transaction: Transaction) -> None:
        """Commit; from here on a lost connection tells nothing about the outcome."""
        try:
            await transaction.commit()
        except AWAY as error:
            self._drop_connection()
            raise CommitUnknown("PostgreSQL was lost during a commit") from error

    async def _known(
        self, connection: asyncpg.Connection[asyncpg.Record], groups: Sequence[Group]
    ) -> dict[EventKey, bytes]:
        keys = [(event.brand, event.event_id) for group in groups for event in group]
        rows = await connection.fetch(
            self._sql["known_ids"], [brand for brand, _ in keys], [event_id for _, event_id in keys]
        )
        return {(row["brand"], row["event_id"]): row["fingerprint"] for row in rows}

    async def _write(
        self,
        connection: asyncpg.Connection[asyncpg.Record],
        new: Sequence[LoggedEvent],
        seqs: Sequence[int],
    ) -> None:
        # in id order: two writers that insert the same ids in opposite order would deadlock
        ids = sorted(
            (e.brand, e.event_id, e.shard, seq, e.fingerprint)
            for e, seq in zip(new, seqs, strict=True)
        )
        await connection.copy_records_to_table("event_ids", records=ids, columns=ID_COLUMNS)
        records: dict[str, list[tuple[Any, ...]]] = {}
        for event, seq in zip(new, seqs, strict=True):
            records.setdefault(table_of(event), []).append(event_record(event, seq))
        for table, rows in records.items():
            await connection.copy_records_to_table(table, records=rows, columns=EVENT_COLUMNS)
        cut = [
            (e.brand, e.player_id, field, sealed, e.occurred_at, e.event_id)
            for e in new
            for field, sealed in e.personal
        ]
        if cut:
            columns = [list(column) for column in zip(*cut, strict=True)]
            await connection.execute(self._sql["keep_personal_fields"], *columns)

    async def _tell(
        self, connection: asyncpg.Connection[asyncpg.Record], told: Told, *, notify: bool
    ) -> None:
        if told.arrived:
            await connection.execute(self._sql["shards_arrived"], list(told.arrived))
        if told.transitions or told.clock_us is not None:
            columns = [list(column) for column in zip(*told.transitions, strict=True)]
            columns = columns or [[] for _ in Transition._fields]
            await connection.execute(self._sql["tell"], told.owner, told.clock_us, *columns, notify)

    async def read_after(
        self, after: Mapping[int, int]
    ) -> AsyncIterator[list[tuple[int, LoggedEvent]]]:
        """Yield (seq, event) of each shard's events above its seq, in chunks and in no order."""
        async with self._using() as connection, connection.transaction(readonly=True):
            cursor = await connection.cursor(
                self._sql["log_after"], list(after), list(after.values())
            )
            while rows := await cursor.fetch(_CHUNK):
                yield [(row["seq"], _event(row)) for row in rows]

    async def epochs(self) -> dict[int, int]:
        """Return the current epoch of every shard."""
        async with self._using() as connection:
            return await self._epochs(connection)

    async def _epochs(self, connection: asyncpg.Connection[asyncpg.Record]) -> dict[int, int]:
        return {row["shard"]: row["epoch"] for row in await connection.fetch(self._sql["epochs"])}

    async def owners(self) -> dict[int, str]:
        """Return by shard the name of who holds its epoch; some may be gone."""
        async with self._using() as connection:
            rows = await connection.fetch(self._sql["epochs"])
        return {row["shard"]: row["owner"] for row in rows if row["owner"]}

    async def count_stale_refusals(self, shards: Iterable[int]) -> None:
        """Count one refused write of a former owner for each of `shards`."""
        async with self._using() as connection:
            await connection.execute(self._sql["count_stale_refusals"], list(shards))

    async def snapshots(self, shards: Sequence[int]) -> list[SnapshotName]:
        """Return the newest snapshots of `shards`, best first for each."""
        async with self._using() as connection:
            rows = await connection.fetch(self._sql["latest_snapshots"], shards)
        return [SnapshotName(row["shard"], row["seq"], row["name"]) for row in rows]

    async def record_snapshot(self, snapshot: SnapshotName, epoch: int, size: int) -> list[str]:
        """List a snapshot under the epoch; return the names of those that it replaces."""
        async with self._using() as connection:
            args = (snapshot.shard, epoch, snapshot.seq, snapshot.name, size)
            await connection.execute(self._sql["record_snapshot"], *args)
            rows = await connection.fetch(self._sql["forget_snapshots"], snapshot.shard)
        return [row["name"] for row in rows]

    async def close(self) -> None:
        """End the connection."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            await connection.close(timeout=5)

    @asynccontextmanager
    async def _using(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """Lend the connection, to one at a time; names the fact when PostgreSQL is away."""
        async with self._lock:
            try:
                yield await self._connected()
            except AWAY as error:
                self._drop_connection()
                raise away(error) from error

    async def _connected(self) -> asyncpg.Connection[asyncpg.Record]:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(
                self._dsn,
                timeout=5,
                command_timeout=_COMMAND_TIMEOUT_S,
                server_settings=_SERVER_SETTINGS,
            )
        return self._connection

    def _drop_connection(self) -> None:
        """Let go of a connection whose state nobody knows."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _end_blockers_of(self, pid: int) -> None:
        other = await asyncpg.connect(self._dsn, timeout=5)
        try:
            await other.fetch(self._sql["end_blockers_of"], pid)
        finally:
            await other.close(timeout=5)


def event_record(event: LoggedEvent, seq: int) -> tuple[Any, ...]:
    """Return the row of an event, in the order of EVENT_COLUMNS."""
    return (
        event.shard, seq, event.brand, event.player_id, event.event_id, event.type,
        event.occurred_at, event.received_at, event.known_at, event.local_day,
        event.amount_minor, event.currency, event.properties, event.backfill,
        event.original_amount, event.original_currency,
    )  # fmt: skip


def _event(row: asyncpg.Record) -> LoggedEvent:
    fields = {name: value for name, value in row.items() if name in LoggedEvent.__struct_fields__}
    return LoggedEvent(**fields, fingerprint=b"")
