"""An import without a running system: shards that remember, a vault, files, stores."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

from crm.domain.brands import Brand, Currency
from crm.domain.errors import ShardsWarming
from crm.domain.events import LoggedEvent
from crm.domain.mappings import ImportMapping, parse_mapping
from crm.domain.ports import FeatureShards
from crm.domain.rates import Rates
from crm.services.imports import Importer, Outcome, Patience
from pipelines.chunks import Plan, plan
from pipelines.imports import Report, Stores, import_files

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TRIAL = Brand(
    id="trial",
    name="Trial",
    currency=Currency("EUR", 2),
    time_zone="UTC",
    starts_on=date(1990, 1, 1),
    country="PT",
)
BETS: dict[str, Any] = {
    "source": "bets",
    "brand": {"is": "trial"},
    "format": "csv",
    "columns": {
        "stake": "decimal",
        "won": {"type": "decimal", "missing": ["NA"]},
        "at": {"type": "time", "zone": "UTC"},
    },
    "player_id": "player",
    "occurred_at": "at",
    "known_at": "occurred_at",
    "backfill": True,
    "events": [
        {"name": "placed", "type": {"is": "bet.placed"}, "amount": "stake"},
        {
            "name": "settled",
            "type": {"is": "bet.settled"},
            "amount": "0 if won is None else stake + won",
            "properties": {"result": "'lost' if won is None else 'won'"},
        },
    ],
}
HEADER = "player,stake,won,at\n"


def a_mapping(**changes: Any) -> ImportMapping:  # whatever YAML can say
    """Return the mapping of a file of bets, changed; None takes a key away."""
    raw = BETS | changes
    return parse_mapping({key: value for key, value in raw.items() if value is not None})


class RememberingShards:
    """`append` as the port says it, over a dictionary; `warming` makes so many calls fail first."""

    def __init__(self, warming: int = 0) -> None:
        self.events: dict[tuple[str, str], LoggedEvent] = {}
        self.calls = 0
        self.warming = warming

    async def append(self, groups: Sequence[Sequence[LoggedEvent]]) -> list[list[str]]:
        """Store groups whole or not at all."""
        self.calls += 1
        if self.calls <= self.warming:
            raise ShardsWarming("the owner is being replaced")
        return [self._store(group) for group in groups]

    def _store(self, group: Sequence[LoggedEvent]) -> list[str]:
        verdicts = [self._verdict(event) for event in group]
        if "conflict" in verdicts:
            return ["withheld" if verdict == "accepted" else verdict for verdict in verdicts]
        for event in group:
            self.events.setdefault((event.brand, event.event_id), event)
        return verdicts

    def _verdict(self, event: LoggedEvent) -> str:
        known = self.events.get((event.brand, event.event_id))
        if known is None:
            return "accepted"
        return "duplicate" if known.fingerprint == event.fingerprint else "conflict"

    def total(self, event_type: str) -> int:
        """The sum of a type's amounts, in minor units."""
        return sum(e.amount_minor or 0 for e in self.events.values() if e.type == event_type)


class OpenVault:
    """Fingerprints without a key; seals nothing."""

    def seal(self, brand: str, player_id: str, field: str, value: str) -> bytes:
        """Refuse: no test here has personal fields."""
        raise NotImplementedError

    def fingerprint(self, content: bytes) -> bytes:
        """Return a digest."""
        return blake2b(content, digest_size=16).digest()


def now() -> datetime:
    """Return the same instant, always."""
    return NOW


def stores(shards: RememberingShards, *brands: Brand, rates: Rates | None = None) -> Stores:
    """Return stores over `shards`, in this process; without rates but for the given."""
    return Stores(
        {brand.id: brand for brand in brands or (TRIAL,)},
        lambda: cast("FeatureShards", shards),
        OpenVault,
        now,
        Patience(deadline_s=5, first_wait_s=0.001, longest_wait_s=0.002),
        rates or Rates(),
    )


def in_process(planned: Plan, stores: Stores) -> Iterator[Outcome]:
    """Store all rows in this process, one chunk after the other, without Ray."""

    async def opened() -> Importer:
        return stores.importer(planned)

    with asyncio.Runner() as runner:
        importer = runner.run(opened())
        for part in planned.parts():
            for chunk in planned.chunks(part):
                yield from runner.run(importer.store([chunk]))


def import_here(
    folder: Path, shards: RememberingShards, mapping: ImportMapping, *files: Path
) -> Report:
    """Import files in this process; the quarantine is `folder`/quarantine."""
    return import_files(plan(files, mapping), stores(shards), folder / "quarantine", in_process)


def a_file(folder: Path, name: str, content: str | bytes) -> Path:
    """Write a file and return its path."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
