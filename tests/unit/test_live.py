"""The live socket over stores in memory: who is told what, at which pace, and who is not let in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import jsonschema
import msgspec
import pytest

from crm.domain.live import Audience, Job, Position, Wanted, from_cursor, to_cursor
from crm.services import live as hub_module
from crm.services.live import Hub, Mailbox
from crm.services.live_tickets import issue
from deployments.live import messages
from deployments.live.services import Limits
from deployments.live.socket import (
    BAD_MESSAGE,
    LATER,
    MESSAGES_A_MINUTE,
    REVOKED,
    TOO_LARGE,
    TOO_MANY,
    TOO_SLOW,
    UNAUTHORIZED,
)
from tests.support.api import KEY, a_client, problem_of
from tests.support.builders import NOON
from tests.support.live import Client, Live, a_live, a_transition, in_a_row
from tests.support.wait import wait_for_async

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    async with a_live() as running:
        yield running


async def _subscribed(live: Live, **first: Any) -> Client:
    client = await live.connect(**first)
    assert (await client.next())["type"] == "subscribed"
    return client


async def _joined(live: Live, **first: Any) -> Client:
    client = await _subscribed(live, **first)
    assert (await client.next())["type"] == "caught_up"
    return client


# --- transitions ---------------------------------------------------------------------------------


async def test_a_subscriber_is_told_of_what_commits_after_it_was_answered(live: Live) -> None:
    live.write("before")
    client = await _subscribed(live)
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
    one = await _joined(live, subscribe={"segments": ["s1"]})
    both = await _joined(live, subscribe={"segments": ["s2", "s1"]})
    other = await _joined(live, subscribe={"brand": "other", "segments": "all"})
    none = await _subscribed(live, subscribe={"counters": True})
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
    client = await _joined(live)
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
    first = await _joined(live)
    live.write(*in_a_row("a", 3))
    message = await first.next_of("transitions")
    first.leave()
    live.write(*in_a_row("b", 3))
    second = await _subscribed(live, cursor=message["cursor"])
    live.write(*in_a_row("c", 3))
    assert await second.players(6) == [*in_a_row("b", 3), *in_a_row("c", 3)]


async def test_a_long_absence_is_read_from_the_store_page_by_page(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live.hub, "_recent", 10)
    first = await _joined(live)
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
    client = await _subscribed(live, cursor=cursor, subscribe={"segments": ["s1"]})
    found: list[str] = []
    while (message := await client.next())["type"] != "caught_up":
        found += [item["player_id"] for item in message["items"]]
    return client, found


async def test_a_slow_reader_falls_behind_misses_nothing_and_holds_nobody_up(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module.Mailbox.__init__, "__defaults__", (2_000,))
    slow, quick = await _joined(live), await _joined(live)
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
    slow = await _joined(live)
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
    stuck = await _joined(live, subscribe={"segments": "all", "counters": True})
    quick = await _joined(live)
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
    jobs_only = await _subscribed(live, subscribe={"jobs": True})
    assert live.hub.position is None
    client = await _joined(live)
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
    client = await _joined(live, subscribe={"segments": "all", "counters": True})
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
    slow = await _subscribed(live, subscribe={"counters": True})
    quick = await _subscribed(live, subscribe={"counters": True})
    slow.reading.clear()
    for _ in range(5):
        await live.figures.tick()
        assert (await quick.next_of("counters"))["lost"] == 0
    slow.reading.set()
    assert (await slow.next_of("counters"))["events"] == 100  # it was on its way
    last = await slow.next_of("counters")
    assert (last["events"], last["lost"]) == (500, 3)


def _a_job(job_id: str = "j1", **changes: Any) -> Job:
    fields: dict[str, Any] = {
        "id": job_id, "kind": "import", "what": "importing bets.csv", "state": "running",
        "done": 0, "total": 100, "unit": "rows", "started_at": NOON, "changed_at": NOON,
    }  # fmt: skip
    return Job(**(fields | changes))


async def test_jobs_are_told_when_one_comes_and_whenever_they_change(live: Live) -> None:
    await live.jobs.put(_a_job("old", state="done", done=100))
    await live.jobs.put(_a_job("another's", brand="other"))
    client = await _subscribed(live, subscribe={"jobs": True})
    assert [(await client.next())["id"]] == ["old"]
    live.clock.move(seconds=1)
    await live.jobs.put(_a_job(done=50, brand="demo"))
    await live.board.tick()
    await live.board.tick()
    found = [await client.next()]
    live.clock.move(seconds=1)
    await live.jobs.put(_a_job(done=100, brand="demo", state="done"))
    await live.board.tick()
    found += [await client.next()]
    assert [(job["id"], job["done"], job["state"]) for job in found] == [
        ("j1", 50, "running"), ("j1", 100, "done"),
    ]  # fmt: skip
    assert client.received.empty()


async def test_a_job_that_is_not_heard_of_is_lost(live: Live) -> None:
    client = await _subscribed(live, subscribe={"jobs": True})
    await live.jobs.put(_a_job())
    await live.board.tick()
    assert (await client.next())["state"] == "running"
    live.clock.move(minutes=2)
    await live.board.tick()
    assert (await client.next())["state"] == "lost"


async def test_a_quiet_socket_gets_heartbeats_whose_cursor_moves_on(live: Live) -> None:
    client = await _joined(live, subscribe={"segments": ["s9"]}, **_unchecked(live))
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
    client = await _joined(live)
    client.say({"ping": 5})
    assert await client.next() == {"type": "pong", "ping": 5}
    for number in range(MESSAGES_A_MINUTE):
        client.say({"ping": number})
    error = await client.next_of("error")
    assert error["code"] == "rate_limited"
    assert await client.next() == {"type": "close", "code": TOO_MANY}


# --- who is not let in ---------------------------------------------------------------------------


async def _refused(client: Client, code: str, close: int) -> str:
    error = await client.next_of("error")
    assert error["code"] == code
    assert await client.next() == {"type": "close", "code": close}
    assert client.task is not None
    await asyncio.wait_for(client.task, 10)
    return str(error["message"])


async def test_a_ticket_opens_one_socket(live: Live) -> None:
    ticket = (await issue(live.services.tickets, KEY)).ticket
    await _joined(live, ticket=ticket)
    await _refused(await live.connect(ticket=ticket), "unauthorized", UNAUTHORIZED)


async def test_a_ticket_that_is_old_or_made_up_or_of_a_removed_key_opens_nothing(
    live: Live,
) -> None:
    ticket = (await issue(live.services.tickets, KEY)).ticket
    live.clock.move(seconds=31)
    await _refused(await live.connect(ticket=ticket), "unauthorized", UNAUTHORIZED)
    for made_up in ("", "live_x", KEY, sha256(ticket.encode()).hexdigest()):
        await _refused(await live.connect(ticket=made_up), "unauthorized", UNAUTHORIZED)
    removed = (await issue(live.services.tickets, "crm_removed")).ticket
    await _refused(await live.connect(ticket=removed), "unauthorized", UNAUTHORIZED)
    assert not live.hub.mailboxes


async def test_a_socket_that_shows_no_ticket_in_time_is_closed() -> None:
    async with a_live(Limits(ticket_s=0.01)) as live:
        await _refused(live.stranger(), "unauthorized", UNAUTHORIZED)
        client = live.stranger()
        client.leave()
        assert client.task is not None
        await client.task


async def test_nobody_without_a_ticket_takes_the_places_of_those_who_have_one() -> None:
    async with a_live(Limits(pending=2, sockets=2)) as live:
        strangers = [live.stranger() for _ in range(3)]
        assert await strangers[2].next() == {"type": "close", "code": LATER}
        strangers[0].leave()
        await asyncio.wait_for(_task(strangers[0]), 10)
        first, _ = await _joined(live), await _joined(live)
        assert await (await live.connect()).next() == {"type": "close", "code": LATER}
        first.leave()
        await asyncio.wait_for(_task(first), 10)
        await _joined(live)


def _task(client: Client) -> asyncio.Task[None]:
    assert client.task is not None
    return client.task


async def test_a_removed_key_closes_its_sockets(live: Live) -> None:
    client = await _joined(live)
    await live.sockets.tend()
    live.keys.known.clear()
    live.sockets._keys_read_at = float("-inf")
    await live.sockets.tend()
    await _refused(client, "unauthorized", REVOKED)


@pytest.mark.parametrize(
    "said",
    [
        "", "{", "[]", "null", '"x"', "\x00", "[" * 5_000, '{"ticket": "x"}',
        '{"subscribe": {}}', '{"ticket": 5, "subscribe": {}}',
        '{"ticket": "x", "subscribe": {"segments": "some"}}',
        '{"ticket": "x", "subscribe": {"segments": [""]}}',
        '{"ticket": "x", "subscribe": {"counters": 1}}',
        '{"ticket": "x", "subscribe": {}, "admin": true}',
        '{"ticket": "x", "subscribe": {}, "cursor": 5}',
        json.dumps({"ticket": "x", "subscribe": {"segments": ["s"] * 101}}),
        json.dumps({"ticket": "x" * 200, "subscribe": {}}),
        json.dumps({"ticket": "x", "subscribe": {"segments": ["s" * 200]}}),
    ],
    ids=range(18),
)  # fmt: skip
async def test_a_malformed_first_message_gets_one_clear_error(live: Live, said: str) -> None:
    client = live.stranger()
    client.say(said)
    assert len(await _refused(client, "invalid_message", BAD_MESSAGE)) < 200


async def test_long_and_binary_messages_and_strange_later_ones_are_refused(live: Live) -> None:
    client = live.stranger()
    client.say("x" * (messages.LONGEST + 1))
    await _refused(client, "too_large", TOO_LARGE)
    client = live.stranger()
    client.say_bytes(b"{}")
    await _refused(client, "invalid_message", BAD_MESSAGE)
    for later in ('{"ping": "x"}', '{"pong": 1}', "hello", '{"ticket": "x", "subscribe": {}}'):
        client = await _joined(live)
        client.say(later)
        await _refused(client, "invalid_message", BAD_MESSAGE)


async def test_unknown_brands_segments_and_cursors_are_named(live: Live) -> None:
    refused = (
        ({"subscribe": {"brand": "none"}}, "unknown_brand"),
        ({"subscribe": {"segments": ["typo"]}}, "unknown_segment"),
        ({"cursor": "x"}, "invalid_cursor"),
        ({"cursor": "-1-2"}, "invalid_cursor"),
        ({"cursor": "f" * 16 + "-1"}, "invalid_cursor"),
        ({"cursor": to_cursor(Position(10**9, 0))}, "invalid_cursor"),
    )
    for first, code in refused:
        await _refused(await live.connect(**first), code, BAD_MESSAGE)
    assert not live.hub.mailboxes


async def test_a_ticket_is_made_for_the_holder_of_a_key_alone(live: Live) -> None:
    async with a_client(live.app) as client:  # type: ignore[arg-type]  # any ASGI application
        problem_of(await client.post("/v1/live/tickets"), 401, "unauthorized")
        headers = {"authorization": f"Bearer {KEY}"}
        answer = await client.post("/v1/live/tickets", headers=headers)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        problem_of(await client.get("/v1/live", headers=headers), 426, "upgrade_required")
    await _joined(live, ticket=answer.json()["ticket"])


async def test_every_message_is_as_the_schema_says(live: Live) -> None:
    schema = messages.schema()
    outgoing = jsonschema.Draft202012Validator(
        {"$ref": "#/$defs/Outgoing", "$defs": schema["$defs"]}
    )
    seen: set[str] = set()
    await live.jobs.put(_a_job())
    client = await live.connect(subscribe={"segments": "all", "counters": True, "jobs": True})
    while len(seen) < 6:
        message = await client.next()
        outgoing.validate(message)
        seen.add(message["type"])
        if message["type"] == "caught_up":
            client.say({"ping": 1})
            live.write("a")
            await live.figures.tick()
    assert seen == {"subscribed", "caught_up", "transitions", "job", "counters", "pong"}


def test_the_documented_schema_is_the_one_in_force() -> None:
    documented = json.loads((DOCS / "live-messages.json").read_text())
    assert documented == messages.schema(), "write it again: python -m deployments.live.messages"


def test_every_message_and_close_code_is_documented() -> None:
    page = (DOCS / "live.md").read_text()
    for kind in get_args(messages.Outgoing):
        info = msgspec.inspect.type_info(kind)
        assert isinstance(info, msgspec.inspect.StructType)
        assert f"| `{info.tag}` |" in page
        for field in info.fields:
            assert f"`{field.name}" in page or f" {field.name}" in page, (info.tag, field.name)
    for code in (BAD_MESSAGE, UNAUTHORIZED, REVOKED, TOO_SLOW, TOO_MANY, TOO_LARGE, LATER):
        assert f"{code}" in page
