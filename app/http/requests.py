"""What is known about a request before anything has looked at it: its ids, and later who sent it."""

import random
import re
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Scope

from app.core.text import InvalidTextError, clean_identifier
from app.limits.buckets import Standing
from app.models.audit_event import MAX_CORRELATION, MAX_REQUEST_ID

_SCOPE_KEY: Final = "saasbase.request"
_REQUEST_ID = re.compile(rf"[A-Za-z0-9._:/+=@-]{{1,{MAX_REQUEST_ID}}}")
# W3C Trace Context: ids that are all zero and the version ff are invalid; only a version after 00 may go on behind its flags.
_TRACEPARENT = re.compile(r"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


@dataclass(slots=True)
class RequestInfo:
    """What is known about a request whatever becomes of it."""

    request_id: str
    correlation_id: str | None
    trace_id: str | None = None
    actor: str | None = None
    on_behalf_of: str | None = None
    organization_id: str | None = None
    status: int = 0
    standing: Standing | None = None


def request_info(scope: Scope) -> RequestInfo:
    """The request's ids: the caller's own where they are well-formed, else a new one."""
    info = scope.get(_SCOPE_KEY)
    if isinstance(info, RequestInfo):
        return info
    headers = Headers(scope=scope)
    given = headers.get("x-request-id", "")
    traceparent = headers.get("traceparent")
    trace = _TRACEPARENT.fullmatch(traceparent) if traceparent is not None else None
    trace_id = trace.group(1) if trace is not None else None
    info = RequestInfo(given if _REQUEST_ID.fullmatch(given) else _new_request_id(), _correlation_of(headers, trace_id), trace_id)
    scope[_SCOPE_KEY] = info
    return info


def _new_request_id() -> str:
    return f"{random.getrandbits(128):032x}"  # another one each time; it may be guessed


def _correlation_of(headers: Headers, trace_id: str | None) -> str | None:
    """What the caller calls it, or, without a name that can be used, the trace that it belongs to."""
    given = headers.get("x-correlation-id")
    if given is None:
        return trace_id
    try:
        correlation = clean_identifier(given.encode("latin-1").decode("utf-8"), MAX_CORRELATION)
    except (InvalidTextError, UnicodeDecodeError):
        return trace_id
    return trace_id if "/" in correlation else correlation  # by-correlation/{correlation_id} could not find it
