"""The messages of the live socket, both ways; docs/live.md describes them, and a test holds it so.

What many sockets get is rendered once: the items of a batch, and the body of counters.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from crm.domain.facts import Body, Fact, FactKind
from crm.domain.live import Chunk, Counters, Job, JobState, Position, Transition, to_cursor

LONGEST = 16 * 1024  # bytes of one message from a client
SEGMENTS = 100
_Id = Annotated[str, Meta(min_length=1, max_length=128)]

# --- from the client ---------------------------------------------------------------------------


class Subscribe(msgspec.Struct, forbid_unknown_fields=True):
    """What is wanted: transitions of these segments ("all", or none), counters, jobs, facts."""

    brand: Annotated[str, Meta(max_length=128)] | None = None
    segments: Annotated[list[_Id], Meta(max_length=SEGMENTS)] | Literal["all"] = []
    counters: bool = False
    jobs: bool = False
    facts: bool = False


class First(msgspec.Struct, forbid_unknown_fields=True):
    """The first message: a ticket, what is wanted, and where an earlier socket ended."""

    ticket: Annotated[str, Meta(max_length=128)]
    subscribe: Subscribe
    cursor: Annotated[str, Meta(max_length=64)] | None = None


class Ping(msgspec.Struct, forbid_unknown_fields=True):
    """Any later message: it comes back as a pong."""

    ping: int


# --- to the client -----------------------------------------------------------------------------


class Subscribed(msgspec.Struct, tag_field="type", tag="subscribed"):
    """The answer to the first message; every transition that commits from now on will come."""

    brand: str
    heartbeat_s: float
    cursor: str | None


class Item(msgspec.Struct):
    """One player entered or left one version of a saved segment.

    `seq` (within `shard`) names the event that caused it; null: the clock did.
    """

    segment: str
    version: int
    player_id: str
    change: Literal["entered", "left"]
    shard: int
    seq: int | None
    at: datetime
    made_at: datetime


class Transitions(msgspec.Struct, tag_field="type", tag="transitions"):
    """Transitions in order; keep the newest `cursor`, and send it when you connect again."""

    cursor: str
    items: list[Item]


class Behind(msgspec.Struct, tag_field="type", tag="behind"):
    """You read more slowly than transitions come: they are read from the store from here on."""

    cursor: str


class CaughtUp(msgspec.Struct, tag_field="type", tag="caught_up"):
    """Nothing is missing, and what comes is live."""

    cursor: str


class CountersMessage(msgspec.Struct, tag_field="type", tag="counters"):
    """Counters of the brand; `lost` older ones were left out because you read slowly.

    `segments`: how many entered and left since `since`, which changes when counting begins anew.
    `events` and `events_per_s` are of all brands together.
    """

    brand: str
    at: datetime
    events: int
    events_per_s: float
    players: int | None
    since: datetime
    segments: dict[str, tuple[int, int]]
    lost: int


class JobMessage(msgspec.Struct, tag_field="type", tag="job"):
    """How far long work has come: the newest state; steps in between may be left out."""

    id: str
    kind: str
    what: str
    state: JobState
    done: int
    total: int | None
    unit: str
    started_at: datetime
    changed_at: datetime
    brand: str | None
    message: str | None


class FactMessage(msgspec.Struct, tag_field="type", tag="fact"):
    """What happened to the models of the brand; `seq` counts the facts of all brands."""

    seq: int
    kind: FactKind
    brand: str
    at: datetime
    body: Body


class Heartbeat(msgspec.Struct, tag_field="type", tag="heartbeat"):
    """Nothing else came for a while; `cursor` has moved on all the same."""

    at: datetime
    cursor: str | None


class Pong(msgspec.Struct, tag_field="type", tag="pong"):
    """The answer to a ping."""

    ping: int


class ErrorMessage(msgspec.Struct, tag_field="type", tag="error"):
    """Why the socket is closed; it is the last message."""

    code: str
    message: str


Outgoing = (
    Subscribed | Transitions | Behind | CaughtUp | CountersMessage | JobMessage | FactMessage
    | Heartbeat | Pong | ErrorMessage
)  # fmt: skip
_encoder = msgspec.json.Encoder()


def text(message: object) -> str:
    """Return a message as it is sent."""
    return _encoder.encode(message).decode()


def transition_text(one: Transition) -> str:
    """Return one transition as an item of a message."""
    change: Literal["entered", "left"] = "entered" if one.entered else "left"
    return text(
        Item(
            one.segment, one.version, one.player_id, change, one.shard, one.seq, one.at, one.made_at
        )
    )


def transitions_text(items: Sequence[str], position: Position) -> str:
    """Return the message of rendered transitions, up to `position`."""
    head = f'{{"type":"transitions","cursor":"{to_cursor(position)}","items":['
    return f"{head}{','.join(items)}]}}"


def chunks_text(chunks: Sequence[Chunk]) -> str:
    """Return the message of chunks that the hub has rendered."""
    return transitions_text([chunk.text for chunk in chunks], chunks[-1].position)


def counters_body(counters: Counters) -> str:
    """Return the message of counters but for its end, which each subscriber has of its own."""
    return '{"type":"counters",' + text(counters)[1:-1]


def counters_text(body: str, lost: int) -> str:
    """Return the whole message of counters."""
    return f'{body},"lost":{lost}}}'


def job_text(job: Job) -> str:
    """Return the message of a job."""
    return text(JobMessage(**msgspec.structs.asdict(job)))


def fact_text(fact: Fact) -> str:
    """Return the message of a fact."""
    return text(FactMessage(fact.seq, fact.kind, fact.brand, fact.at, fact.body))


def schema() -> dict[str, Any]:
    """Return a JSON schema: `First` and `Ping` come from the client, `Outgoing` goes to it."""
    (*_, outgoing), components = msgspec.json.schema_components(
        (First, Ping, Outgoing), ref_template="#/$defs/{name}"
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": {**components, "Outgoing": outgoing},
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=1) + "\n")
