"""Every operation x every kind of caller: the status follows from the role table and the action the route declares alone."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.core.permissions import READ_ACTIONS, ROLE_ACTIONS, Action, Role
from app.core.resources import ResourceType
from app.http.routes import ACTIONS, OPEN_BECAUSE
from tests.conftest import Caller, Service
from tests.security.operations import API_CALL, CASES, DESIGNED, DOCUMENT, OPEN, ORGANIZATION, PROJECT, Branch, Case, routes_of

pytestmark = pytest.mark.anyio

OPERATIONS_OF_THE_PROCESS = {"read_liveness", "read_readiness", "read_version", "read_access_configuration"}


@dataclass(frozen=True)
class Kind:
    """A kind of caller: a role on one level of the branch, or none."""

    name: str
    role: Role | None = None
    level: ResourceType | None = None

    @property
    def is_anonymous(self) -> bool:
        return self.name == "anonymous"

    @property
    def subject(self) -> str | None:
        return None if self.is_anonymous else f"user:{self.name}"

    def holds_on(self, target: ResourceType) -> frozenset[Action]:
        reaches = self.role is not None and self.level in target.ancestry
        return ROLE_ACTIONS[self.role] if reaches and self.role is not None else frozenset()


KINDS = (
    Kind("anonymous"),
    Kind("stranger"),
    Kind("owner-of-another-tenant"),
    *(Kind(role.value.lower(), role, ORGANIZATION) for role in (Role.ORG_OWNER, Role.ORG_ADMIN, Role.ORG_MEMBER)),
    *(Kind(role.value.lower(), role, PROJECT) for role in (Role.PROJECT_OWNER, Role.PROJECT_EDITOR, Role.PROJECT_VIEWER)),
    *(Kind(role.value.lower(), role, DOCUMENT) for role in (Role.DOCUMENT_OWNER, Role.DOCUMENT_EDITOR, Role.DOCUMENT_VIEWER)),
    *(Kind(role.value.lower(), role, API_CALL) for role in (Role.API_CALL_OWNER, Role.API_CALL_EDITOR, Role.API_CALL_VIEWER)),
)


def expected_status(kind: Kind, case: Case, declared: frozenset[Action]) -> int:
    if kind.is_anonymous:
        return 401
    if case.on is None:
        return case.success
    held = kind.holds_on(case.on)
    if held & (case.asks or declared):
        return case.success
    return 403 if READ_ACTIONS[case.on] in held and not case.is_secret else 404


@dataclass
class World:
    """A branch on which every kind of caller holds its role, kept whole by a founder; destructive operations get a branch of their own."""

    service: Service
    founder: Caller
    branch: Branch
    numbers: Iterator[int]

    async def branch_for(self, kind: Kind, case: Case) -> Branch:
        unique = f"{case.operation}-{kind.name}-{next(self.numbers)}".replace("_", "-")[-60:].strip("-")
        branch = replace(self.branch, unique=unique)
        if case.fresh is not None:
            branch = await self.freshen(branch, case.fresh)
            if kind.role is not None and kind.level is case.on and case.on is API_CALL:
                await self.founder.grant(case.on.value, branch.api_call_id, str(kind.subject), kind.role.value)
            return branch
        if not case.destroys or case.on is None:
            return branch
        if case.on is ORGANIZATION:
            organization = await self.founder.new_organization()
            branch = replace(branch, organization_id=organization["id"], slug=organization["slug"])
        elif case.on is PROJECT:
            branch = replace(branch, project_id=(await self.founder.new_project(branch.organization_id))["id"])
        else:
            branch = replace(branch, document_id=(await self.founder.new_document(branch.project_id))["id"])
        if kind.role is not None and kind.level is case.on:
            await self.founder.grant(case.on.value, branch.id_of(case.on), str(kind.subject), kind.role.value)
        return branch

    async def freshen(self, branch: Branch, what: str) -> Branch:
        """The branch with one thing made anew."""
        make = {"api_call_id": make_api_call, "execution_id": make_execution, "api_key_id": make_api_key, "group_id": make_group}[what]
        made: str = await make(self.founder, branch.organization_id, branch.project_id)
        return replace(branch, **{what: made})

    async def send(self, kind: Kind, method: str, case: Case, branch: Branch, **headers: str) -> httpx.Response:
        return await self.service.as_(kind.subject).request(method, case.path_in(branch), headers=headers, **case.options(branch))


async def make_api_call(founder: Caller, _organization_id: str, project_id: str) -> str:
    made = await founder.post(f"/projects/{project_id}/api-calls", {"name": "call", "operation_key": "ocr"})
    return str(made.json()["id"])


async def make_execution(founder: Caller, organization_id: str, project_id: str) -> str:
    new = {"organization_id": organization_id, "project_id": project_id, "operation": "tag"}
    return str((await founder.post("/executions", new)).json()["id"])


async def make_api_key(founder: Caller, _organization_id: str, project_id: str) -> str:
    new = {"name": "ci", "scope_type": "PROJECT", "scope_id": project_id, "role": "PROJECT_VIEWER"}
    return str((await founder.post("/api-keys", new)).json()["api_key"]["id"])


async def make_group(founder: Caller, organization_id: str, _project_id: str) -> str:
    new = {"group_id": f"group-{uuid4().hex[:8]}"}
    return str((await founder.post(f"/organizations/{organization_id}/groups", new)).json()["group_id"])


async def make_branch(founder: Caller, kinds: tuple[Kind, ...] = KINDS) -> Branch:
    organization = await founder.new_organization()
    project = await founder.new_project(organization["id"])
    document = await founder.new_document(project["id"])
    where = organization["id"], project["id"]
    things = [await make(founder, *where) for make in (make_api_call, make_execution, make_api_key, make_group)]
    branch = Branch(organization["id"], organization["slug"], project["id"], document["id"], *things)
    for kind in kinds:
        if kind.role is not None and kind.level is not None:
            await founder.grant(kind.level.value, branch.id_of(kind.level), str(kind.subject), kind.role.value)
    return branch


@pytest.fixture
async def world(service: Service) -> World:
    founder = service.as_("user:founder")
    await service.as_("user:owner-of-another-tenant").new_organization()
    return World(service, founder, await make_branch(founder), count())


def filled(body: dict[str, Any], **words: str) -> dict[str, Any]:
    text = re.sub(r"\{(unique|actor_id)\}", lambda found: words[found[1]], json.dumps(body))
    return dict(json.loads(text))


def method_of(service: Service, operation: str) -> str:
    methods = routes_of(service.app)[operation].methods or set()
    assert len(methods) == 1
    return next(iter(methods))


async def test_every_operation_has_a_case_and_every_case_an_operation(service: Service) -> None:
    routes = routes_of(service.app)
    assert {case.operation for case in CASES} | OPEN.keys() == routes.keys()
    assert {name for name, route in routes.items() if OPEN_BECAUSE in (route.openapi_extra or {})} == OPEN.keys()
    documented = {operation["operationId"] for path in service.app.openapi()["paths"].values() for operation in path.values()}
    assert documented == routes.keys() | OPERATIONS_OF_THE_PROCESS
    for case in CASES:
        route = routes[case.operation]
        declared = {Action(name) for name in (route.openapi_extra or {})[ACTIONS]}
        assert (case.asks or declared) <= declared, case.label
        assert case.success == route.status_code, case.label
        if case.asks is None:
            assert len(declared) == 1, f"{case.label} serves several kinds of target: say what is asked on each"


async def test_every_operation_declares_the_action_of_the_design(service: Service) -> None:
    declared = {name: set((route.openapi_extra or {}).get(ACTIONS, ())) for name, route in routes_of(service.app).items()}
    designed = {name: {action.value for action, names in DESIGNED.items() if name in names} for name in declared}
    assert declared == designed


async def test_the_status_follows_from_the_role_table(world: World) -> None:
    wrong = []
    for case in CASES:
        route = routes_of(world.service.app)[case.operation]
        declared = frozenset(map(Action, (route.openapi_extra or {})[ACTIONS]))
        method = method_of(world.service, case.operation)
        for kind in KINDS:
            expected = expected_status(kind, case, declared)
            branch = await world.branch_for(kind, case)
            response = await world.send(kind, method, case, branch)
            if response.status_code != expected:
                wrong.append(f"{kind.name}: {case.label}: {response.status_code}, not {expected}: {response.text}")
            if response.status_code == 401 and response.headers.get("www-authenticate") != "Bearer":
                wrong.append(f"{kind.name}: {case.label}: 401 without a challenge")
    assert wrong == []


async def test_head_tells_what_get_tells(world: World) -> None:
    for case in (case for case in CASES if method_of(world.service, case.operation) == "GET"):
        for kind in (kind for kind in KINDS if kind.name in {"anonymous", "stranger", "project_viewer"}):
            got, asked = [await world.send(kind, method, case, world.branch) for method in ("GET", "HEAD")]
            assert got.status_code == asked.status_code, (case.label, kind.name)


async def test_the_table_of_expectations_uses_every_status(world: World) -> None:
    """Guards the guard: a table that expected the same everywhere would show nothing."""
    met: dict[str, set[int]] = {}
    for case in CASES:
        extra = routes_of(world.service.app)[case.operation].openapi_extra or {}
        declared = frozenset(map(Action, extra[ACTIONS]))
        met[case.label] = {expected_status(kind, case, declared) for kind in KINDS}
    assert all(statuses >= {401, 404} for label, statuses in met.items() if "everything" not in label)
    assert {label for label, statuses in met.items() if 403 in statuses} >= {
        "delete_organization on ORGANIZATION",
        "grant_role on DOCUMENT",
    }


async def test_open_operations_still_refuse_anonymous_callers(world: World) -> None:
    for operation, (path, body, success) in OPEN.items():
        for kind in KINDS:
            words = {"unique": f"{kind.name}".replace("_", "-"), "actor_id": kind.name}
            sent = filled(body, **words)
            method = method_of(world.service, operation)
            response = await world.service.as_(kind.subject).request(method, path, None, **{"params" if method == "GET" else "json": sent})
            assert response.status_code == (401 if kind.is_anonymous else success), (operation, kind.name)


async def test_what_a_destructive_operation_was_denied_is_still_there(world: World) -> None:
    for case in (case for case in CASES if case.destroys):
        for kind in KINDS:
            assert case.on is not None
            branch = await world.branch_for(kind, case)
            response = await world.send(kind, "DELETE", case, branch)
            left = await world.founder.get(case.path_in(branch), None)
            assert left.status_code == (404 if response.status_code == case.success else 200), (case.label, kind.name)


async def test_an_anonymous_caller_may_do_what_its_actor_was_given(world: World) -> None:
    await world.founder.grant("PROJECT", world.branch.project_id, "service:anonymous", "PROJECT_VIEWER")
    anonymous = world.service.as_(None)
    path = f"/projects/{world.branch.project_id}"
    assert (await anonymous.get(path)).json()["id"] == world.branch.project_id
    assert [item["id"] for item in (await anonymous.get("/projects")).json()["items"]] == [world.branch.project_id]
    await anonymous.patch(path, {"name": "taken"}, 401)
    await anonymous.get(f"/organizations/{world.branch.organization_id}", 401)
    await anonymous.get("/audit-events", 401)


def _targeted(kind: Kind) -> list[Case]:
    """The cases whose target this kind of caller cannot see."""
    return [case for case in CASES if case.on is not None and READ_ACTIONS[case.on] not in kind.holds_on(case.on)]


def _answer(response: httpx.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    return response.status_code, response.content, sorted(response.headers.multi_items())


@pytest.mark.parametrize("name", ["stranger", "owner-of-another-tenant", "document_viewer", "project_viewer", "anonymous"])
async def test_the_invisible_and_the_absent_are_the_same_to_the_byte(world: World, name: str) -> None:
    kind = next(kind for kind in KINDS if kind.name == name)
    answers: dict[str, Any] = {}
    with_id = {
        operation for operation, route in routes_of(world.service.app).items() if "_id}" in route.path and "correlation" not in route.path
    }
    cases = _targeted(kind)
    if kind.role is None:
        assert with_id <= {case.operation for case in cases}
    for case in cases:
        method = method_of(world.service, case.operation)
        answers[case.label] = _answer(await world.send(kind, method, case, world.branch, **{"X-Request-ID": "the-same"}))
        assert answers[case.label][0] == (401 if kind.is_anonymous else 404), case.label
    await world.founder.delete(f"/organizations/{world.branch.organization_id}")
    for case in cases:
        method = method_of(world.service, case.operation)
        absent = _answer(await world.send(kind, method, case, world.branch, **{"X-Request-ID": "the-same"}))
        assert absent == answers[case.label], case.label
