"""Every error in one shape: ``application/problem+json`` (RFC 9457), with a stable ``code`` and the request's id."""

import logging
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from app.blobs.store import BlobStoreError, StoreFullError
from app.core import errors
from app.db.errors import as_app_error
from app.http.requests import request_info

_log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"

STATUS: Final[dict[type[errors.AppError], int]] = {
    errors.BadRequestError: 400,
    errors.UnauthenticatedError: 401,
    errors.ForbiddenError: 403,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.PreconditionFailedError: 412,
    errors.TooLargeError: 413,
    errors.UnsupportedMediaTypeError: 415,
    errors.InvalidError: 422,
    errors.TooManyAttemptsError: 429,
    errors.RateLimitedError: 429,
    errors.UnavailableError: 503,
}
_CODES: Final = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "too_large",
    416: "range_not_satisfiable",
    422: "invalid",
    431: "headers_too_large",
    500: "internal_error",
    507: "store_full",
}
_UNREADABLE: Final = "The request has values that cannot be accepted."
MALFORMED_IS_400: Final = "x-malformed-is-400"
RETRY_AFTER_SECONDS: Final = "1"
MAX_POINTER: Final = 200


class HeadersTooLargeError(Exception):
    """The request's headers exceed the limit."""


class FieldProblem(BaseModel):
    """One value that cannot be accepted."""

    pointer: str = Field(description="JSON pointer into the body, or `query.x`, `path.x`, `header.x`.")
    code: str
    message: str


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    code: str = Field(description="Stable name of the error, for programs.")
    request_id: str
    errors: list[FieldProblem] | None = Field(default=None, description="Which values are at fault (validation only).")


class PartProblem(BaseModel):
    """Why one part of a request was not done, where the others stand for themselves."""

    code: str = Field(description="Stable name of the error, for programs.")
    detail: str
    errors: list[FieldProblem] | None = Field(default=None, description="Which values are at fault (validation only).")


class ProblemResponse(JSONResponse):
    """The wire form of a problem."""

    media_type = MEDIA_TYPE


def problem_of(scope: Scope, error: Exception) -> Response:  # noqa: PLR0911 - one line for each kind
    """The answer to any exception; what is not meant for the caller becomes a 500 that tells nothing."""
    if isinstance(error, BlobStoreError):
        _log.warning("document contents: %s (%s)", error, error.advice, extra={"request_id": request_info(scope).request_id})
    if isinstance(error, errors.AppError):
        return _from_app_error(scope, error)
    if isinstance(error, RequestValidationError):
        status, code = (400, None) if malformed_is_400(scope.get("route")) else (422, "invalid")
        return make_problem(scope, status, code, _UNREADABLE, fields=_fields(error.errors()))
    if isinstance(error, HTTPException):
        return make_problem(scope, error.status_code, None, str(error.detail), headers=dict(error.headers or {}))
    if isinstance(error, StoreFullError):
        return make_problem(scope, 507, None, "There is no room for the content.")
    if isinstance(error, BlobStoreError):
        return _from_app_error(scope, errors.UnavailableError(f"Document contents are not available: {error}.", code="store_unavailable"))
    if isinstance(error, ClientDisconnect):
        return make_problem(scope, 400, "client_disconnected", "The request ended before its body was complete.")
    if isinstance(error, HeadersTooLargeError):
        return make_problem(scope, 431, None, "The request's headers are larger than 32 KiB.")
    translated = as_app_error(error)
    if translated is not None:
        return _from_app_error(scope, translated)
    return make_problem(scope, 500, None, "Something went wrong on our side; the request_id finds it in the log.")


def malformed_is_400(route: Any) -> bool:
    """Whether the route speaks a protocol in which whatever is not of its schema is a 400: also what is 415 or 422 elsewhere."""
    return bool((getattr(route, "openapi_extra", None) or {}).get(MALFORMED_IS_400))


def make_problem(  # noqa: PLR0913 - the members of a problem
    scope: Scope,
    status: int,
    code: str | None,
    detail: str,
    *,
    fields: list[dict[str, str]] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """A problem response."""
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": scope["path"],
        "code": code or _CODES.get(status, "error"),
        "request_id": request_info(scope).request_id,
    }
    if fields is not None:
        content["errors"] = fields
    return ProblemResponse(content, status, headers)


def status_of(error: errors.AppError) -> int:
    """The status that an error is answered with."""
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def part_problem(error: errors.AppError, *place: str | int) -> PartProblem:
    """An error that concerns the part of the body at this place only; pointers in it are told from the body's top."""
    detail, fields = _told_of(error)
    below = [{**field, "pointer": _pointer_to(place) + field["pointer"]} for field in fields or ()]
    return PartProblem(code=error.code, detail=detail, errors=[FieldProblem(**field) for field in below] or None)


def unreadable_part(faults: Iterable[Mapping[str, Any]], *place: str | int) -> PartProblem:
    """The same for a part that is not of its schema: pydantic's errors, whose places are told from the part."""
    found = _fields({**fault, "loc": ("body", *place, *fault["loc"])} for fault in faults)
    return PartProblem(code=errors.InvalidError.code, detail=_UNREADABLE, errors=[FieldProblem(**field) for field in found])


def _from_app_error(scope: Scope, error: errors.AppError) -> Response:
    headers = {}
    if isinstance(error, errors.UnauthenticatedError):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, errors.TooManyAttemptsError | errors.RateLimitedError):
        headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, errors.UnavailableError):
        headers["Retry-After"] = RETRY_AFTER_SECONDS
    detail, fields = _told_of(error)
    return make_problem(scope, status_of(error), error.code, detail, fields=fields, headers=headers)


def _told_of(error: errors.AppError) -> tuple[str, list[dict[str, str]] | None]:
    if not isinstance(error, errors.InvalidError):
        return error.detail, None
    field = {"pointer": error.pointer, "code": error.reason, "message": error.detail}
    return "The request has a value that cannot be accepted.", [field]


def _fields(faults: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    # The guard and the handler may ask for the same parameter: told once.
    found = {(_pointer(fault), fault["type"], str(fault["msg"]).removeprefix("Value error, ")): None for fault in faults}
    return [{"pointer": pointer, "code": code, "message": message} for pointer, code, message in found]


def _pointer(fault: Mapping[str, Any]) -> str:
    place, *path = fault["loc"]
    if fault["type"] == "json_invalid":
        return ""  # FastAPI gives a place in the text, and that is no member of anything
    pointer = _pointer_to(path) if place == "body" else ".".join(str(part) for part in fault["loc"])
    return pointer[:MAX_POINTER]  # the name of an unknown field is the caller's input


def _pointer_to(path: Iterable[str | int]) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


async def handle_error(request: Request, error: Exception) -> Response:
    """FastAPI's exception handler for every error that has an answer of its own."""
    return problem_of(request.scope, error)
