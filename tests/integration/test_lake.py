"""The lake: every event once, in listed files only, on a folder and on a real S3 server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from decimal import Decimal

import asyncpg
import polars as pl
import pytest

from crm.adapters import clock
from crm.adapters.lake import Lake
from crm.adapters.lake_events import SCHEMA, LakeEventFiles, scan, to_parquet
from crm.adapters.postgres.events import PostgresEventLog
from crm.adapters.postgres.lake import PostgresManifest
from crm.adapters.postgres.pool import Pool
from crm.domain.errors import LogGap
from crm.domain.events import LoggedEvent
from crm.domain.lake_files import LakeFile
from crm.domain.shards import SHARDS
from crm.services.lake_writing import LakeWriter
from tests.support.builders import NOON, a_logged_event, some_rates
from tests.support.clock import Clock
from tests.support.s3 import an_s3_server

ALL = range(SHARDS)


@pytest.fixture(scope="module", params=["folder", "s3"])
def lake(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lake]:
    if request.param == "folder":
        yield Lake(str(tmp_path_factory.mktemp("lake")))
        return
    with an_s3_server() as uri:
        yield Lake(uri)


@pytest.fixture
async def manifest(dsn: str) -> AsyncIterator[PostgresManifest]:
    pool = Pool(dsn)
    yield PostgresManifest(pool)
    await pool.close()


@pytest.fixture
async def log(dsn: str) -> AsyncIterator[PostgresEventLog]:
    postgres = PostgresEventLog(dsn, lambda: NOON)
    yield postgres
    await postgres.close()


def _writer(manifest: PostgresManifest, lake: Lake, now: Clock | None = None) -> LakeWriter:
    return LakeWriter(manifest, LakeEventFiles(lake), now or Clock(clock.now()))


async def _append(log: PostgresEventLog, events: list[LoggedEvent]) -> None:
    epochs = {shard: claim.epoch for shard, claim in (await log.claim(ALL, "a")).items()}
    await log.append(epochs, [[event] for event in events])


async def _rows(manifest: PostgresManifest, lake: Lake) -> pl.DataFrame:
    return scan(lake, await manifest.files(ALL)).sort("shard", "seq").collect()


def _events(start: int, end: int) -> list[LoggedEvent]:
    return [a_logged_event(event_id=f"e{n}", player_id=f"p{n % 9}") for n in range(start, end)]


async def test_an_event_stands_in_the_lake_as_it_was_logged(
    lake: Lake, manifest: PostgresManifest, log: PostgresEventLog
) -> None:
    odd = a_logged_event(
        event_id='quote " comma , line \u2028 \u2603', player_id="née, O'Brien",
        properties={"note": 'a "b", c\n\\d\u0001', "product": "", "n": 1.5},
        amount=Decimal("0.01"), occurred_at=NOON - timedelta(days=800, microseconds=3),
    )  # fmt: skip
    plain = a_logged_event(event_id="s", type="session.ended", amount=None, currency=None,
                           properties={"duration_s": 90.0}, backfill=True)  # fmt: skip
    won = a_logged_event(event_id="w", type="bet.settled",
                         properties={"result": "won", "product": "crash"})  # fmt: skip
    paid = a_logged_event(event_id="d", type="deposit.completed", properties={"method": "pix"})
    abroad = a_logged_event(
        rates=some_rates(USD_EUR={"2020-01-01": "0.00000009"}),
        event_id="usd", currency="USD", amount=Decimal("999999999999999.12345678"),
    )  # fmt: skip
    events = [odd, plain, won, paid, abroad]
    await _append(log, events)
    assert await _writer(manifest, lake).catch_up() == len(events)
    rows = {row["event_id"]: row for row in (await _rows(manifest, lake)).iter_rows(named=True)}
    for event in events:
        row = rows[event.event_id]
        for name in ("brand", "player_id", "type", "occurred_at", "received_at", "known_at",
                     "local_day", "amount_minor", "currency", "backfill", "shard",
                     "original_amount", "original_currency"):  # fmt: skip
            assert row[name] == getattr(event, name), name
        assert json.loads(row["properties"]) == json.loads(event.properties)
    facts = ("result", "product", "method", "session_seconds")
    assert [[rows[e.event_id][f] for f in facts] for e in events] == [
        [None, "", None, None], [None, None, None, 90], ["won", "crash", None, None],
        [None, None, "pix", None], [None, "casino", None, None],
    ]  # fmt: skip


async def test_two_writers_at_once_and_small_rounds_list_every_event_once(
    lake: Lake, manifest: PostgresManifest, log: PostgresEventLog
) -> None:
    await _append(log, _events(0, 300))
    await asyncio.gather(*[_writer(manifest, lake).catch_up(most=70) for _ in range(2)])
    rows = await _rows(manifest, lake)
    assert sorted(rows["event_id"]) == sorted(event.event_id for event in _events(0, 300))
    assert _is_whole(rows)
    assert await _writer(manifest, lake).catch_up() == 0


async def test_a_file_that_nobody_listed_is_not_read_and_goes_when_it_is_old(
    lake: Lake, manifest: PostgresManifest, log: PostgresEventLog
) -> None:
    await _append(log, _events(0, 20))
    spans = {s: span for s, span in (await manifest.lags()).items() if span.upto}
    killed: list[LakeFile] = []  # of a writer that never lists them
    LakeEventFiles(lake).write(await manifest.events(spans), killed.append)
    writer = _writer(manifest, lake)
    assert await writer.catch_up() == 20
    assert len(await _rows(manifest, lake)) == 20
    there = LakeEventFiles(lake).names
    assert {file.name for file in killed} <= there().keys()
    await writer.sweep()
    assert {file.name for file in killed} <= there().keys()  # it may be about to be listed
    later = _writer(manifest, lake, Clock(clock.now() + timedelta(hours=2)))
    assert await later.sweep() >= len(killed)
    assert there().keys() & {file.name for file in killed} == set()
    assert len(await _rows(manifest, lake)) == 20


async def test_many_small_files_become_few_with_the_same_rows_and_readers_keep_theirs(
    lake: Lake, manifest: PostgresManifest, log: PostgresEventLog
) -> None:
    writer = _writer(manifest, lake)
    for start in range(0, 200, 20):
        await _append(log, _events(start, start + 20))
        await writer.catch_up()
    before, rows = await manifest.files(ALL), await _rows(manifest, lake)
    assert await writer.compact() > 0
    after = await manifest.files(ALL)
    assert len(after) < len(before) / 4
    assert (await _rows(manifest, lake)).equals(rows)
    assert scan(lake, before).sort("shard", "seq").collect().equals(rows)  # a reader under way
    await _writer(manifest, lake, Clock(clock.now() + timedelta(hours=2))).sweep()
    listed = {file.name for file in after}
    assert LakeEventFiles(lake).names().keys() & {file.name for file in before} <= listed
    assert (await _rows(manifest, lake)).equals(rows)
    assert await writer.compact() == 0


async def test_a_damaged_file_holds_up_no_other_shards_merging(
    lake: Lake, manifest: PostgresManifest, log: PostgresEventLog
) -> None:
    writer = _writer(manifest, lake)
    for start in range(0, 200, 20):
        await _append(log, _events(start, start + 20))
        await writer.catch_up()
    before = await manifest.files(ALL)
    damaged = before[0]
    data = lake.read(damaged.name)
    lake.delete(damaged.name)
    lake.write(damaged.name, data[: len(data) // 2])
    assert await writer.compact() > 0
    after = await manifest.files(ALL)
    assert [f for f in after if f.shard == damaged.shard] == [
        f for f in before if f.shard == damaged.shard
    ]
    assert (
        len({file.shard for file in after})
        == len([file for file in after if file.shard != damaged.shard]) + 1
    )  # of every other shard one is left


@pytest.mark.parametrize("lost", ["e0", "e2", "e4"])
async def test_a_gap_in_the_log_is_never_covered_up(
    lake: Lake, manifest: PostgresManifest, log: PostgresEventLog, dsn: str, lost: str
) -> None:
    await _append(log, [a_logged_event(event_id=f"e{n}") for n in range(5)])
    connection = await asyncpg.connect(dsn)
    await connection.execute("DELETE FROM user_transactions WHERE event_id = $1", lost)
    await connection.close()
    await _append(log, [a_logged_event(event_id="other", player_id="another")])
    with pytest.raises(LogGap):
        await _writer(manifest, lake).catch_up()
    assert "other" in (await _rows(manifest, lake))["event_id"]  # it is not held up
    assert _is_whole(await _rows(manifest, lake))
    with pytest.raises(LogGap):
        await _writer(manifest, lake).catch_up()


async def test_old_sessions_leave_postgresql_only_once_they_stand_in_the_lake(
    lake: Lake, manifest: PostgresManifest, dsn: str
) -> None:
    log = PostgresEventLog(dsn, lambda: NOON - timedelta(days=300))  # when these were recent
    ages = (1, 450, 699, 1_000)
    sessions = [_session(f"s{days}", days) for days in ages]
    await _append(log, sessions[:2])
    writer = _writer(manifest, lake, Clock(NOON))
    assert await writer.drop_sessions() == []
    assert await _sessions(dsn) == ["s1", "s450"]
    await _append(log, sessions[2:])
    await writer.catch_up()
    dropped = await writer.drop_sessions()
    assert len(dropped) == 2  # a thousand days are in no partition of their own
    assert await _sessions(dsn) == ["s1"]
    assert sorted((await _rows(manifest, lake))["event_id"]) == ["s1", "s1000", "s450", "s699"]
    await _append(log, [_session("late", days=450)])
    assert await writer.catch_up() == 1
    assert "late" in (await _rows(manifest, lake))["event_id"]
    await log.close()


async def test_files_of_an_older_version_are_read_with_what_they_lack_as_null(
    lake: Lake, manifest: PostgresManifest, log: PostgresEventLog
) -> None:
    await _append(log, _events(0, 30))
    await _writer(manifest, lake).catch_up()
    files = await manifest.files(ALL)
    for file in files[:3]:
        rows = scan(lake, [file]).collect().drop("session_seconds", "original_amount")
        lake.write(file.name, to_parquet(rows))
    rows = await _rows(manifest, lake)
    assert rows.schema == SCHEMA
    assert len(rows) == 30


def _is_whole(rows: pl.DataFrame) -> bool:
    """Whether each shard's seqs are there from 1 on, once each."""
    seq = pl.col("seq")
    by_shard = rows.group_by("shard").agg(seq.min(), seq.max().alias("last"), pl.len())
    distinct = rows.select("shard", "seq").n_unique() == len(rows)
    return distinct and bool(
        (by_shard["seq"] == 1).all() and (by_shard["last"] == by_shard["len"]).all()
    )


def _session(event_id: str, days: int) -> LoggedEvent:
    """A session that started so many days before noon."""
    at = NOON - timedelta(days=days)
    return a_logged_event(
        event_id=event_id, type="session.started", amount=None, currency=None, occurred_at=at
    )


async def _sessions(dsn: str) -> list[str]:
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch("SELECT event_id FROM user_sessions ORDER BY event_id")
    await connection.close()
    return [row["event_id"] for row in rows]
