"""Every policy engine against a brute-force oracle, in random worlds of two tenants that use the same names."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from app.audit.denials import DeniedAttempts
from app.audit.trail import Origin
from app.authz.tree import SCOPES
from app.core.actors import Actor, ActorType, Identity
from app.core.permissions import Action, Role, actions_of
from app.core.resources import ResourceType
from app.db.base import Base
from app.db.engine import Database
from app.models import (
    ApiCall,
    ApiKey,
    AuditEvent,
    Document,
    DocumentVersion,
    Execution,
    ExecutionEvent,
    Group,
    GroupMember,
    Membership,
    Organization,
    Project,
)
from app.unit_of_work import UnitOfWork, WorkContext
from tests.support import rows
from tests.support.database import open_database
from tests.support.engines import Candidate
from tests.support.rows import Place, Rows

pytestmark = pytest.mark.anyio

PAST, FUTURE = datetime(2001, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)
TENANTS: Final = 2
PLACES_PER_TENANT: Final = 7
GROUPS: Final = ("g0", "g1", "g2", "g3")

# Users are called like groups, and one id is worn by three kinds of actor: only type and id together name somebody.
CALLERS: Final = (
    Actor(ActorType.USER, "u"),
    Actor(ActorType.USER, "g0"),
    Actor(ActorType.SERVICE, "u"),
    Actor(ActorType.AGENT, "u"),
)
GRANTEES: Final = CALLERS + tuple(Actor(ActorType.GROUP, name) for name in GROUPS)


@dataclass(frozen=True)
class Member:
    tenant: int
    group: str
    who: Actor
    expires_at: datetime | None


@dataclass(frozen=True)
class Grant:
    place: int
    who: Actor
    role: Role
    expires_at: datetime | None


@dataclass(frozen=True)
class Story:
    members: Sequence[Member]
    grants: Sequence[Grant]


@dataclass(frozen=True)
class World:
    """The resources stay the same in every example; who holds what changes."""

    database: Database
    places: list[Place]
    rows: Rows
    candidate: Candidate

    async def tell(self, story: Story) -> None:
        homes = [place for place in self.places if place.ref.type is ResourceType.ORGANIZATION]
        told = [row for home in homes for name in GROUPS for row in rows.group(home, name)]
        for member in story.members:
            told += rows.member(homes[member.tenant], member.group, member.who, member.expires_at)
        for grant in story.grants:
            told += rows.grant(self.places[grant.place], grant.who, grant.role, grant.expires_at)
        await rows.write(self.database, told, instead_of=(Membership, GroupMember, Group))
        await self.candidate.catch_up(self.database)

    def work(self, actor: Actor) -> UnitOfWork:
        context = WorkContext(self.database, self.candidate.policy, DeniedAttempts())
        return UnitOfWork(context, Identity(actor, "header"), Origin(), is_read_only=True)


@pytest.fixture
async def world(database_url: str, candidate: Candidate) -> AsyncIterator[World]:
    places: list[Place] = []
    written: Rows = []
    for name in ("one", "two"):
        home, home_rows = rows.organization(name)
        written += home_rows
        written += rows.api_key(home)
        places.append(home)
        for project, project_rows in (rows.project(home), rows.project(home)):
            document, document_rows = rows.document(project)
            call, call_rows = rows.api_call(project)
            written += project_rows + document_rows + call_rows + rows.execution(project) + rows.api_key(project)
            places += [project, document, call]
    for place in places:
        written += rows.event(place)
    assert len(places) == TENANTS * PLACES_PER_TENANT
    async with open_database(database_url) as database:
        await rows.write(database, written)
        yield World(database, places, written, candidate)


def is_live(expires_at: datetime | None) -> bool:
    return expires_at is None or expires_at == FUTURE


def oracle_roles(story: Story, places: list[Place], actor: Actor, asked: Place) -> frozenset[Role]:
    """What an actor holds on a resource, by walking everything again and again until nothing new is found."""
    tenant = next(n for n in range(TENANTS) if places[n * PLACES_PER_TENANT].organization_id == asked.organization_id)
    subjects = {actor}
    while True:
        found = {
            Actor(ActorType.GROUP, member.group)
            for member in story.members
            if member.tenant == tenant and member.who in subjects and is_live(member.expires_at)
        }
        if found <= subjects:
            break
        subjects |= found
    return frozenset(
        grant.role
        for grant in story.grants
        if grant.who in subjects and is_live(grant.expires_at) and places[grant.place].ref.id in asked.scopes.values()
    )


def oracle_rows(story: Story, world: World, actor: Actor, model: type[Base], action: Action) -> set[Any]:
    """The ids of the rows of a table on which an actor may take an action."""
    return {
        values["id"]
        for table, values in world.rows
        if table is model and action in actions_of(oracle_roles(story, world.places, actor, _place_of(world.places, model, values)))
    }


def _place_of(places: list[Place], model: type[Base], values: dict[str, Any]) -> Place:
    if model in {AuditEvent, Execution, ExecutionEvent, ApiKey}:  # these hang below a project or an organization, whatever they are about
        wanted = values["project_id"] or values["organization_id"]
    else:
        wanted = values["document_id"] if model is DocumentVersion else values["id"]
    return next(place for place in places if place.ref.id == wanted)


_EXPIRY = st.sampled_from([None, None, PAST, FUTURE])
_LEVEL_OF_PLACE = (
    ResourceType.ORGANIZATION,
    ResourceType.PROJECT,
    ResourceType.DOCUMENT,
    ResourceType.API_CALL,
    ResourceType.PROJECT,
    ResourceType.DOCUMENT,
    ResourceType.API_CALL,
) * TENANTS


@st.composite
def _grants(draw: st.DrawFn) -> Grant:
    place = draw(st.integers(0, len(_LEVEL_OF_PLACE) - 1))
    fitting = [role for role in Role if role.fits(_LEVEL_OF_PLACE[place])]
    return Grant(place, draw(st.sampled_from(GRANTEES)), draw(st.sampled_from(fitting)), draw(_EXPIRY))


_members = st.builds(Member, st.integers(0, TENANTS - 1), st.sampled_from(GROUPS), st.sampled_from(GRANTEES), _EXPIRY)
_stories = st.builds(
    Story,
    st.lists(_members, max_size=12, unique_by=lambda member: (member.tenant, member.group, member.who)),
    st.lists(_grants(), min_size=1, max_size=7, unique_by=lambda grant: (grant.place, grant.who, grant.role)),
)
_PROFILE = settings(
    max_examples=50,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=[Phase.generate],  # each step of shrinking writes a world: minutes. Stories are short enough to read; add Phase.shrink by hand.
)


@_PROFILE
@given(story=_stories, caller=st.sampled_from(CALLERS))
async def test_the_engine_finds_the_roles_the_oracle_finds(world: World, story: Story, caller: Actor) -> None:
    await world.tell(story)
    work = world.work(caller)
    for place in world.places:
        located = await work.locate_ref(place.ref)
        expected = oracle_roles(story, world.places, caller, place)
        assert located.actions == located.granted == actions_of(expected), place
    await work.rollback()


@_PROFILE
@given(
    story=_stories,
    caller=st.sampled_from(CALLERS),
    actions=st.sets(st.sampled_from(Action), min_size=1, max_size=2),
)
async def test_a_list_shows_the_rows_the_oracle_shows(world: World, story: Story, caller: Actor, actions: set[Action]) -> None:
    await world.tell(story)
    models: tuple[Any, ...] = (Organization, Project, Document, DocumentVersion, ApiCall, Execution, ExecutionEvent, ApiKey, AuditEvent)
    assert set(models) == set(SCOPES)
    reading = {Action.ORGANIZATION_READ, Action.PROJECT_READ, Action.DOCUMENT_READ}
    for action in sorted(actions | reading):
        work = world.work(caller)
        await work.admit_everywhere(action)
        for model in models:
            found = (await work.session.execute(work.only_visible(select(model.id), model))).scalars().all()
            assert len(found) == len(set(found))
            assert set(found) == oracle_rows(story, world, caller, model, action), (model.__tablename__, action)
        await work.rollback()
