"""Converted amounts in PostgreSQL: the original stands beside them, and the features agree."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import Path

import asyncpg

from crm.adapters.postgres import migrate as migrations
from crm.adapters.postgres.events import EVENT_COLUMNS, PostgresEventLog, event_record
from crm.adapters.postgres.partitions import Partitions
from crm.domain.events import LoggedEvent
from crm.domain.times import from_us
from tests.support.builders import NOON, a_brand, a_logged_event, some_rates
from tests.support.clock import Clock
from tests.support.owners import an_owner, features_of_all
from tests.support.recount import differences, recount

RATES = some_rates(
    USD_EUR={"2026-01-01": "0.9", "2026-03-09": "0.85"}, BRL_EUR={"2026-01-01": "0.1675"}
)
NEW = "0005_original_amounts.sql"
STATED = "SELECT amount_minor, currency, original_amount, original_currency"


def _events() -> list[LoggedEvent]:
    return [
        a_logged_event(
            rates=RATES,
            event_id=f"{kind}-{currency}-{days}",
            player_id=f"p{days % 3}",
            type=kind,
            currency=currency,
            amount=Decimal("10.03"),
            occurred_at=NOON - timedelta(days=days),
        )
        for kind in ("deposit.completed", "bet.placed", "session.started")
        for currency in ("USD", "BRL", "EUR")
        for days in range(0, 60, 7)
    ]


async def test_features_count_the_converted_amount_and_the_original_is_in_the_log(dsn: str) -> None:
    clock, events = Clock(NOON), _events()
    expected: dict[str, int] = {}
    for event in events:
        if event.type == "deposit.completed":
            assert event.amount_minor is not None
            expected[event.player_id] = expected.get(event.player_id, 0) + event.amount_minor
    for start in (0, 1):  # the second owner replays the log of the first
        log = PostgresEventLog(dsn, clock)
        async with an_owner(log, clock, name=f"owner-{start}") as owner:
            await owner.append([[event] for event in events[start::2]])
            found = await features_of_all(owner)
            as_of = from_us((await owner.table("demo")).now_us)
        await log.close()
    assert {p: values["deposit_amount_lifetime"] for p, values in found.items()} == expected
    assert differences(found, await recount(dsn, a_brand(), as_of)) == []
    connection = await asyncpg.connect(dsn)
    for table, kinds in (("user_transactions", 2), ("user_sessions", 1)):
        rows = await connection.fetch(f"{STATED} FROM {table} WHERE brand = 'demo'")
        assert len(rows) == kinds * 27
        own = [row for row in rows if row["original_currency"] is None]
        assert {tuple(row) for row in own} == {(1003, "EUR", None, None)}
        abroad = {tuple(row) for row in rows if row not in own}
        stated = Decimal("10.03")
        assert abroad == {
            (853, "EUR", stated, "USD"), (903, "EUR", stated, "USD"), (168, "EUR", stated, "BRL"),
        }  # fmt: skip
    await connection.close()


async def test_partitions_of_before_the_migration_take_and_give_originals(bare_dsn: str) -> None:
    connection = await asyncpg.connect(bare_dsn)
    await _migrate_to_before(connection)
    old = a_logged_event(event_id="old")
    await Partitions().ensure(connection, [old], NOON)
    before = EVENT_COLUMNS[:-2]
    await connection.copy_records_to_table(
        "user_transactions", records=[event_record(old, 1)[:-2]], columns=before
    )
    await connection.execute("UPDATE virtual_shards SET seq = 1 WHERE shard = $1", old.shard)
    assert NEW in await migrations.migrate(bare_dsn)

    log = PostgresEventLog(bare_dsn, lambda: NOON)
    claims = await log.claim([old.shard], "a")
    new = [
        a_logged_event(
            rates=RATES,
            event_id=f"{kind}-{days}",
            type=kind,
            currency="USD",
            occurred_at=NOON - timedelta(days=days),
        )
        for kind in ("bet.placed", "session.started")
        for days in (0, 40)  # for the partition of before, and for new ones
    ]
    epochs = {shard: claim.epoch for shard, claim in claims.items()}
    appended = await log.append(epochs, [[event] for event in new])
    assert appended.verdicts == [["accepted"]] * len(new)
    read = [item async for chunk in log.read_after({old.shard: 0}) for item in chunk]
    found = {event.event_id: event for _, event in read}
    assert (found["old"].original_amount, found["old"].original_currency) == (None, None)
    for event in new:
        stored = found[event.event_id]
        assert (stored.original_amount, stored.original_currency) == (Decimal("12.5"), "USD")
        assert stored.amount_minor == event.amount_minor
    await log.close()
    await connection.close()


async def _migrate_to_before(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Bring an empty database to where it stood before the migration under test."""
    await connection.execute(
        "CREATE TABLE schema_migrations (name text PRIMARY KEY, sha256 text NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT now())"
    )
    folder = Path(migrations.__file__).parent / "migrations"
    for file in sorted(await asyncio.to_thread(lambda: list(folder.glob("*.sql")))):
        if file.name >= NEW:
            break
        sql = file.read_text(encoding="utf-8")
        await connection.execute(sql)
        digest = sha256(sql.encode()).hexdigest()
        await connection.execute("INSERT INTO schema_migrations VALUES ($1, $2)", file.name, digest)
