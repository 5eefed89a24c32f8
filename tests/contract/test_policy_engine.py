"""What every policy engine answers: the role matrix, reached in every way."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from sqlalchemy import select

from app.audit.denials import DeniedAttempts
from app.audit.trail import Origin
from app.authz.engine import Located, PolicyEngine
from app.authz.tree import KEYS, SCOPES
from app.core.actors import Actor, ActorType, Asker, Identity, TokenGroups
from app.core.clock import now
from app.core.pagination import CursorPage, CursorRequest, Page, PageRequest
from app.core.permissions import ROLE_ACTIONS, Action, Role
from app.core.resources import ResourceType
from app.db.confinement import Tenants
from app.db.engine import Database
from app.models import Document, Organization, Project
from app.resources.documents.repository import DocumentRepository
from app.resources.documents.schemas import DocumentListQuery
from app.unit_of_work import UnitOfWork, WorkContext
from tests.support import rows
from tests.support.database import open_database
from tests.support.engines import Candidate
from tests.support.rows import Place, Rows
from tests.support.statements import Statements

pytestmark = pytest.mark.anyio

PAST, FUTURE = datetime(2001, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)
MODELS: dict[ResourceType, Any] = {
    ResourceType.ORGANIZATION: Organization,
    ResourceType.PROJECT: Project,
    ResourceType.DOCUMENT: Document,
}
LEVELS = tuple(MODELS)

GIVING_WAYS = (
    "direct",
    "until later",
    "group",
    "nested group",
    "group until later",
    "group of the token",
    "group above the group of the token",
)
EMPTY_WAYS = (
    "expired",
    "membership of the group expired",
    "link between the groups expired",
    "grant of the group expired",
    "same-named group of the other tenant",
    "same-named inner group of the other tenant",
    "a user named like the group",
    "group of a token that speaks for the other tenant",
    "group above the group of a token that speaks for the other tenant",
)


@dataclass(frozen=True, slots=True)
class Case:
    """One actor who holds one role on one resource in one way."""

    actor: Actor
    role: Role
    level: ResourceType
    way: str

    def expected(self, asked: ResourceType) -> frozenset[Action]:
        gives = self.way in GIVING_WAYS and self.level in asked.ancestry
        return ROLE_ACTIONS[self.role] if gives else frozenset()


def every_case() -> list[Case]:
    fitting = [(role, level) for role, level in product(Role, LEVELS) if role.fits(level)]
    kinds = (ActorType.USER, ActorType.SERVICE, ActorType.AGENT)
    combinations = enumerate(product(fitting, GIVING_WAYS + EMPTY_WAYS))
    return [Case(Actor(kinds[n % 3], f"a{n}"), role, level, way) for n, ((role, level), way) in combinations]


def rows_of(case: Case, on: Place, home: Place, other: Place) -> Rows:
    outer, inner = f"outer-{case.actor.id}", f"inner-{case.actor.id}"
    as_outer, as_inner = Actor(ActorType.GROUP, outer), Actor(ActorType.GROUP, inner)
    groups = [row for tenant, name in product((home, other), (outer, inner)) for row in rows.group(tenant, name)]
    group_grant = rows.grant(on, as_outer, case.role)
    written: dict[str, Rows] = {
        "direct": rows.grant(on, case.actor, case.role),
        "until later": rows.grant(on, case.actor, case.role, FUTURE),
        "group": rows.member(home, outer, case.actor) + group_grant,
        "nested group": rows.member(home, inner, case.actor) + rows.member(home, outer, as_inner) + group_grant,
        "group until later": rows.member(home, outer, case.actor, FUTURE) + group_grant,
        "expired": rows.grant(on, case.actor, case.role, PAST),
        "membership of the group expired": rows.member(home, outer, case.actor, PAST) + group_grant,
        "link between the groups expired": rows.member(home, inner, case.actor) + rows.member(home, outer, as_inner, PAST) + group_grant,
        "grant of the group expired": rows.member(home, outer, case.actor) + rows.grant(on, as_outer, case.role, PAST),
        "same-named group of the other tenant": rows.member(other, outer, case.actor) + group_grant,
        "same-named inner group of the other tenant": rows.member(other, inner, case.actor)
        + rows.member(home, outer, as_inner)
        + group_grant,
        "a user named like the group": rows.member(home, outer, Actor(ActorType.USER, f"x{case.actor.id}"))
        + rows.grant(on, Actor(ActorType.GROUP, case.actor.id), case.role),
        "group of the token": group_grant,
        "group above the group of the token": rows.member(home, outer, as_inner) + group_grant,
        "group of a token that speaks for the other tenant": group_grant,
        "group above the group of a token that speaks for the other tenant": rows.member(home, outer, as_inner)
        + rows.member(other, outer, as_inner)
        + group_grant,
    }
    return groups + written[case.way]


@dataclass(frozen=True, slots=True)
class World:
    """Each way of holding a role has a branch of its own: what is held in one way is not a heap in the way of the others."""

    database: Database
    branches: dict[str, dict[ResourceType, Place]]
    other: Place
    cases: list[Case]
    policy: PolicyEngine

    def asker(self, case: Case) -> Asker:
        """The actor of a case, with the groups of his token, if his way is to have one."""
        if "token" not in case.way:
            return Asker(case.actor)
        tenant = self.other if "other tenant" in case.way else self.place(case, ResourceType.ORGANIZATION)
        name = ("inner-" if "above" in case.way else "outer-") + case.actor.id
        return Asker(case.actor, TokenGroups(tenant.organization_id, frozenset({name, "of nobody"})))

    def place(self, case: Case, level: ResourceType) -> Place:
        return self.branches[case.way][level]

    async def locate(self, case: Case, place: Place) -> Located:
        found = await self.policy.locate(self.database, self.asker(case), KEYS[place.ref.type], place.ref.id, now())
        assert found is not None
        return found

    def work(self, case: Case) -> UnitOfWork:
        context = WorkContext(self.database, self.policy, DeniedAttempts())
        identity = Identity(case.actor, "header", groups=self.asker(case).groups)
        return UnitOfWork(context, identity, Origin(), is_read_only=True)


@pytest.fixture
async def world(database_url: str, candidate: Candidate) -> AsyncIterator[World]:
    """A tenant for each way, and another one of the same shape; every case has its own actor, and no grant lies in the other tenant."""
    branches = {}
    everything: Rows = []
    for name in (*GIVING_WAYS, *EMPTY_WAYS, "other"):
        home, home_rows = rows.organization(name.replace(" ", "-")[:63])
        project, project_rows = rows.project(home)
        document, document_rows = rows.document(project)
        branches[name] = dict(zip(LEVELS, (home, project, document), strict=True))
        everything += home_rows + project_rows + document_rows
    other = branches["other"][ResourceType.ORGANIZATION]
    cases = every_case()
    for case in cases:
        everything += rows_of(case, branches[case.way][case.level], branches[case.way][ResourceType.ORGANIZATION], other)
    async with open_database(database_url) as database:
        await rows.write(database, everything)
        await candidate.catch_up(database)
        yield World(database, branches, other, cases, candidate.policy)


def tenants_of(asker: Asker) -> Tenants:
    known = asker.groups.organization_id if asker.groups is not None else None
    return Tenants.of_subjects([(asker.actor.type.value, asker.actor.id)], known)


async def test_a_role_carries_exactly_its_actions_however_it_is_held(world: World) -> None:
    wrong = []
    for case in world.cases:
        for asked in LEVELS:
            place = world.place(case, asked)
            located = await world.locate(case, place)
            expected = case.expected(asked)
            wrong += [(case, asked.value, action.value) for action in Action if (action in located.actions) is not (action in expected)]
            assert located.ref == place.ref
            assert located.organization_id == place.organization_id
            assert located.project_id == place.project_id
    assert wrong == []


async def test_a_list_holds_a_row_exactly_when_the_role_carries_the_action(world: World) -> None:
    wrong = []
    ways = {"direct", "nested group", "same-named group of the other tenant"} | {way for way in GIVING_WAYS + EMPTY_WAYS if "token" in way}
    for case in [case for case in world.cases if case.way in ways]:
        asker = world.asker(case)
        async with world.database.open_read(tenants_of(asker)) as connection:
            for (asked, model), action in product(MODELS.items(), Action):
                if case.way != "direct" and action not in {Action.MEMBER_MANAGE, Action.METADATA_READ}:
                    continue
                statement = select(model.id).where(world.policy.visible_rows(model, action, asker).predicate)
                found = (await connection.execute(statement, dict(world.policy.asking(asker, now())))).scalars().all()
                if list(found) != ([world.place(case, asked).ref.id] if action in case.expected(asked) else []):
                    wrong.append((case, asked.value, action.value))
    assert wrong == []


async def test_holding_an_action_anywhere_follows_the_matrix(world: World) -> None:
    for case, action in product(world.cases, (Action.ORGANIZATION_READ, Action.METADATA_READ, Action.MEMBER_MANAGE)):
        asker = world.asker(case)
        async with world.database.open_read(tenants_of(asker)) as connection:
            held = await world.policy.holds_anywhere(connection, asker, action, now())
        assert held is (action in case.expected(case.level)), (case, action)


async def test_a_grant_and_a_group_membership_end_at_their_very_moment(database_url: str, candidate: Candidate) -> None:
    engine = candidate.policy
    moment = datetime(2026, 5, 4, 3, 2, 1, 7, tzinfo=UTC)
    tick = timedelta(microseconds=1)
    home, everything = rows.organization("home")
    granted, grouped = Actor(ActorType.USER, "granted"), Actor(ActorType.USER, "grouped")
    everything += rows.grant(home, granted, Role.ORG_MEMBER, moment) + rows.group(home, "g") + rows.member(home, "g", grouped, moment)
    everything += rows.grant(home, Actor(ActorType.GROUP, "g"), Role.ORG_MEMBER)
    async with open_database(database_url) as database:
        await rows.write(database, everything)
        await candidate.catch_up(database)
        for actor, (at, is_live) in product((granted, grouped), ((moment - tick, True), (moment, False), (moment + tick, False))):
            asker = Asker(actor)
            async with database.open_read(tenants_of(asker)) as connection:
                located = await engine.locate(database, asker, Organization.id, home.ref.id, at)
                assert located is not None
                assert located.granted == (ROLE_ACTIONS[Role.ORG_MEMBER] if is_live else set())
                statement = select(Organization.id).where(engine.visible_rows(Organization, Action.ORGANIZATION_READ, asker).predicate)
                listed = (await connection.execute(statement, dict(engine.asking(asker, at)))).all()
                assert bool(listed) is is_live
                assert await engine.holds_anywhere(connection, asker, Action.ORGANIZATION_READ, at) is is_live


async def test_locating_is_one_statement_whatever_the_way(world: World) -> None:
    statements = Statements(world.database)
    for case, level in product(world.cases[: len(GIVING_WAYS + EMPTY_WAYS)], LEVELS):
        work = world.work(case)
        statements.take()
        await work.locate_ref(world.place(case, level).ref)
        assert len(statements.take()) == 1
        await work.rollback()


async def test_a_list_is_one_statement_with_its_total_too(world: World) -> None:
    statements = Statements(world.database)
    owner = next(case for case in world.cases if case.role is Role.ORG_OWNER and case.way == "nested group")
    requests: list[PageRequest | CursorRequest] = [
        PageRequest(0, 20, "created_at", descending=False),
        CursorRequest(20, "created_at", descending=False, after=None, fingerprint=""),
    ]
    for request in requests:
        work = world.work(owner)
        statements.take()
        await work.admit_everywhere(Action.DOCUMENT_READ)
        page = await DocumentRepository(work).list_visible(DocumentListQuery(), request)
        sent = statements.take()
        assert len(sent) == 1, sent
        assert ("count(" in sent[0]) == isinstance(request, PageRequest)
        assert isinstance(page, Page | CursorPage)
        assert [item.id for item in page.items] == [world.place(owner, ResourceType.DOCUMENT).ref.id]
        await work.rollback()


def test_every_scope_column_names_a_level_of_the_tree() -> None:
    for model, scopes in SCOPES.items():
        assert ResourceType.ORGANIZATION in scopes
        assert all(column.class_ is model for column in scopes.values())
