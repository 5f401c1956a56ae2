"""What an owner tells with its events, on the twin in memory and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence, Set
from datetime import timedelta

import asyncpg
import pytest

from crm.adapters.memory import MemoryEventLog
from crm.adapters.postgres import events
from crm.adapters.postgres.events import PostgresEventLog
from crm.domain.errors import CrmError
from crm.domain.events import LoggedEvent
from crm.domain.membership import Transition
from crm.domain.ports import EventLog
from crm.domain.shards import SHARDS
from crm.domain.telling import Told
from tests.support.builders import NOON, a_logged_event

ALL = list(range(SHARDS))
EVENT = a_logged_event()
OTHER = (EVENT.shard + 1) % SHARDS


class Says:
    """Tells what it is made of; of the lost shards nothing."""

    def __init__(
        self,
        *transitions: Transition,
        clock_us: int = 1,
        arrived: Sequence[int] = (),
        owner: str = "a",
        finds: Sequence[Transition] = (),
    ) -> None:
        self._told = Told(owner, clock_us, transitions, arrived)
        self._finds = finds  # what the clock causes meanwhile
        self.shards: Set[int] = {one.shard for one in transitions} | set(arrived)
        self.due = True
        self.seqs: list[int] = []

    def of(self, new: Sequence[LoggedEvent], seqs: Sequence[int], lost: Set[int]) -> Told | None:
        """Return it, once the rows of all its shards are held."""
        del new
        self.seqs = list(seqs)
        if self._finds:
            self._told = self._told._replace(
                transitions=[*self._told.transitions, *self._finds],
            )
            self.shards |= {one.shard for one in self._finds}
            self._finds = ()
            return None
        kept = [one for one in self._told.transitions if one.shard not in lost]
        return self._told._replace(transitions=kept)


def _a_transition(shard: int = EVENT.shard, seq: int | None = 1, player: str = "p1") -> Transition:
    return Transition(shard, "demo", "s", 1, player, entered=True, seq=seq, at=NOON)


@pytest.fixture(params=["memory", "postgres"])
async def log(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[EventLog]:
    """An empty log."""
    if request.param == "memory":
        yield MemoryEventLog()
        return
    postgres = PostgresEventLog(dsn, lambda: NOON)
    yield postgres
    await postgres.close()


async def _written(log: EventLog, dsn: str) -> list[Transition]:
    if isinstance(log, MemoryEventLog):
        return list(log.transitions.values())
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("SELECT * FROM segment_transitions ORDER BY xact, id")
    finally:
        await connection.close()
    return [Transition(*[row[name] for name in Transition._fields]) for row in rows]


async def _epochs(log: EventLog, owner: str = "a") -> dict[int, int]:
    return {shard: claim.epoch for shard, claim in (await log.claim(ALL, owner)).items()}


async def test_transitions_are_written_with_their_events(log: EventLog, dsn: str) -> None:
    says = Says(_a_transition(), _a_transition(OTHER, None))
    await log.append(await _epochs(log), [[EVENT]], says)
    assert says.seqs == [1]
    assert await _written(log, dsn) == [_a_transition(), _a_transition(OTHER, None)]


async def test_what_the_clock_has_caused_is_written_without_any_event(
    log: EventLog, dsn: str
) -> None:
    appended = await log.append(await _epochs(log), [], Says(_a_transition(seq=None)))
    assert (appended.verdicts, appended.new) == ([], [])
    assert await _written(log, dsn) == [_a_transition(seq=None)]


async def test_what_is_told_again_is_there_once(log: EventLog, dsn: str) -> None:
    epochs = await _epochs(log)
    for _ in range(2):
        await log.append(epochs, [], Says(_a_transition(), _a_transition(seq=None)))
    assert await _written(log, dsn) == [_a_transition(), _a_transition(seq=None)]
    later = _a_transition(seq=None)._replace(at=NOON + timedelta(seconds=1))
    await log.append(epochs, [], Says(later))
    assert later in await _written(log, dsn)


async def test_of_a_shard_that_is_lost_nothing_is_told(log: EventLog, dsn: str) -> None:
    former = await _epochs(log)
    await log.claim([OTHER], "b")
    says = Says(_a_transition(), _a_transition(OTHER, None))
    appended = await log.append(former, [[EVENT]], says)
    assert (appended.verdicts, appended.lost) == ([["accepted"]], [OTHER])
    assert await _written(log, dsn) == [_a_transition()]


async def test_what_is_found_in_shards_that_are_not_held_makes_it_begin_anew(
    log: EventLog, dsn: str
) -> None:
    former = await _epochs(log)
    await log.claim([OTHER], "b")
    says = Says(_a_transition(), finds=[_a_transition(OTHER, None)])
    appended = await log.append(former, [[EVENT]], says)
    assert appended.lost == [OTHER]
    assert await _written(log, dsn) == [_a_transition()]


async def test_a_claim_says_up_to_where_the_former_owner_has_told(log: EventLog) -> None:
    epochs = await _epochs(log)
    assert {claim.clock_us for claim in (await log.claim([0], "a")).values()} == {None}
    epochs = await _epochs(log)
    await log.append(epochs, [], Says(clock_us=50))
    await log.append(epochs, [], Says(clock_us=70))
    assert (await log.claim([1], "b"))[1].clock_us == 70
    # b has told much, but not of shard 1, which has not arrived there
    await log.append({2: (await log.claim([2], "b"))[2].epoch}, [], Says(owner="b", clock_us=90))
    third = await log.claim([1, 2], "c")
    assert (third[1].clock_us, third[2].clock_us) == (70, 70)
    arrived = {shard: claim.epoch for shard, claim in third.items()}
    await log.append(arrived, [], Says(owner="c", clock_us=99, arrived=[1]))
    fourth = await log.claim([1, 2], "d")
    assert (fourth[1].clock_us, fourth[2].clock_us) == (99, 70)


async def test_readers_are_woken_by_the_first_and_not_by_those_that_follow_at_once(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[str] = []
    listening, log = await asyncpg.connect(dsn), PostgresEventLog(dsn, lambda: NOON)
    try:
        await listening.add_listener("segment_transitions", lambda *told: woken.append(told[2]))
        epochs = await _epochs(log)

        async def tell(n: int) -> None:
            at = NOON + timedelta(seconds=n)
            await log.append(epochs, [], Says(_a_transition(seq=None)._replace(at=at)))
            await listening.execute("SELECT 1")  # what was sent before has come

        await log.append(epochs, [], Says())  # the clock alone wakes nobody
        monkeypatch.setattr(events, "NOTIFY_EVERY_S", 3_600)
        for n in range(3):
            await tell(n)
        assert len(woken) == 1
        monkeypatch.setattr(events, "NOTIFY_EVERY_S", 0)
        await tell(3)
        assert len(woken) == 2
    finally:
        await listening.close()
        await log.close()


async def test_a_commit_that_came_to_nothing_has_woken_nobody(dsn: str) -> None:
    class Breaks(Says):
        def of(self, new: Sequence[LoggedEvent], seqs: Sequence[int], lost: Set[int]) -> Told:
            told = super().of(new, seqs, lost)
            assert told is not None
            return told._replace(owner=None)  # type: ignore[arg-type]  # PostgreSQL refuses it

    woken: list[str] = []
    listening, log = await asyncpg.connect(dsn), PostgresEventLog(dsn, lambda: NOON)
    try:
        await listening.add_listener("segment_transitions", lambda *told: woken.append(told[2]))
        epochs = await _epochs(log)
        with pytest.raises(CrmError):
            await log.append(epochs, [], Breaks(_a_transition()))
        await log.append(epochs, [], Says(_a_transition()))
        await listening.execute("SELECT 1")
        assert len(woken) == 1
    finally:
        await listening.close()
        await log.close()
