"""The API in this process: real routes, door, vault and shards, over stores in memory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

import httpx
import msgspec
from fastapi import FastAPI
from starlette.types import ASGIApp

from crm.adapters.memory import MemoryEventLog
from crm.adapters.memory_answers import MemoryAnswers
from crm.adapters.memory_model_files import MemoryModelFiles
from crm.adapters.memory_models import MemoryModels
from crm.adapters.memory_retrains import MemoryRetrains
from crm.adapters.memory_segments import MemorySegments
from crm.adapters.vault import FileKeyVault
from crm.domain.brands import Brand
from crm.domain.errors import DatabaseAway
from crm.domain.events import Door
from crm.domain.ports import FeatureShards, Quarantined
from crm.domain.rates import Rates
from crm.services.clustering import ServingClusters
from crm.services.ingest import Ingest
from crm.services.overview import Overviews
from crm.services.saved_segments import SavedSegments, new_segment_id
from deployments.api.app import create_app
from deployments.api.guard import KnownKeys
from deployments.api.services import Check, Services
from tests.support.builders import NOON, a_brand
from tests.support.clock import Clock
from tests.support.local_replays import LocalReplays
from tests.support.local_scores import LocalScores
from tests.support.local_shards import LocalShards
from tests.support.own_measures import OWN
from tests.support.owners import an_owner

KEY = "crm_a-key-of-the-tests"
EVENT: dict[str, Any] = {
    "event_id": "e1",
    "type": "bet.placed",
    "player_id": "p1",
    "brand": "demo",
    "occurred_at": "2026-03-10T11:00:00Z",
    "amount": "12.50",
    "currency": "EUR",
    "properties": {"product": "casino"},
}


class MemoryQuarantine:
    """Refused events in a list; may be away."""

    def __init__(self) -> None:
        self.rows: list[Quarantined] = []
        self.away = False

    async def keep(
        self, received_at: datetime, source: str, refused: Sequence[Quarantined]
    ) -> None:
        """Store refused events."""
        if self.away:
            raise DatabaseAway("the store is away")
        known = {row.digest for row in self.rows}
        self.rows.extend(row for row in refused if row.digest not in known)


class MemoryKeys:
    """The digests of some keys, and how often they were read; may be away."""

    def __init__(self, *keys: str) -> None:
        self.known = set(keys)
        self.away = False
        self.readings = 0

    async def digests(self) -> dict[bytes, str]:
        """Return key names by digest."""
        self.readings += 1
        if self.away:
            raise DatabaseAway("the store is away")
        return {sha256(key.encode()).digest(): key[:4] for key in self.known}


@dataclass(frozen=True)
class Api:
    """A running API, a client with its key, and what stands behind it."""

    app: FastAPI
    client: httpx.AsyncClient
    clock: Clock
    log: MemoryEventLog
    quarantine: MemoryQuarantine
    keys: MemoryKeys
    models: MemoryModels
    model_files: MemoryModelFiles
    vault: FileKeyVault
    segments: MemorySegments
    retrains: MemoryRetrains
    scores: LocalScores

    async def send(self, *events: object, **params: str) -> httpx.Response:
        """Post events."""
        body = json.dumps({"events": events})  # in ASCII: it can write what httpx cannot
        return await self.client.post("/v1/events", content=body, params=params)

    async def take(self, *events: object, **params: str) -> dict[str, Any]:
        """Post events; return the report."""
        answer = await self.send(*events, **params)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    @property
    def stored(self) -> list[str]:
        """The ids of all events in the log."""
        return [event.event_id for events in self.log.events.values() for event in events]

    def unsealed(self) -> list[Any]:
        """What the quarantine keeps, read with the vault's key."""
        return [
            row.sealed and json.loads(self.vault.unseal("", "", "quarantine", row.sealed))
            for row in self.quarantine.rows
        ]


async def _ok() -> str:
    return "ok"


@asynccontextmanager
async def an_api(
    *,
    checks: Mapping[str, Check] | None = None,
    shards: FeatureShards | None = None,
    rates: Rates | None = None,
    also: Iterable[Brand] = (),
) -> AsyncIterator[Api]:
    """An API over brands demo and other, and more; `shards` instead of real ones, if given."""
    other = a_brand(id="other", name="Other", measures=OWN)
    brands = {brand.id: brand for brand in (a_brand(), other, *also)}
    clock, log, vault = Clock(NOON), MemoryEventLog(), FileKeyVault(b"k" * 32)
    segments, retrains = MemorySegments(), MemoryRetrains()
    quarantine, keys = MemoryQuarantine(), MemoryKeys(KEY)
    models, files = MemoryModels(now=clock), MemoryModelFiles()
    async with an_owner(log, clock, brands=brands) as owner:
        shards = shards or LocalShards(owner, brands)
        scores = LocalScores.over(shards, brands, clock, models)
        services = Services(
            brands=brands,
            ingest=Ingest(Door(brands, vault, rates or Rates()), shards, quarantine, clock),
            shards=shards,
            clusters=ServingClusters(models),
            models=models,
            model_files=files,
            segments=SavedSegments(segments, shards, brands, clock, new_segment_id),
            overviews=Overviews(shards, MemoryAnswers(lambda: clock.seconds), clock),
            replays=LocalReplays(log),
            retrains=retrains,
            scores=scores,
            keys=KnownKeys(keys, lambda: clock.seconds),
            checks=checks or {"postgres": _ok, "shards": _ok, "redis": _ok},
            needed=frozenset({"postgres", "shards"}),
            now=clock,
        )
        app = create_app(services)
        async with a_client(app, {"authorization": f"Bearer {KEY}"}) as client:
            yield Api(
                app, client, clock, log, quarantine, keys, models, files, vault, segments,
                retrains, scores,
            )  # fmt: skip


def a_client(app: ASGIApp, headers: Mapping[str, str] | None = None) -> httpx.AsyncClient:
    """A client of `app`; what a route raises unexpectedly must be an answer."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers)


def an_event_body(**changes: Any) -> dict[str, Any]:
    """An event as JSON; a change to `...` leaves the field out."""
    return {name: value for name, value in (EVENT | changes).items() if value is not ...}


def problem_of(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem in `answer`, which has every mark of one."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = msgspec.json.decode(answer.content)
    assert (body["status"], body["code"]) == (status, code)
    assert body["type"] == "about:blank"
    assert body["message"] == body["detail"] != ""
    assert body["title"]
    assert answer.headers.get("retry-after") == ("1" if status == 503 else None)
    return body
