"""What is asked of the servers: one request of each kind, sent again and again, and what a right answer to it is."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Final

import httpx

from app.core.permissions import Action
from benchmarks.load import Request
from benchmarks.servers import ACTOR, CONFINED, FLOOR, OURS, REFERENCE
from benchmarks.worlds import CROWD, GROWING, HANDFUL, LONG, MEMBER, POSTGRESQL, QUIET, SHORT, Side, World

MIB: Final = 1024 * 1024
PAGE: Final = 20
BOUNDARY: Final = "bench-0123456789abcdef"
SMALL: Final = "-small"
"""Ends the name of a workload that is another one with little data, which it is there to be compared with."""

# The reference takes no document on PostgreSQL.
_IMPOSSIBLE: Final = {("upload-1mib", (REFERENCE, POSTGRESQL))}
_OURS_ONLY: Final = (OURS, CONFINED)
_ALL: Final = (REFERENCE, FLOOR, *_OURS_ONLY)
_MEMBER_HEADER: Final = {"X-SaaSBase-Actor": MEMBER.subject}
_JSON: Final = {"Content-Type": "application/json"}


class WrongAnswerError(RuntimeError):
    """A server answered something else than it should, so its rate would mean nothing."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of request."""

    name: str
    title: str
    make: Callable[[World], Request]
    is_right: Callable[[Any], bool]
    programs: tuple[str, ...] = _ALL
    is_about_size: bool = False
    """Whether it needs the large tables."""

    @property
    def is_small(self) -> bool:
        """Whether it is there for the sake of another one only."""
        return self.name.endswith(SMALL)

    def is_for(self, side: Side) -> bool:
        """Whether that program can do it on that database."""
        return side[0] in self.programs and (self.name, side) not in _IMPOSSIBLE

    def prepare(self, world: World, client: httpx.Client) -> Request:
        """The request, after one was answered as it should be.

        Raises:
            WrongAnswerError: it was not.
        """
        request = self.make(world)
        url = world.server.url + request.path
        answer = client.request(request.method, url, headers=request.headers, content=request.body)
        if not answer.is_success or not self.is_right(answer.json()):
            raise WrongAnswerError(f"{self.name}, {world.program}: {answer.status_code} {answer.text[:300]}")
        return request


def _get(world: World, *, with_key: bool) -> Request:
    headers = {"Authorization": f"Bearer {world.token}"} if with_key else ACTOR
    return Request("GET", f"/api/projects/{world.projects[QUIET]}", headers)


def _post_call(world: World) -> Request:
    body = json.dumps({"name": "call", "operation_key": "ocr", "request_payload": {"page": 1}}).encode()
    return Request("POST", f"/api/projects/{world.projects[GROWING]}/api-calls", ACTOR | _JSON, body)


def _list(world: World, *, project: str, is_numbered: bool = False) -> Request:
    """The reference knows no keyset pages: the same question is its numbered page."""
    wanted = f"page=0&size={PAGE}" if is_numbered or world.program == REFERENCE else f"limit={PAGE}"
    return Request("GET", f"/api/api-calls?project_id={world.projects[project]}&{wanted}", ACTOR)


def _check(world: World, *, project: str, action: Action, how: str = "") -> Request:
    about = {"resource_type": "PROJECT", "resource_id": world.projects[project], "action": action.value}
    body = {"actor_type": MEMBER.type.value, "actor_id": MEMBER.id, **about}
    return Request("POST", f"/api/authz/check{how}", _MEMBER_HEADER | _JSON, json.dumps(body).encode())


def _upload(world: World) -> Request:
    headers = {**ACTOR, "Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    return Request("POST", f"/api/projects/{world.projects[GROWING]}/documents", headers, _form())


@cache
def _form() -> bytes:
    disposition = 'Content-Disposition: form-data; name="file"; filename="f.bin"'
    head = f"--{BOUNDARY}\r\n{disposition}\r\nContent-Type: application/octet-stream\r\n\r\n"
    return head.encode() + os.urandom(MIB) + f"\r\n--{BOUNDARY}--\r\n".encode()


def _is_page(answer: Any) -> bool:
    return len(answer["items"]) == PAGE


WORKLOADS: Final = (
    Workload("get-key", "GET project by id, API key", partial(_get, with_key=True), lambda answer: answer["name"] == QUIET),
    Workload("get-header", "GET project by id, header actor", partial(_get, with_key=False), lambda answer: answer["name"] == QUIET),
    Workload("post-api-call", "POST API call, with its audit event", _post_call, lambda answer: answer["status"] == "RECEIVED"),
    Workload("keyset", "first keyset page of 20 of 100,000 API calls", partial(_list, project=LONG), _is_page, is_about_size=True),
    Workload(
        "keyset" + SMALL,
        "first keyset page of 20 of 1,000 API calls",
        partial(_list, project=SHORT),
        _is_page,
        _OURS_ONLY,
        is_about_size=True,
    ),
    Workload(
        "page-total",
        "numbered page of 20 with exact total of 100,000 API calls",
        partial(_list, project=LONG, is_numbered=True),
        lambda answer: _is_page(answer) and answer["total_items"] > PAGE,
        is_about_size=True,
    ),
    *(
        Workload(
            f"check-{word}{end}",
            f"authorization check, {word}, {count} members",
            partial(_check, project=project, action=action),
            partial(lambda is_allowed, answer: answer["allowed"] is is_allowed, word == "allowed"),
            programs,
            is_about_size=True,
        )
        for word, action in (("allowed", Action.PROJECT_READ), ("denied", Action.PROJECT_DELETE))
        for end, count, project, programs in (("", "10,000", CROWD, _ALL), (SMALL, "10", HANDFUL, _OURS_ONLY))
    ),
    Workload(
        "check-statement",
        "authorization check, denied, by the floor with the statement of ours",
        partial(_check, project=CROWD, action=Action.PROJECT_DELETE, how="/with-our-statement"),
        lambda answer: not answer["allowed"] and answer["role"] is not None,
        (FLOOR,),
        is_about_size=True,
    ),
    Workload("upload-1mib", "upload of a document of 1 MiB", _upload, lambda answer: answer["size_bytes"] == MIB),
)
