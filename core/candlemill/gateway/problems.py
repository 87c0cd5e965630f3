"""Errors as problem details (RFC 9457): one line that names the value, the limit and the way out."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.openapi import ResponseSpec

from candlemill.errors import BadInput, CandlemillError, NoData, StoreError, UnknownName, one_line

DETAIL_LIMIT = 1_000
MEDIA_TYPE = "application/problem+json"

QUERY_NAMES = {"first": "from", "last": "to", "status": "state"}  # names that are keywords or builtins in Python
NO_HEADERS: Mapping[str, str] = {}

log = logging.getLogger("candlemill")


class Problem(msgspec.Struct, frozen=True):
    """What went wrong. `code` is for programs, `detail` for people; `near` are names that exist, `field` is the part of
    the request that is to blame, where that is known."""

    title: str
    status: int
    detail: str
    code: str
    type: str = "about:blank"
    near: list[str] = []
    field: str = ""


class Conflict(BadInput):
    """Request that the job's state does not allow."""

    code = "conflict"


class NoAccess(CandlemillError):
    """Missing or unknown key."""

    code = "no_access"


class KeysUnreadable(CandlemillError):
    """Broken key file, and a key that is not one of those read before."""

    code = "keys_unreadable"
    retryable = True


class Forbidden(CandlemillError):
    """Request from a page of another origin, or for another host."""

    code = "forbidden"


TITLES = {
    400: "Bad request",
    401: "No access",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    409: "Conflict",
    413: "Too large",
    415: "Media type not supported",
    422: "Cannot be done",
    429: "Too many requests",
    500: "Internal error",
    503: "Not now",
}


def problem_responses(*statuses: int) -> dict[int, ResponseSpec]:
    """Return the problem responses of an operation, for its OpenAPI description."""
    return {
        status: ResponseSpec(Problem, generate_examples=False, media_type=MEDIA_TYPE, description=TITLES[status])
        for status in (400, 401, 403, 429, 503, *statuses)
    }


def status_of(error: CandlemillError) -> int:
    if isinstance(error, NoAccess):
        return 401
    if isinstance(error, Forbidden):
        return 403
    if isinstance(error, UnknownName) and error.args[0] in ("symbol", "symbols", "job", "paper run"):
        return 404
    if isinstance(error, NoData | Conflict):
        return 409
    if isinstance(error, BadInput):
        return 422
    return 503 if error.retryable or isinstance(error, StoreError) else 500


def answer(
    status: int,
    code: str,
    detail: str,
    near: Sequence[str] = (),
    headers: Mapping[str, str] = NO_HEADERS,
    field: str = "",
) -> Response[Problem]:
    problem = Problem(
        TITLES.get(status, "Error"), status, one_line(detail)[:DETAIL_LIMIT], code, near=list(near), field=field
    )
    return Response(problem, status_code=status, media_type=MEDIA_TYPE, headers=dict(headers))


def on_own_error(_: Request[Any, Any, Any], error: CandlemillError) -> Response[Problem]:
    status = status_of(error)
    if status >= 500 or error.public != str(error):
        log.warning("answered %d: %s", status, error)
    near = error.near() if isinstance(error, UnknownName) else []
    headers = {"Retry-After": "2"} if status == 503 else {}
    if status == 401:
        headers = {"WWW-Authenticate": "Bearer"}
    return answer(status, error.code, error.public, near, headers=headers)


def on_http_error(_: Request[Any, Any, Any], error: HTTPException) -> Response[Problem]:
    detail, field = error.detail, ""
    if isinstance(error.extra, list) and error.extra:
        field, message = (str(error.extra[0].get(name, "")) for name in ("key", "message"))
        field = QUERY_NAMES.get(field, field)
        detail = f"{field}: {message}" if field else message
        if field == "data":  # the whole body
            missing = message == repr(field)
            detail = "the request has no body: send the request as JSON" if missing else f"the body: {message}"
            field = ""
    headers = {name: value for name, value in (error.headers or {}).items() if name.lower() != "content-type"}
    if error.status_code == 429:
        headers["Retry-After"] = headers.get("RateLimit-Reset", "60")
    return answer(error.status_code, "http", detail, headers=headers, field=field)


def on_depth(_: Request[Any, Any, Any], __: RecursionError) -> Response[Problem]:
    """Return the problem for a body that is nested too deep: only request bodies are parsed recursively."""
    return answer(400, "http", "the body is nested too deeply")


def on_bug(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    log.error("internal error at %s %s", request.method, request.scope["path"], exc_info=error)
    return answer(500, "internal", f"internal error: {type(error).__name__}; the log of this gateway has more")
