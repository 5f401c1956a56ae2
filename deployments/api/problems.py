"""Errors as RFC 9457 problem JSON: the one place where named facts meet their status code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from crm.domain.errors import CrmError, InvalidList, InvalidRule
from crm.domain.personal import holds_card, looks_personal

STATUS = {
    "invalid_json": 400,
    "invalid_idempotency_key": 400,
    "unauthorized": 401,
    "unknown_brand": 404,
    "player_not_found": 404,
    "clusters_not_found": 404,
    "cluster_not_found": 404,
    "cluster_has_no_rule": 409,
    "segment_not_found": 404,
    "no_reference": 404,
    "retrain_not_found": 404,
    "model_not_found": 404,
    "model_file_not_found": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "slow_body": 408,
    "retrain_running": 409,
    "model_not_better": 409,
    "no_former_model": 409,
    "serving_changed": 409,
    "segment_archived": 409,
    "segment_changed": 409,
    "segment_in_use": 409,
    "segment_name_taken": 409,
    "too_large": 413,
    "too_many_events": 413,
    "unsupported_media_type": 415,
    "idempotency_key_reused": 422,
    "invalid_cursor": 422,
    "invalid_list": 422,
    "upgrade_required": 426,
    "invalid_reason": 422,
    "invalid_rule": 422,
    "invalid_segment": 422,
    "invalid_field": 422,
    "too_much_work": 422,
    "internal": 500,
    "model_unusable": 503,
    "model_unreadable": 503,
    "warming": 503,
    "database_unavailable": 503,
    "model_file_lost": 503,
}
MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1
_HTTP = {
    HTTPStatus.BAD_REQUEST: ("invalid_json", "the body is not UTF-8 JSON, or is nested too deep"),
    HTTPStatus.NOT_FOUND: ("not_found", "no such path; see /docs"),
    HTTPStatus.METHOD_NOT_ALLOWED: (
        "method_not_allowed",
        "this path does not take this method; see the Allow header",
    ),
}
_SHOWABLE = re.compile(r"[A-Za-z_]{1,32}|[0-9]{1,6}")


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong with a request, and where."""

    where: str
    message: str


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An error (RFC 9457): `code` is stable, `message` (also `detail`) is for people.

    `position` is the character (from 0) where a rule goes wrong.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    message: str
    position: int | msgspec.UnsetType | None = msgspec.UNSET
    errors: Sequence[Fault] | msgspec.UnsetType = msgspec.UNSET


def problem(
    code: str,
    message: str,
    *,
    position: int | msgspec.UnsetType | None = msgspec.UNSET,
    errors: Sequence[Fault] | msgspec.UnsetType = msgspec.UNSET,
) -> Response:
    """Return a problem document; `code` decides the status."""
    status = HTTPStatus(STATUS.get(code, HTTPStatus.INTERNAL_SERVER_ERROR))
    if looks_personal(message) or holds_card(message):  # the last net, not the first
        message = "the request is not valid; what it holds is not repeated here"
    body = Problem(
        title=status.phrase,
        status=status,
        detail=message,
        code=code,
        message=message,
        position=position,
        errors=errors,
    )
    response = Response(msgspec.json.encode(body), status, media_type=MEDIA_TYPE)
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["retry-after"] = str(RETRY_AFTER_S)
    if status is HTTPStatus.UNAUTHORIZED:
        response.headers["www-authenticate"] = "Bearer"
    return response


async def _named(_request: Request, error: Exception) -> Response:
    return _of(error)


def _of(error: Exception) -> Response:
    """Return the problem that a named fact is."""
    if isinstance(error, InvalidRule):
        return problem(error.code, error.message, position=error.position)
    if isinstance(error, InvalidList) and error.lines:
        faults = [Fault(f"line {line}", message) for line, message in error.lines]
        return problem(error.code, error.message, errors=faults)
    if isinstance(error, CrmError):
        return problem(error.code, error.message)
    raise error


async def _http(_request: Request, error: Exception) -> Response:
    """Answer what the framework refuses itself: paths, methods, bodies that it cannot read."""
    if isinstance(error.__cause__, CrmError | ClientDisconnect):  # met while it read the body
        return _gone() if isinstance(error.__cause__, ClientDisconnect) else _of(error.__cause__)
    if not isinstance(error, HTTPException) or error.status_code not in _HTTP:
        raise error
    response = problem(*_HTTP[HTTPStatus(error.status_code)])
    if allow := (error.headers or {}).get("Allow"):
        response.headers["allow"] = allow
    return response


async def _disconnected(_request: Request, _error: Exception) -> Response:
    return _gone()


def _gone() -> Response:
    """Answer a client that left in the middle of its body: nobody reads this, nothing was done."""
    return problem("invalid_json", "the body ends too soon")


async def _validation(request: Request, error: Exception) -> Response:
    """Say what is wrong and where, without what was sent."""
    if not isinstance(error, RequestValidationError):
        raise error
    found = error.errors()
    if any(fault["type"] == "json_invalid" for fault in found):
        return problem("invalid_json", "the body is not valid JSON")
    if found[0]["loc"] == ("body",) and not _says_json(request):  # taken for text, not for JSON
        return problem("invalid_json", "send the body with Content-Type: application/json")
    faults = [Fault(_place(fault["loc"]), fault["msg"]) for fault in found]
    return problem("invalid_field", f"{faults[0].where}: {faults[0].message}", errors=faults)


def _says_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _place(path: Sequence[str | int]) -> str:
    """Return a dotted path; a name that the client made up is shown only if it is a plain word."""
    parts = [str(part) for part in path]
    return ".".join(part if _SHOWABLE.fullmatch(part) else "?" for part in parts)


def install(app: FastAPI) -> None:
    """Make `app` answer every error with a problem document."""
    app.add_exception_handler(CrmError, _named)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _disconnected)
    app.add_exception_handler(RequestValidationError, _validation)
