"""Files that are streamed while they are made; the first page comes before the first byte."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

from fastapi import Response
from fastapi.responses import StreamingResponse

from crm.adapters.player_files import csv_of, parquet_of
from crm.domain.saved_segments import SavedSegment

_TYPES = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}


def with_files(responses: dict[int | str, dict[str, Any]]) -> dict[int | str, dict[str, Any]]:
    """Return a route's `responses` that says that it may answer a file too."""
    for media_type in _TYPES.values():
        schema = {"type": "string", "format": "binary"}
        responses[200]["content"][media_type.partition(";")[0]] = {"schema": schema}
    return responses


async def exported(
    segment: SavedSegment, pages: AsyncIterator[list[str]], kind: Literal["csv", "parquet"]
) -> Response:
    """Return the players of a segment as a file; what the first page raises becomes a problem."""
    started = _after(await anext(pages), pages)
    if kind == "csv":
        body = csv_of(started)
    else:
        facts = {"segment": segment.id, "version": str(segment.version), "brand": segment.brand}
        body = parquet_of(started, facts)
    name = f"{segment.id}-v{segment.version}.{kind}"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(body, media_type=_TYPES[kind], headers=headers)


async def _after(first: list[str], pages: AsyncIterator[list[str]]) -> AsyncIterator[list[str]]:
    yield first
    async for page in pages:
        yield page
