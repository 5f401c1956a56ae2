"""The live socket over stores in memory: who is told what, and at which pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from crm.adapters.memory_live import MemoryTransitions
from crm.domain.facts import NewFact
from crm.domain.live import Audience, Position, Wanted, from_cursor
from crm.services import live as hub_module
from crm.services.live import Hub, Mailbox
from crm.services.live_reading import Pace, Reader
from deployments.live.services import Limits
from deployments.live.socket import (
    MESSAGES_A_MINUTE,
    TOO_MANY,
)
from tests.support.builders import NOON
from tests.support.live import Client, Live, a_job, a_live, a_transition, in_a_row
from tests.support.wait import wait_for_async


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    async with a_live() as running:
        yield running


# --- transitions ---------------------------------------------------------------------------------


async def test_a_subscriber_is_told_of_what_commits_after_it_was_answered(live: Live) -> None:
    live.write("before")
    client = await live.subscribed()
    live.write("ana", "bea")
    live.write("ana", entered=False, seq=None)
    items: list[dict[str, Any]] = []
    while len(items) < 3:
        items += (await client.next_of("transitions"))["items"]
    assert [(item["player_id"], item["change"], item["seq"]) for item in items] == [
        ("ana", "entered", 7), ("bea", "entered", 7), ("ana", "left", None),
    ]  # fmt: skip
    assert items[0] == {
        "segment": "s1", "version": 1, "player_id": "ana", "change": "entered", "shard": 3,
        "seq": 7, "at": "2026-03-10T12:00:00Z", "made_at": "2026-03-10T12:00:00Z",
    }  # fmt: skip


async def test_each_is_told_of_its_own_brand_and_segments_only(live: Live) -> None:
    live.write("x", segment="s1")
    live.write("x", segment="s2")
    live.write("x", segment="s1", brand="other")
    one = await live.joined(subscribe={"segments": ["s1"]})
    both = await live.joined(subscribe={"segments": ["s2", "s1"]})
    other = await live.joined(subscribe={"brand": "other", "segments": "all"})
    none = await live.subscribed(subscribe={"counters": True})
    live.write("a", segment="s2")
    live.write("b", segment="s1")
    live.write("c", segment="s1", brand="other")
    live.write("d", segment="s3")
    live.write("e", segment="s1")
    assert await one.players(2) == ["b", "e"]
    assert await both.players(3) == ["a", "b", "e"]
    assert await other.players(1) == ["c"]
    assert none.received.empty()


async def test_a_transaction_that_commits_late_is_told_and_nothing_twice(live: Live) -> None:
    client = await live.joined()
    early = live.stream.begin()
    live.stream.write(early, a_transition("early"))
    live.write("late")
    live.write("later")
    assert await _nothing_comes(live, client)
    live.stream.commit(early)
    assert await client.players(3) == ["early", "late", "later"]


async def _nothing_comes(live: Live, client: Client) -> bool:
    before = live.hub.position

    async def looked_again() -> bool:
        page = await live.stream.after(before or Position(0, 0), 10)
        return page.held

    assert await wait_for_async(looked_again, "the rows are held back")
    for _ in range(20):
        await asyncio.sleep(0)
    return client.received.empty()


async def test_a_reconnect_goes_on_where_its_cursor_stands(live: Live) -> None:
    first = await live.joined()
    live.write(*in_a_row("a", 3))
    message = await first.next_of("transitions")
    first.leave()
    live.write(*in_a_row("b", 3))
    second = await live.subscribed(cursor=message["cursor"])
    live.write(*in_a_row("c", 3))
    assert await second.players(6) == [*in_a_row("b", 3), *in_a_row("c", 3)]


async def test_a_long_absence_is_read_from_the_store_page_by_page(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live.hub, "_recent", 10)
    first = await live.joined()
    live.write("start")
    cursor = (await first.next_of("transitions"))["cursor"]
    for number in range(30):
        live.write(*in_a_row("a", 50, 50 * number))
        live.write("no", segment="s2")
    await first.players(1_500)
    second = await _joined_late(live, cursor)
    assert second[1] == in_a_row("a", 1_500)
    live.write("now")
    assert await second[0].players(1) == ["now"]


async def _joined_late(live: Live, cursor: str) -> tuple[Client, list[str]]:
    client = await live.subscribed(cursor=cursor, subscribe={"segments": ["s1"]})
    found: list[str] = []
    while (message := await client.next())["type"] != "caught_up":
        found += [item["player_id"] for item in message["items"]]
    return client, found


async def test_a_slow_reader_falls_behind_misses_nothing_and_holds_nobody_up(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module.Mailbox.__init__, "__defaults__", (2_000,))
    slow, quick = await live.joined(), await live.joined()
    slow.reading.clear()
    for number in range(20):
        live.write(*in_a_row("a", 10, 10 * number))
        assert await quick.players(10) == in_a_row("a", 10, 10 * number)
    slow.reading.set()
    kinds: list[str] = []
    found: list[str] = []
    while len(found) < 200:
        message = await slow.next()
        kinds.append(message["type"])
        found += [item["player_id"] for item in message.get("items", ())]
    assert found == in_a_row("a", 200)
    assert kinds.count("behind") == 1
    assert (await slow.next())["type"] == "caught_up"
    live.write("now")
    assert await slow.players(1) == ["now"]


async def test_what_waits_for_a_slow_reader_is_bounded(live: Live) -> None:
    slow = await live.joined()
    slow.reading.clear()
    for number in range(300):
        live.write(*in_a_row("a", 50, 50 * number))
    await wait_for_async(lambda: _fell_out(live), "the slow one has fallen out of the stream")
    (box,) = live.hub.mailboxes
    assert box.empty
    assert box._size == 0


async def _fell_out(live: Live) -> bool:
    (box,) = live.hub.mailboxes
    return not box.live


async def test_one_who_has_stopped_reading_is_closed(live: Live) -> None:
    stuck = await live.joined(subscribe={"segments": "all", "counters": True})
    quick = await live.joined()
    stuck.reading.clear()
    live.write("a")
    assert await quick.players(1) == ["a"]
    await wait_for_async(lambda: _sends(live), "it is being sent to")
    live.sockets._services = _impatient(live)
    await live.sockets.tend()
    assert stuck.task is not None
    await asyncio.wait_for(stuck.task, 10)
    live.write("b")
    assert await quick.players(1) == ["b"]
    assert len(live.hub.mailboxes) == 1


async def _sends(live: Live) -> bool:
    return any(socket.sending_since is not None for socket in live.sockets._open)


def _impatient(live: Live) -> Any:
    return replace(live.services, limits=Limits(stall_s=-1, heartbeat_s=1e9))


async def test_the_reader_rests_while_nobody_wants_transitions(live: Live) -> None:
    jobs_only = await live.subscribed(subscribe={"jobs": True})
    assert live.hub.position is None
    client = await live.joined()
    assert live.hub.position is not None
    client.leave()
    live.write("a")  # wakes the reader, which sees that nobody is there
    await wait_for_async(lambda: _rests(live), "the reader rests")
    jobs_only.leave()


async def _rests(live: Live) -> bool:
    return live.hub.position is None


def _a_hub(batches: int, recent: int) -> Hub:
    """A hub that was handed batches of three: transaction n holds players n-0, n-1 and n-2."""
    hub = Hub(lambda one: one.player_id, lambda: NOON, recent)
    hub.start(Position(0, 9))
    for xact in range(1, batches + 1):
        rows = [a_transition(f"{xact}-{n}", position=Position(xact, n)) for n in range(3)]
        hub.publish(rows, Position(xact, 9))
    return hub


def _joins(hub: Hub, after: Position) -> list[str] | None:
    """What a mailbox that joins after a position gets at once; None: it has to read the store."""
    box = Mailbox(Wanted(Audience("demo", None)))
    joined = hub.join(box, after)
    assert box.live is joined
    if not joined:
        return None
    return [player for chunk in box.take(10**6) for player in chunk.text.split(",")]


async def test_who_joins_in_the_middle_of_a_batch_gets_the_rest_of_it() -> None:
    hub = _a_hub(3, recent=100)
    assert _joins(hub, Position(2, 1)) == ["2-2", "3-0", "3-1", "3-2"]
    assert _joins(hub, Position(2, 9)) == ["3-0", "3-1", "3-2"]
    assert _joins(hub, Position(3, 9)) == []
    assert len(_joins(hub, Position(0, 9)) or ()) == 9
    assert _joins(hub, Position(4, 0)) is None  # ahead of the stream: it waits


async def test_who_comes_from_before_what_is_kept_reads_the_store() -> None:
    hub = _a_hub(10, recent=7)  # two batches of three
    assert _joins(hub, Position(8, 9)) == [f"{x}-{n}" for x in (9, 10) for n in range(3)]
    for xact in (0, 7):
        assert _joins(hub, Position(xact, 9)) is None
    hub.publish([], Position(20, 0))  # a step without rows keeps what is there
    assert len(_joins(hub, Position(8, 9)) or ()) == 6
    hub.stop()
    assert _joins(hub, Position(20, 0)) is None
    hub.start(Position(30, 0))
    assert _joins(hub, Position(20, 0)) is None


# --- counters, jobs, heartbeats ------------------------------------------------------------------


async def test_counters_come_once_a_tick_with_what_moved(live: Live) -> None:
    client = await live.joined(subscribe={"segments": "all", "counters": True})
    live.write("a", "b")
    live.write("a", entered=False)
    await client.players(3)
    await live.figures.tick()
    first = await client.next_of("counters")
    live.clock.move(seconds=2)
    await live.figures.tick()
    second = await client.next_of("counters")
    assert (first["events"], first["events_per_s"], first["lost"]) == (100, 0, 0)
    assert (second["events"], second["events_per_s"], second["lost"]) == (200, 50, 0)
    assert second["players"] == 42
    assert second["segments"] == {"s1": [2, 1]}


async def test_a_slow_reader_of_counters_gets_the_newest_and_is_told_how_many_it_lost(
    live: Live,
) -> None:
    slow = await live.subscribed(subscribe={"counters": True})
    quick = await live.subscribed(subscribe={"counters": True})
    slow.reading.clear()
    for _ in range(5):
        await live.figures.tick()
        assert (await quick.next_of("counters"))["lost"] == 0
    slow.reading.set()
    assert (await slow.next_of("counters"))["events"] == 100  # it was on its way
    last = await slow.next_of("counters")
    assert (last["events"], last["lost"]) == (500, 3)


async def test_jobs_are_told_when_one_comes_and_whenever_they_change(live: Live) -> None:
    await live.jobs.put(a_job("old", state="done", done=100))
    await live.jobs.put(a_job("another's", brand="other"))
    client = await live.subscribed(subscribe={"jobs": True})
    assert [(await client.next())["id"]] == ["old"]
    live.clock.move(seconds=1)
    await live.jobs.put(a_job(done=50, brand="demo"))
    await live.board.tick()
    await live.board.tick()
    found = [await client.next()]
    live.clock.move(seconds=1)
    await live.jobs.put(a_job(done=100, brand="demo", state="done"))
    await live.board.tick()
    found += [await client.next()]
    assert [(job["id"], job["done"], job["state"]) for job in found] == [
        ("j1", 50, "running"), ("j1", 100, "done"),
    ]  # fmt: skip
    assert client.received.empty()


async def test_a_job_that_is_not_heard_of_is_lost(live: Live) -> None:
    client = await live.subscribed(subscribe={"jobs": True})
    await live.jobs.put(a_job())
    await live.board.tick()
    assert (await client.next())["state"] == "running"
    live.clock.move(minutes=2)
    await live.board.tick()
    assert (await client.next())["state"] == "lost"


async def test_facts_of_the_brand_are_told_from_now_on_and_in_order(live: Live) -> None:
    await live.facts.tell("models", [NewFact("model.retrained", "demo", {"number": 1})])
    client = await live.subscribed(subscribe={"facts": True})
    other = await live.subscribed(subscribe={"facts": True, "brand": "other"})
    told = [
        NewFact("features.computed", "demo", {"players": 5}),
        NewFact("model.retrained", "other", {}),
        NewFact("clustering.updated", "demo", {"model": "m1", "before": None}),
    ]
    await live.facts.tell("models", told)
    for _ in range(2):
        await live.fact_board.tick()
    found = [await client.next(), await client.next()]
    assert [(one["type"], one["seq"], one["kind"]) for one in found] == [
        ("fact", 2, "features.computed"), ("fact", 4, "clustering.updated"),
    ]  # fmt: skip
    assert found[1]["body"] == {"model": "m1", "before": None}
    assert (await other.next())["seq"] == 3
    assert client.received.empty()


async def test_a_quiet_socket_gets_heartbeats_whose_cursor_moves_on(live: Live) -> None:
    client = await live.joined(subscribe={"segments": ["s9"]}, **_unchecked(live))
    before = live.hub.position
    live.write("a", segment="s1")
    await live.hub.reached(Position((before or Position(0, 0)).xact + 1, 0))
    live.sockets._services = _hearty(live)
    await live.sockets.tend()
    heartbeat = await client.next()
    assert heartbeat["type"] == "heartbeat"
    assert from_cursor(heartbeat["cursor"]) == live.hub.position


def _unchecked(live: Live) -> dict[str, Any]:
    live.write("somebody", segment="s9")
    return {}


def _hearty(live: Live) -> Any:
    return replace(live.services, limits=Limits(heartbeat_s=0))


async def test_a_ping_comes_back_and_too_many_close_the_socket(live: Live) -> None:
    client = await live.joined()
    client.say({"ping": 5})
    assert await client.next() == {"type": "pong", "ping": 5}
    for number in range(MESSAGES_A_MINUTE):
        client.say({"ping": number})
    error = await client.next_of("error")
    assert error["code"] == "rate_limited"
    assert await client.next() == {"type": "close", "code": TOO_MANY}


async def test_a_reader_that_begins_looks_by_itself_for_a_while() -> None:
    """A writer that woke others a moment ago does not wake it."""
    waited: list[float] = []

    class Untold(MemoryTransitions):
        async def changed(self, timeout_s: float) -> None:
            waited.append(timeout_s)
            await asyncio.sleep(0)

    hub = Hub(lambda _: "", lambda: NOON)
    hub.attach(Mailbox(Wanted(Audience("demo", None))))
    reading = asyncio.create_task(Reader(Untold(), hub, Pace(recently_s=3_600)).follow())
    await wait_for_async(lambda: _is(len(waited) > 2), "it has looked a few times")
    reading.cancel()
    assert set(waited) == {Pace.lookout_s}


async def _is(fact: bool) -> bool:
    return fact
