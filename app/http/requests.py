"""What is known about a request before anything has looked at it: its head, its ids, and later who sent it."""

import random
import re
from dataclasses import dataclass
from typing import Final

from starlette.types import Scope

from app.core.head import Head
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

    head: Head
    request_id: str
    correlation_id: str | None
    trace_id: str | None = None
    actor: str | None = None
    on_behalf_of: str | None = None
    organization_id: str | None = None
    status: int = 0
    standing: Standing | None = None


def request_info(scope: Scope) -> RequestInfo:
    """The request's headers and its ids: the caller's own where they are well-formed, else a new one."""
    info: RequestInfo | None = scope.get(_SCOPE_KEY)
    if info is not None:
        return info
    head = Head(scope["headers"])
    given = head.first(b"x-request-id")
    traceparent = head.first(b"traceparent")
    trace = _TRACEPARENT.fullmatch(traceparent) if traceparent is not None else None
    trace_id = trace.group(1) if trace is not None else None
    request_id = given if given is not None and _REQUEST_ID.fullmatch(given) else _new_request_id()
    info = scope[_SCOPE_KEY] = RequestInfo(head, request_id, _correlation_of(head, trace_id), trace_id)
    return info


def _new_request_id() -> str:
    return f"{random.getrandbits(128):032x}"  # another one each time; it may be guessed


def _correlation_of(head: Head, trace_id: str | None) -> str | None:
    """What the caller calls it, or, without a name that can be used, the trace that it belongs to."""
    given = head.all(b"x-correlation-id")
    if not given:
        return trace_id
    try:
        correlation = clean_identifier(given[0].decode(), MAX_CORRELATION)
    except (InvalidTextError, UnicodeDecodeError):
        return trace_id
    return trace_id if "/" in correlation else correlation  # by-correlation/{correlation_id} could not find it
