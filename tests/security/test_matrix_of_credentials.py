"""Every operation x every kind of credential: what a role carries, within what a key was made for and what the principal may."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from app.core.permissions import READ_ACTIONS, ROLE_ACTIONS, Action, Role
from app.core.resources import ResourceType
from app.http.routes import ACTIONS
from tests.conftest import Caller, Service, make_settings, open_service
from tests.security.operations import CASES, DOCUMENT, OPEN, ORGANIZATION, PROJECT, Branch, Case, routes_of
from tests.security.test_matrix import Kind, World, filled, make_branch, method_of
from tests.support.keys import change_key, make_key, shows
from tests.support.oracle import PAST

pytestmark = pytest.mark.anyio

FOR: Final = "X-SaaSBase-On-Behalf-Of"
NARROWED: Final = frozenset(
    {
        *(Action.ORGANIZATION_READ, Action.PROJECT_READ, Action.PROJECT_UPDATE),
        *(Action.DOCUMENT_READ, Action.DOCUMENT_DELETE, Action.MEMBER_MANAGE),
    }
)


@dataclass(frozen=True)
class Credential:
    """A role on a level of the branch, held by an API key or by an actor that a header names, who may act for a kind of user."""

    name: str
    role: Role
    level: ResourceType
    actions: frozenset[Action] | None = None
    acts_for: Kind | None = None
    is_key: bool = True
    ended: str | None = None
    is_foreign: bool = False

    def holds_on(self, target: ResourceType) -> frozenset[Action]:
        reaches = self.level in target.ancestry and not self.is_foreign
        held = ROLE_ACTIONS[self.role] if reaches else frozenset[Action]()
        held = held if self.actions is None else held & self.actions
        return held if self.acts_for is None else held & self.acts_for.holds_on(target)


VIEWER, STRANGER = Kind("viewer", Role.PROJECT_VIEWER, PROJECT), Kind("stranger")
DEPUTY: Final = Credential("actor-for-a-stranger", Role.ORG_OWNER, ORGANIZATION, acts_for=STRANGER, is_key=False)
FOREIGN: Final = Credential("key-of-another-tenant", Role.ORG_OWNER, ORGANIZATION, is_foreign=True)
CREDENTIALS: Final = (
    Credential("revoked-key", Role.ORG_OWNER, ORGANIZATION, ended="revoked_at"),
    Credential("expired-key", Role.ORG_OWNER, ORGANIZATION, ended="expires_at"),
    Credential("whole-key", Role.ORG_OWNER, ORGANIZATION),
    Credential("narrow-key", Role.ORG_OWNER, ORGANIZATION, NARROWED),
    Credential("project-key", Role.PROJECT_EDITOR, PROJECT),
    Credential("key-for-a-viewer", Role.ORG_OWNER, ORGANIZATION, acts_for=VIEWER),
    Credential("narrow-key-for-a-viewer", Role.ORG_OWNER, ORGANIZATION, NARROWED, acts_for=VIEWER),
    Credential("actor-for-a-viewer", Role.ORG_OWNER, ORGANIZATION, acts_for=VIEWER, is_key=False),
    DEPUTY,
    FOREIGN,
)


@pytest.fixture
async def service(database_url: str, tmp_path: Path) -> AsyncIterator[Service]:
    """Nobody is slowed here, or most of what ended keys are answered would be 429."""
    async with open_service(make_settings(database_url, tmp_path, api_keys={"guess_limit": False})) as running:
        yield running


# What is handed out or taken away, so that its every action has to be held (AUTHORIZATION.md 2.5, rule 2).
HANDED: Final = {
    **{(operation, ORGANIZATION): Role.ORG_MEMBER for operation in ("grant_role", "revoke_role")},
    **{(operation, PROJECT): Role.PROJECT_VIEWER for operation in ("grant_role", "revoke_role", "create_api_key", "rotate_api_key")},
    **{(operation, DOCUMENT): Role.DOCUMENT_VIEWER for operation in ("grant_role", "revoke_role")},
}


def expected_status(credential: Credential, case: Case, declared: frozenset[Action]) -> int:
    if credential.ended is not None:
        return 401
    if case.on is None:
        return case.success if credential.actions is None or declared <= credential.actions else 403
    held = credential.holds_on(case.on)
    if not held & (case.asks or declared):
        return 403 if READ_ACTIONS[case.on] in held and not case.is_secret else 404
    handed = HANDED.get((case.operation, case.on))
    if handed is not None and not ROLE_ACTIONS[handed] <= held:
        return 403
    if case.operation == "rotate_api_key" and credential.is_key:
        return 403  # a key gives new secrets only to itself and to keys it has made
    return case.success


@dataclass
class Wallet:
    """The callers who show credentials; one that is made for a place is made once."""

    world: World
    elsewhere: str
    _made: dict[tuple[str, str], Caller] = field(default_factory=dict)
    _granted: set[tuple[str, str]] = field(default_factory=set)

    async def caller(self, credential: Credential, branch: Branch) -> Caller:
        where = self.elsewhere if credential.is_foreign else branch.id_of(credential.level)
        if (credential.name, where) not in self._made:
            self._made[credential.name, where] = await self._make(credential, where)
        principal = credential.acts_for
        if principal is not None and principal.role is not None and (principal.name, branch.project_id) not in self._granted:
            self._granted.add((principal.name, branch.project_id))
            await self.world.founder.grant("PROJECT", branch.project_id, str(principal.subject), principal.role.value)
        return self._made[credential.name, where]

    async def _make(self, credential: Credential, where: str) -> Caller:
        service, founder = self.world.service, self.world.founder
        headers = {FOR: str(credential.acts_for.subject)} if credential.acts_for is not None else {}
        if not credential.is_key:
            await founder.grant(credential.level.value, where, f"user:{credential.name}", credential.role.value)
            return Caller(service.client, {**service.as_(f"user:{credential.name}").headers, **headers})
        wanted: dict[str, Any] = {"may_act_for_others": credential.acts_for is not None}
        if credential.actions is not None:
            wanted["actions"] = sorted(credential.actions)
        made = await make_key(founder, credential.level.value, where, credential.role.value, **wanted)
        if credential.ended is not None:
            await change_key(service, made["api_key"]["id"], **{credential.ended: PAST})
        return shows(service, made["token"], **headers)


@pytest.fixture
async def wallet(service: Service) -> Wallet:
    founder = service.as_("user:founder")
    world = World(service, founder, await make_branch(founder, ()), count())
    return Wallet(world, (await founder.new_organization())["id"])


async def send(wallet: Wallet, credential: Credential, case: Case, branch: Branch, **headers: str) -> httpx.Response:
    caller = await wallet.caller(credential, branch)
    method = method_of(wallet.world.service, case.operation)
    return await caller.request(method, case.path_in(branch), headers=headers, **case.options(branch))


def declared_by(service: Service, case: Case) -> frozenset[Action]:
    return frozenset(map(Action, (routes_of(service.app)[case.operation].openapi_extra or {})[ACTIONS]))


async def test_the_status_follows_from_role_credential_and_principal(wallet: Wallet) -> None:
    wrong, met = [], set()
    for case in CASES:
        for credential in CREDENTIALS:
            expected = expected_status(credential, case, declared_by(wallet.world.service, case))
            branch = await wallet.world.branch_for(Kind(credential.name), case)
            response = await send(wallet, credential, case, branch)
            met.add((credential.name, response.status_code))
            if response.status_code != expected:
                wrong.append(f"{credential.name}: {case.label}: {response.status_code}, not {expected}: {response.text}")
            if response.status_code == 401 and response.headers.get("www-authenticate") != "Bearer":
                wrong.append(f"{credential.name}: {case.label}: 401 without a challenge")
    assert wrong == []
    for name in ("narrow-key", "project-key", "key-for-a-viewer", "actor-for-a-viewer"):  # guards the guard
        assert {status for credential, status in met if credential == name} >= {200, 403, 404}, name


async def test_open_operations_take_every_credential_that_has_not_ended(wallet: Wallet) -> None:
    for operation, (path, body, success) in OPEN.items():
        for credential in CREDENTIALS:
            caller = await wallet.caller(credential, wallet.world.branch)
            actor = (await caller.get("/me", None)).json().get("actor", {"type": "USER", "id": "x"})
            words = filled(body, unique=credential.name, actor_id=actor["id"])
            words |= {"actor_type": actor["type"]} if "actor_type" in words else {}
            for one in words.get("checks", ()):
                one["actor_type"] = actor["type"]
            method = method_of(wallet.world.service, operation)
            response = await caller.request(method, path, None, **{"params" if method == "GET" else "json": words})
            is_refused = operation == "create_organization" and (credential.is_key or credential.acts_for is not None)
            expected = 401 if credential.ended is not None else 403 if is_refused else success
            assert response.status_code == expected, (operation, credential.name, response.text)


@pytest.mark.parametrize("credential", [DEPUTY, FOREIGN], ids=lambda credential: credential.name)
async def test_the_invisible_and_the_absent_are_the_same_to_the_byte(wallet: Wallet, credential: Credential) -> None:
    founder, branch = wallet.world.founder, wallet.world.branch
    same = {"X-Request-ID": "the-same"}
    cases = [case for case in CASES if case.on is not None]
    invisible = [answer_of(await send(wallet, credential, case, branch, **same)) for case in cases]
    assert {status for status, _, _ in invisible} == {404}
    await founder.delete(f"/organizations/{branch.organization_id}")
    for case, told in zip(cases, invisible, strict=True):
        assert answer_of(await send(wallet, credential, case, branch, **same)) == told, case.label


def answer_of(response: httpx.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    return response.status_code, response.content, sorted(response.headers.multi_items())
