"""Shards that an owner brings in: their newest snapshot, and the replay behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest

from crm.adapters.memory import MemoryEventLog, MemoryFiles
from crm.domain.errors import (
    LogGap,
)
from crm.domain.events import LoggedEvent
from crm.domain.own_measures import OwnMeasure
from crm.domain.shards import SHARDS
from crm.services import shard_snapshots
from crm.services.shard_snapshots import ShardSnapshot
from tests.support.builders import NOON, a_brand, a_logged_event
from tests.support.clock import Clock
from tests.support.own_measures import OWN
from tests.support.owners import an_owner, appending, bets_of, features_of_all, some_bets


@pytest.fixture
def log() -> MemoryEventLog:
    """An empty log."""
    return MemoryEventLog()


@pytest.fixture
def noon() -> Clock:
    """A clock that stands at noon."""
    return Clock(NOON)


async def _with_snapshots(log: MemoryEventLog, noon: Clock, files: MemoryFiles) -> dict[str, int]:
    """Two snapshots of each shard with events and a tail after them; returns the bets."""
    async with an_owner(log, noon, files=files, name="former") as former:
        for start in (0, 30, 60):
            await appending(former, *some_bets(30, start))
            if start < 60:
                for shard in {event.shard for event in some_bets(3)}:
                    await former.snapshot(shard)
        return await bets_of(former)


class CountedLog(MemoryEventLog):
    """Counts what a replay reads."""

    replayed = 0

    async def read_after(
        self, after: Mapping[int, int]
    ) -> AsyncIterator[list[tuple[int, LoggedEvent]]]:
        async for chunk in super().read_after(after):
            self.replayed += len(chunk)
            yield chunk


async def test_snapshot_and_replay_give_what_was_never_stopped(noon: Clock) -> None:
    log, files = CountedLog(), MemoryFiles()
    before = await _with_snapshots(log, noon, files)
    async with an_owner(log, noon, files=files, name="successor") as successor:
        assert await bets_of(successor) == before == {"p0": 30, "p1": 30, "p2": 30}
        assert log.replayed == 30  # above the newest snapshots only


@pytest.mark.parametrize(
    ("damaged", "replayed"), [("newest", 60), ("all", 90), ("missing", 90), ("flipped bit", 90)]
)
async def test_a_damaged_snapshot_falls_back_to_an_older_one_or_to_the_log(
    noon: Clock, damaged: str, replayed: int
) -> None:
    log, files = CountedLog(), MemoryFiles()
    before = await _with_snapshots(log, noon, files)
    for name, data in list(files.files.items()):
        seq = int(name.partition("-")[2].partition(".")[0])
        if damaged == "missing":
            files.delete(name)
        elif damaged == "flipped bit":
            files.write(name, data[:-6] + bytes([data[-6] ^ 1]) + data[-5:])
        elif damaged == "all" or seq == 20:
            files.write(name, data[: len(data) // 2])
    async with an_owner(log, noon, files=files, name="successor") as successor:
        assert await bets_of(successor) == before
        assert log.replayed == replayed


async def test_a_snapshot_of_another_list_of_features_is_replaced_by_the_log(
    noon: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, files = CountedLog(), MemoryFiles()
    before = await _with_snapshots(log, noon, files)
    monkeypatch.setattr(shard_snapshots, "_MAGIC", b"crmshard2 of a later list")
    async with an_owner(log, noon, files=files, name="successor") as successor:
        assert await bets_of(successor) == before
        assert log.replayed == 90


def _cashouts(count: int) -> list[LoggedEvent]:
    return [
        a_logged_event(
            event_id=f"won{n}",
            type="bet.settled",
            player_id=f"p{n % 3}",
            properties={"result": "won", "x": 1.5},
        )
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("before", "after", "replayed"),
    [
        (OWN[:1], OWN[:1], 3),
        (OWN[:2], OWN[:1], 3),  # one is gone: the others stay readable
        (OWN[:2], (), 3),
        ((OWN[1], OWN[0]), OWN[:2], 3),
        # one is new: it alone is counted over all 9, and no zero is served for what was before
        ((), OWN[:1], 12),
        (OWN[:1], (OWN[1], OWN[0]), 12),
        ((replace(OWN[0], decimals=1),), OWN[:1], 12),  # the name alone is not enough
    ],
)
async def test_a_snapshot_is_read_whatever_measures_it_has(
    noon: Clock,
    before: tuple[OwnMeasure, ...],
    after: tuple[OwnMeasure, ...],
    replayed: int,
) -> None:
    log, files = CountedLog(), MemoryFiles()
    events = _cashouts(9)
    then, now = ({"demo": a_brand(measures=measures)} for measures in (before, after))
    async with an_owner(log, noon, files=files, brands=then) as former:
        await appending(former, *events[:6])
        for shard in {event.shard for event in events}:
            await former.snapshot(shard)
        await appending(former, *events[6:])
    async with an_owner(log, noon, files=files, brands=now) as successor:
        found = await features_of_all(successor)
        assert log.replayed == replayed
        for player in ("p0", "p1", "p2"):
            assert found[player]["win_count_lifetime"] == 3
            if after:
                assert found[player]["mean_cashout_lifetime"] == 150
            if len(after) == 2:
                assert found[player]["spin_x_sum_lifetime"] == 0


async def test_a_former_owners_snapshot_is_not_believed(noon: Clock) -> None:
    log, files = CountedLog(), MemoryFiles()
    async with an_owner(log, noon, files=files, name="former") as former:
        await appending(former, *some_bets(3))
        await log.claim(range(SHARDS), "other")
        for shard in list(former.epochs):
            await former.snapshot(shard)
    async with an_owner(log, noon, files=files, name="successor"):
        assert log.replayed == 3


async def test_an_event_that_the_log_lost_is_a_gap_at_the_start(
    log: MemoryEventLog, noon: Clock
) -> None:
    events = [a_logged_event(event_id=f"e{n}") for n in range(3)]
    async with an_owner(log, noon) as owner:
        await appending(owner, *events)

    class Forgetful(MemoryEventLog):
        lost = 2

        async def read_after(
            self, after: Mapping[int, int]
        ) -> AsyncIterator[list[tuple[int, LoggedEvent]]]:
            async for chunk in log.read_after(after):
                yield [(seq, event) for seq, event in chunk if seq != self.lost]

    for lost in (1, 2, 3):  # the first, one in the middle, the last that was acknowledged
        forgetful = Forgetful()
        forgetful.events, forgetful.lost = log.events, lost
        with pytest.raises(LogGap):
            async with an_owner(forgetful, noon):
                pass


async def test_an_event_that_the_log_has_twice_is_refused_at_the_start(
    log: MemoryEventLog, noon: Clock
) -> None:
    async with an_owner(log, noon) as owner:
        await appending(owner, *[a_logged_event(event_id=f"e{n}") for n in range(4)])

    class Stuttering(MemoryEventLog):
        async def read_after(
            self, after: Mapping[int, int]
        ) -> AsyncIterator[list[tuple[int, LoggedEvent]]]:
            async for chunk in log.read_after(after):
                events = [event for _, event in chunk]
                yield list(zip((1, 1, 4, 4), events, strict=True))  # as many, and of the same sum

    stuttering = Stuttering()
    stuttering.events = log.events
    with pytest.raises(LogGap, match="twice"):
        async with an_owner(stuttering, noon):
            pass


async def test_a_flipped_bit_of_a_snapshot_never_changes_what_it_says(
    log: MemoryEventLog, noon: Clock
) -> None:
    files = MemoryFiles()
    await _with_snapshots(log, noon, files)
    (data, *_) = files.files.values()
    for place in range(len(data)):
        damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with suppress(ValueError):  # else the bit meant nothing
            assert ShardSnapshot.decode(damaged) == ShardSnapshot.decode(data)


async def test_a_snapshot_keeps_an_event_ahead_of_the_clock_whose_player_did_nothing_yet(
    noon: Clock,
) -> None:
    log, files = MemoryEventLog(), MemoryFiles()
    event = a_logged_event(occurred_at=NOON + timedelta(minutes=4))
    async with an_owner(log, noon, files=files) as owner:
        await owner.append([[event]])
        await owner.snapshot(event.shard)
        assert await features_of_all(owner) == {}
    noon.move(minutes=5)
    async with an_owner(log, noon, files=files) as successor:
        assert (await features_of_all(successor))["p1"]["bet_count_lifetime"] == 1
