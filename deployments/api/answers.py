"""What routes answer: a JSON body, and how OpenAPI is told of it and of the problems."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Response

from deployments.api.problems import MEDIA_TYPE, STATUS, Problem

REF = "#/components/schemas/{name}"


def json(body: object, status: int = 200) -> Response:
    """Return `body` as JSON."""
    return Response(msgspec.json.encode(body), status, media_type="application/json")


def encoded(body: bytes) -> Response:
    """Return a body that is JSON already."""
    return Response(body, media_type="application/json")


def answers(body: type, *codes: str, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """Return a route's `responses`: the body's type, and its problems by the contract's codes."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(STATUS[code], []).append(code)
    done = {"description": "Done.", "content": {"application/json": _of(body)}}
    return {status: done, **{found: problems(*named) for found, named in by_status.items()}}


def problems(*codes: str) -> dict[str, Any]:
    """Return the description of problems that share a status."""
    listed = ", ".join(f"`{code}`" for code in codes)
    return {"description": f"Problem: {listed}.", "content": {MEDIA_TYPE: _of(Problem)}}


def _of(body: type) -> dict[str, Any]:
    return {"schema": {"$ref": REF.format(name=body.__name__)}}
