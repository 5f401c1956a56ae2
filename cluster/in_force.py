"""Which brands, rates and settings are in force in the running instance: var/run/in-force.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from cluster.layout import Layout
from configs.settings import Settings

if TYPE_CHECKING:
    from crm.domain.brands import Brand
    from crm.domain.rates import Rates


@dataclass(frozen=True)
class InForce:
    """Digests of what the shard owners know, and of what all others do."""

    owners: str
    others: str


def digests(brands: Mapping[str, Brand], rates: Rates, settings: Settings) -> InForce:
    """Return the digests of what would be in force: where nothing differs, they are the same."""
    api = replace(settings.api, port=0)  # an instance has its port for life, whatever is asked for
    known = list(brands.values())
    series = sorted(rates.series.items())
    lake = replace(settings.lake, uri=None)  # as is its place
    replicas = [api, settings.live, settings.predictions, settings.shards.coalesce]
    keepers = [settings.segments, settings.retrains, lake]
    others = [known, series, *replicas, *keepers]
    return InForce(_digest(known), _digest(others))


def note(layout: Layout, in_force: InForce) -> None:
    """Write down what is in force from now on."""
    beside = layout.in_force.with_suffix(".new")
    beside.write_text(json.dumps(asdict(in_force)))
    beside.replace(layout.in_force)


def forget(layout: Layout) -> None:
    """Say that nobody knows: it is about to change."""
    layout.in_force.unlink(missing_ok=True)


def read(layout: Layout) -> InForce | None:
    """Return what is in force, None if nobody knows: a change may have stopped half-way."""
    try:
        return InForce(**json.loads(layout.in_force.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _digest(known: Any) -> str:
    import msgspec

    return sha256(msgspec.json.encode(known, enc_hook=str, order="deterministic")).hexdigest()
