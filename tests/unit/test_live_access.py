"""Live sockets: who is not let in, and what is not taken."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from hashlib import sha256

import pytest

from crm.domain.live import Position, to_cursor
from crm.domain.transition_files import TransitionFile
from crm.services.live_tickets import issue
from deployments.live import messages
from deployments.live.services import Limits
from deployments.live.socket import (
    BAD_MESSAGE,
    LATER,
    REVOKED,
    TOO_LARGE,
    UNAUTHORIZED,
)
from tests.support.api import KEY, a_client, problem_of
from tests.support.builders import NOON
from tests.support.live import Client, Live, a_live


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    async with a_live() as running:
        yield running


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
    await live.joined(ticket=ticket)
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
        first, _ = await live.joined(), await live.joined()
        assert await (await live.connect()).next() == {"type": "close", "code": LATER}
        first.leave()
        await asyncio.wait_for(_task(first), 10)
        await live.joined()


def _task(client: Client) -> asyncio.Task[None]:
    assert client.task is not None
    return client.task


async def test_a_removed_key_closes_its_sockets(live: Live) -> None:
    client = await live.joined()
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
        client = await live.joined()
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


async def test_a_cursor_from_before_what_is_kept_is_told_so(live: Live) -> None:
    live.write("a")
    live.write("b")
    live.write("c")
    one, two, _ = (await live.stream.after(Position(0, 0), 9)).transitions
    live.stream.listed.append(TransitionFile("file", Position(0, 0), two.position, 2, NOON, NOON))
    await live.stream.drop(NOON + timedelta(seconds=1), 9)
    client = await live.connect(cursor=to_cursor(one.position))
    told = await client.next()  # before it is told that it is subscribed
    assert (told["type"], told["code"]) == ("error", "cursor_too_old")
    assert "begin without" in told["message"]
    assert await client.next() == {"type": "close", "code": BAD_MESSAGE}
    client = await live.subscribed(cursor=to_cursor(two.position))
    assert await client.players(1) == ["c"]


async def test_a_ticket_is_made_for_the_holder_of_a_key_alone(live: Live) -> None:
    async with a_client(live.app) as client:
        problem_of(await client.post("/v1/live/tickets"), 401, "unauthorized")
        headers = {"authorization": f"Bearer {KEY}"}
        answer = await client.post("/v1/live/tickets", headers=headers)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        problem_of(await client.get("/v1/live", headers=headers), 426, "upgrade_required")
    await live.joined(ticket=answer.json()["ticket"])
