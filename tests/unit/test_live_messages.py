"""The live socket's messages are those that are documented."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

import jsonschema
import msgspec
import pytest

from crm.domain.facts import NewFact
from deployments.live import messages
from deployments.live.socket import (
    BAD_MESSAGE,
    LATER,
    REVOKED,
    TOO_LARGE,
    TOO_MANY,
    TOO_SLOW,
    UNAUTHORIZED,
)
from tests.support.live import Live, a_job, a_live

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    async with a_live() as running:
        yield running


async def test_every_message_is_as_the_schema_says(live: Live) -> None:
    schema = messages.schema()
    outgoing = jsonschema.Draft202012Validator(
        {"$ref": "#/$defs/Outgoing", "$defs": schema["$defs"]}
    )
    seen: set[str] = set()
    await live.jobs.put(a_job())
    client = await live.connect(
        subscribe={"segments": "all", "counters": True, "jobs": True, "facts": True}
    )
    while len(seen) < 7:
        message = await client.next()
        outgoing.validate(message)
        seen.add(message["type"])
        if message["type"] == "caught_up":
            client.say({"ping": 1})
            live.write("a")
            await live.figures.tick()
            await live.facts.tell("models", [NewFact("model.retrained", "demo", {"number": 1})])
            await live.fact_board.tick()
    assert seen == {"subscribed", "caught_up", "transitions", "job", "counters", "pong", "fact"}


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
