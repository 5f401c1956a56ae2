"""The laws of the event log, on the twin in memory and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal

import pytest

from crm.adapters.memory import MemoryEventLog
from crm.adapters.postgres.events import PostgresEventLog
from crm.domain.events import LoggedEvent
from crm.domain.ports import EventLog, SnapshotName
from crm.domain.shards import SHARDS
from tests.support.builders import NOON, a_logged_event, some_rates

ALL = list(range(SHARDS))


@pytest.fixture(params=["memory", "postgres"])
async def log(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[EventLog]:
    """An empty log, whose clock stands at noon."""
    if request.param == "memory":
        yield MemoryEventLog()
        return
    postgres = PostgresEventLog(dsn, lambda: NOON)
    yield postgres
    await postgres.close()


async def _epochs(log: EventLog, owner: str = "a") -> dict[int, int]:
    return {shard: claim.epoch for shard, claim in (await log.claim(ALL, owner)).items()}


async def _all_events(log: EventLog) -> list[tuple[int, LoggedEvent]]:
    return [item async for chunk in log.read_after(dict.fromkeys(ALL, 0)) for item in chunk]


async def test_new_events_get_the_next_seqs_of_their_shard_without_a_gap(log: EventLog) -> None:
    epochs = await _epochs(log)
    for start in (0, 5):
        groups = [[a_logged_event(event_id=f"e{n}")] for n in range(start, start + 5)]
        appended = await log.append(epochs, groups)
        assert appended.verdicts == [["accepted"]] * 5
        assert appended.seqs == list(range(start + 1, start + 6))
    assert sorted(seq for seq, _ in await _all_events(log)) == list(range(1, 11))


async def test_the_log_gives_back_what_was_appended(log: EventLog) -> None:
    epochs = await _epochs(log)
    events = [
        a_logged_event(event_id="bet", properties={"result": "of no meaning here"}),
        a_logged_event(event_id="in", type="session.started", amount=None, currency=None),
        a_logged_event(
            event_id="won",
            type="bet.settled",
            properties={"result": "won", "note": "ä\u2603"},
            occurred_at=NOON - timedelta(days=500, microseconds=7),
        ),
        *[
            a_logged_event(
                rates=some_rates(USD_EUR={"2026-01-01": "0.9"}),
                event_id=f"{kind}-{amount}",
                type=kind,
                amount=Decimal(amount),
                currency="USD",
            )
            for amount in ("12.34567890", "0E-8", "9e12")
            for kind in ("deposit.completed", "session.ended")
        ],
    ]
    await log.append(epochs, [[event] for event in events])
    found = {event.event_id: event for _, event in await _all_events(log)}
    for event in events:
        stored = found[event.event_id]
        for name in ("shard", "player_id", "type", "occurred_at", "received_at", "known_at",
                     "local_day", "amount_minor", "currency", "result", "backfill",
                     "original_amount", "original_currency"):  # fmt: skip
            assert getattr(stored, name) == getattr(event, name), name


async def test_the_same_event_again_is_a_duplicate_for_ever(log: EventLog) -> None:
    epochs = await _epochs(log)
    event = a_logged_event()
    await log.append(epochs, [[event]])
    again = await log.append(epochs, [[event], [event]])
    assert again.verdicts == [["duplicate"], ["duplicate"]]
    assert len(await _all_events(log)) == 1


async def test_a_taken_id_with_other_content_is_a_conflict_and_changes_nothing(
    log: EventLog,
) -> None:
    epochs = await _epochs(log)
    await log.append(epochs, [[a_logged_event()]])
    other = await log.append(epochs, [[a_logged_event(player_id="p2")]])
    assert other.verdicts == [["conflict"]]
    assert [event.player_id for _, event in await _all_events(log)] == ["p1"]


async def test_equal_ids_in_one_call_count_once(log: EventLog) -> None:
    epochs = await _epochs(log)
    event, other = a_logged_event(), a_logged_event(type="custom.spin")
    appended = await log.append(epochs, [[event], [event], [other]])
    assert appended.verdicts == [["accepted"], ["duplicate"], ["conflict"]]


async def test_a_group_with_a_conflict_stores_nothing(log: EventLog) -> None:
    epochs = await _epochs(log)
    await log.append(epochs, [[a_logged_event(event_id="taken")]])
    group = [a_logged_event(event_id="new"), a_logged_event(event_id="taken", type="custom.x")]
    appended = await log.append(epochs, [group])
    assert appended.verdicts == [["withheld", "conflict"]]
    assert [event.event_id for _, event in await _all_events(log)] == ["taken"]


async def test_a_former_owner_writes_nothing_and_its_refusal_is_told(log: EventLog) -> None:
    former = await _epochs(log, "a")
    await log.claim(ALL, "b")
    event = a_logged_event()
    appended = await log.append(former, [[event]])
    assert appended.verdicts == [["moved"]]
    assert appended.lost == [event.shard]
    assert await _all_events(log) == []


async def test_a_shard_that_was_not_claimed_is_not_written(log: EventLog) -> None:
    epochs = await _epochs(log)
    event = a_logged_event()
    del epochs[event.shard]
    assert (await log.append(epochs, [[event]])).verdicts == [["moved"]]


async def test_a_claim_tells_the_seq_that_was_reached(log: EventLog) -> None:
    event = a_logged_event()
    await log.append(await _epochs(log), [[event]])
    claims = await log.claim(ALL, "b")
    assert claims[event.shard].seq == 1
    assert {claim.epoch for claim in claims.values()} == {2}
    assert await log.epochs() == dict.fromkeys(ALL, 2)


async def test_a_snapshot_of_a_former_owner_is_not_listed(log: EventLog) -> None:
    epochs = await _epochs(log)
    await log.record_snapshot(SnapshotName(3, 10, "ours"), epochs[3], 1)
    await log.claim(ALL, "b")
    await log.record_snapshot(SnapshotName(3, 20, "theirs"), epochs[3], 1)
    assert [found.name for found in await log.snapshots(ALL)] == ["ours"]


async def test_two_owners_that_take_the_same_ids_at_once_store_each_once(dsn: str) -> None:
    logs = [PostgresEventLog(dsn, lambda: NOON) for _ in range(2)]
    halves = [list(range(0, SHARDS, 2)), list(range(1, SHARDS, 2))]
    epochs = [
        {shard: claim.epoch for shard, claim in (await log.claim(half, str(i))).items()}
        for i, (log, half) in enumerate(zip(logs, halves, strict=True))
    ]
    players = {
        event.shard % 2: event.player_id
        for event in (a_logged_event(player_id=f"p{n}") for n in range(20))
    }

    async def write(owner: int) -> list[str]:
        verdicts: list[str] = []
        for start in range(0, 100, 10):
            ids = range(start, start + 10) if owner else reversed(range(start, start + 10))
            groups = [[a_logged_event(event_id=f"e{n}", player_id=players[owner])] for n in ids]
            appended = await logs[owner].append(epochs[owner], groups)
            verdicts += [verdict for (verdict,) in appended.verdicts]
        return verdicts

    first, second = await asyncio.gather(write(0), write(1))
    assert sorted(first + second) == ["accepted"] * 100 + ["conflict"] * 100
    assert len(await _all_events(logs[0])) == 100
    for log in logs:
        await log.close()
