"""A request leaves nothing behind for the collector: what it made goes with it, and nobody is served late because of a search for it."""

import asyncio
import gc
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import httpx
import pytest
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from app.core.keys import new_token
from app.core.text import MAX_JSON_BYTES
from app.db.session import TenantSession
from app.db.tenancy import Fence, FencedSession
from app.http.requests import RequestInfo
from app.http.uploads import Upload
from app.unit_of_work import UnitOfWork
from tests.conftest import Caller, Service
from tests.support.record import new_call, new_place

pytestmark = pytest.mark.anyio

MADE = (Request, RequestInfo, UnitOfWork, TenantSession, Fence, FencedSession, Upload)
TIMES = 5
LONGEST_WAIT = 60

JSON = {"Content-Type": "application/json"}
BOB = {"X-SaaSBase-Actor": "user:bob"}
WRONG = new_token().written
TOO_MUCH = {"name": "call", "operation_key": "op", "metadata": {"text": "x" * 70_000}}
ITEM = {"op": "start", "operation": "chat", "metadata": {"text": "x" * 70_000}}
FIELD = json.dumps({"text": "x" * MAX_JSON_BYTES})
QUESTION = {"subject": {"type": "user", "id": "alice"}, "action": {"name": "read"}, "resource": {"type": "nothing", "id": "1"}}

Ask = Callable[[Caller, str, str], Awaitable[object]]


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive() -> Counter[str]:
    return Counter(type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, MADE))


ASKED: dict[str, Ask] = {
    "read": lambda alice, _, project: alice.get(f"/projects/{project}"),
    "numbered page": lambda alice, organization, _: alice.get(f"/projects?organization_id={organization}"),
    "keyset page": lambda alice, organization, _: alice.get(f"/projects?organization_id={organization}&limit=5"),
    "insert": lambda alice, _, project: new_call(alice, project),
    "update": lambda alice, _, project: alice.patch(f"/projects/{project}", {"name": "renamed"}),
    "upload": lambda alice, _, project: alice.new_document(project),
    "check": lambda alice, _, project: alice.post(
        "/authz/check",
        {"actor_type": "USER", "actor_id": "alice", "action": "PROJECT_READ", "resource_type": "PROJECT", "resource_id": project},
        200,
    ),
    "not found": lambda alice, organization, _: alice.get(f"/projects/{organization}", 404),
    "not valid": lambda alice, _, project: alice.post(f"/projects/{project}/api-calls", {"name": 1}, 422),
    "not valid to us": lambda alice, _, project: alice.post(f"/projects/{project}/api-calls", TOO_MUCH, 422),
    "no JSON": lambda alice, _, project: alice.request("POST", f"/projects/{project}/api-calls", 422, content=b"{", headers=JSON),
    "not valid in a query": lambda alice, _, __: alice.get("/api-calls?operation_key=%00", 422),
    "no cursor": lambda alice, _, __: alice.get("/projects?limit=5&cursor=none", 422),
    "not valid in an item": lambda alice, _, project: alice.post(f"/executions/batch?project_id={project}", {"items": [ITEM]}, None),
    "question about nothing": lambda alice, _, __: alice.post("/access/v1/evaluation", QUESTION, 200),
    "no such key": lambda alice, _, project: alice.get(f"/projects/{project}", None, headers={"Authorization": f"Bearer {WRONG}"}),
    "not his": lambda alice, _, project: alice.patch(f"/projects/{project}", {"name": "his"}, 404, headers=BOB),
    "other revision": lambda alice, _, project: alice.patch(f"/projects/{project}", {"name": "mine"}, 412, headers={"If-Match": '"0"'}),
    "taken": lambda alice, _, __: alice.post("/organizations", {"slug": "taken"}, None),  # but for the first time
    "refused field": lambda alice, _, project: alice.upload(f"/projects/{project}/documents", expect=422, metadata=FIELD),
    "refused upload": lambda alice, _, project: alice.upload(f"/projects/{project}/documents", b"", expect=400),
}


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("ask", [pytest.param(ask, id=name) for name, ask in ASKED.items()])
async def test_nothing_of_a_request_waits_for_the_collector(alice: Caller, ask: Ask) -> None:
    organization, project = await new_place(alice)
    await ask(alice, organization["id"], project["id"])
    before = alive()
    for _ in range(TIMES):
        await ask(alice, organization["id"], project["id"])
    waited = 0
    while alive() - before and waited < LONGEST_WAIT:  # a job may just be writing down what was refused; garbage does not go by itself
        waited += 1
        await asyncio.sleep(0.05)
    assert alive() - before == {}


async def test_a_connection_that_keeps_the_scope_of_its_last_request_keeps_no_work(service: Service) -> None:
    scopes: list[Scope] = []

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await service.app(scope, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=watched), base_url="http://service") as client:
        await new_place(Caller(client, service.as_("user:alice").headers))
    assert len(scopes) == 2
    assert not [value for scope in scopes for value in scope.values() if isinstance(value, MADE) and not isinstance(value, RequestInfo)]
