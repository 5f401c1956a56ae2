"""Errors as RFC 9457 problem JSON: the one place where named facts meet their status code."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from crm.domain.errors import CrmError, InvalidRule

STATUS = {
    "invalid_json": 400,
    "invalid_rule": 422,
    "invalid_field": 422,
    "unauthorized": 401,
    "unknown_brand": 404,
    "player_not_found": 404,
    "clusters_not_found": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "too_large": 413,
    "too_many_events": 413,
    "warming": 503,
    "database_unavailable": 503,
}
RETRY_AFTER_S = 1
_CODES = {404: "not_found", 405: "method_not_allowed"}


def problem(code: str, message: str, **more: object) -> Response:
    """Return a problem document; `code` decides the status."""
    status = STATUS.get(code, 500)
    body = {
        "type": "about:blank",
        "title": message,
        "status": status,
        "code": code,
        "message": message,
    }
    headers = {"retry-after": str(RETRY_AFTER_S)} if status == 503 else {}  # noqa: PLR2004
    if status == 401:  # noqa: PLR2004
        headers["www-authenticate"] = "Bearer"
    return Response(
        msgspec.json.encode({**body, **more}),
        status,
        headers=headers,
        media_type="application/problem+json",
    )


async def _named(_request: Request, error: Exception) -> Response:
    if isinstance(error, InvalidRule):
        return problem(error.code, error.message, position=error.position)
    if isinstance(error, CrmError):
        return problem(error.code, error.message)
    raise error


async def _http(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = _CODES.get(status, "invalid_field")
    message = "no such path" if status == 404 else "this path does not take this method"  # noqa: PLR2004
    return problem(code, message)


async def _validation(_request: Request, error: Exception) -> Response:
    """Say what is wrong and where, without what was sent."""
    faults: list[dict[str, Any]] = []
    if isinstance(error, RequestValidationError):
        faults = [
            {"where": ".".join(str(part) for part in fault["loc"]), "message": fault["msg"]}
            for fault in error.errors()
        ]
    first = f"{faults[0]['where']}: {faults[0]['message']}" if faults else "invalid request"
    if any("JSON" in fault["message"] for fault in faults):
        return problem("invalid_json", "the body is not valid JSON")
    return problem("invalid_field", first, errors=faults)


def install(app: FastAPI) -> None:
    """Make `app` answer every error with a problem document."""
    app.add_exception_handler(CrmError, _named)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _validation)
