"""The whole past of the log: from the lake and PostgreSQL, each event once, whatever one lacks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from crm.adapters import past
from crm.adapters.lake import Lake
from crm.adapters.lake_events import LakeEventFiles
from crm.adapters.past import LakeAndLog
from crm.adapters.postgres.events import PostgresEventLog
from crm.adapters.postgres.lake import PostgresManifest
from crm.adapters.postgres.pool import Pool
from crm.domain.errors import LogGap
from crm.domain.events import LoggedEvent
from crm.domain.shards import SHARDS
from crm.services.lake_writing import LakeWriter
from tests.support.builders import NOON, a_logged_event
from tests.support.clock import Clock
from tests.support.owners import an_owner, features_of_all

ALL = range(SHARDS)
Events = dict[tuple[int, int], LoggedEvent]


@dataclass
class _Log:
    log: PostgresEventLog
    manifest: PostgresManifest
    lake: Lake

    def __post_init__(self) -> None:
        self.past = LakeAndLog(self.log, self.manifest, self.lake)
        self.writer = LakeWriter(self.manifest, LakeEventFiles(self.lake), lambda: NOON)

    async def append(self, events: list[LoggedEvent]) -> None:
        epochs = {s: claim.epoch for s, claim in (await self.log.claim(ALL, "a")).items()}
        await self.log.append(epochs, [[event] for event in events])


@pytest.fixture
async def system(dsn: str, tmp_path: Path) -> AsyncIterator[_Log]:
    pool, log = Pool(dsn), PostgresEventLog(dsn, lambda: NOON - timedelta(days=300))
    yield _Log(log, PostgresManifest(pool), Lake(str(tmp_path)))
    await pool.close()
    await log.close()


async def _read(source: LakeAndLog | PostgresEventLog, after: int = 0) -> Events:
    found: Events = {}
    async for chunk in source.read_after(dict.fromkeys(ALL, after)):
        for seq, event in chunk:
            assert (event.shard, seq) not in found, "an event came twice"
            found[event.shard, seq] = event
    return found


def _events(start: int, end: int) -> list[LoggedEvent]:
    kinds = ("bet.placed", "session.started", "bet.settled", "deposit.completed")
    return [
        a_logged_event(
            event_id=f"e{n}",
            player_id=f"p{n % 7}",
            type=kinds[n % 4],
            amount=None if n % 4 == 1 else Decimal(n),
            currency=None,
            occurred_at=NOON - timedelta(days=2 * n),
            properties={"result": "won", "product": "live", "n": n},
        )
        for n in range(start, end)
    ]


async def test_the_past_is_what_the_log_says_wherever_the_lake_ends(
    system: _Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "EVENTS_A_READ", 13)  # files come in parts, and parts of files
    monkeypatch.setattr(past, "EVENTS_A_CHUNK", 5)
    await system.append(_events(0, 200))
    assert await _same(system)
    await system.writer.catch_up()
    await system.append(_events(200, 300))
    assert await _same(system)
    assert await _same(system, after=7)


async def _same(system: _Log, after: int = 0) -> bool:
    """Whether both tell the same; properties are equal as JSON."""
    found, log = await _read(system.past, after), await _read(system.log, after)
    return len(found) > 0 and {k: _as_json(e) for k, e in found.items()} == {
        k: _as_json(e) for k, e in log.items()
    }


def _as_json(event: LoggedEvent) -> object:
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    return fields | {"properties": msgspec.json.decode(event.properties)}


async def test_sessions_that_left_postgresql_are_in_the_past_still(system: _Log) -> None:
    await system.append(_events(0, 300))
    whole = await _read(system.log)
    await system.writer.catch_up()
    assert await system.writer.drop_sessions() != []
    assert len(await _read(system.log)) < len(whole)
    assert (await _read(system.past)).keys() == whole.keys()


async def test_an_owner_without_snapshots_counts_sessions_that_the_lake_alone_has(
    system: _Log,
) -> None:
    async with an_owner(system.log, Clock(NOON)) as owner:
        await owner.append([[event] for event in _events(0, 300)])
        before = await features_of_all(owner)
    await system.writer.catch_up()
    await system.writer.drop_sessions()
    with pytest.raises(LogGap):  # never a wrong feature in silence
        async with an_owner(system.log, Clock(NOON)):
            pass
    async with an_owner(system.log, Clock(NOON), past=system.past) as owner:
        assert await features_of_all(owner) == before


@pytest.mark.parametrize("damage", ["gone", "empty", "cut short"])
async def test_a_lake_that_cannot_be_read_is_done_without(system: _Log, damage: str) -> None:
    await system.append(_events(0, 300))
    await system.writer.catch_up()
    for file in (await system.manifest.files(ALL))[3:]:
        data = system.lake.read(file.name)
        system.lake.delete(file.name)
        if damage != "gone":
            system.lake.write(file.name, data[: 0 if damage == "empty" else len(data) // 2])
    assert await _same(system)
