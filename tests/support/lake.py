"""Rows of the lake made without a database: what PostgreSQL's query gives, for fast tests."""

from __future__ import annotations

import json
from collections.abc import Sequence

import polars as pl
import pyarrow as pa

from crm.adapters.lake_events import SCHEMA
from crm.domain.events import LoggedEvent

_LONGEST_SESSION_S = 604_800
Values = dict[str, int | None]


def lake_rows(events: Sequence[LoggedEvent]) -> pl.DataFrame:
    """The rows of events, numbered in their order."""
    return pl.DataFrame([_row(e, seq) for seq, e in enumerate(events, 1)], SCHEMA, orient="row")


def _row(event: LoggedEvent, seq: int) -> tuple[object, ...]:
    said = json.loads(event.properties)
    bet = event.type in {"bet.placed", "bet.settled"}
    return (
        event.shard, seq, event.brand, event.player_id, event.event_id, event.type,
        event.occurred_at, event.received_at, event.known_at, event.local_day,
        event.amount_minor, event.currency, event.backfill, event.result,
        _text(said.get("product")) if bet else None,
        _text(said.get("method")) if event.type == "deposit.completed" else None,
        _seconds(said.get("duration_s")) if event.type == "session.ended" else None,
        event.properties, event.original_amount, event.original_currency,
    )  # fmt: skip


def _text(value: object) -> str | None:
    """What `->>` gives."""
    return value if isinstance(value, str) or value is None else json.dumps(value)


def _seconds(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    whole = value == int(value) and 0 <= value <= _LONGEST_SESSION_S
    return int(value) if whole else None


def features_by_player(table: pa.Table) -> dict[str, Values]:
    """Every feature of every player of a batch, None where it is missing."""
    rows = table.to_pylist()
    return {row.pop("player_id"): row for row in rows}
