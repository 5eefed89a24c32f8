"""Random worlds of two tenants that use the same names, and a brute-force oracle of who may do what in them."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from app.audit.denials import DeniedAttempts
from app.audit.trail import Origin
from app.core.actors import Actor, ActorType, Identity, TokenGroups
from app.core.keys import new_token
from app.core.permissions import Action, Role, actions_of
from app.core.resources import ResourceType
from app.db.base import Base
from app.db.engine import Database
from app.models import ApiKey, AuditEvent, DocumentVersion, Execution, Group, GroupMember, Membership
from app.unit_of_work import UnitOfWork, WorkContext
from tests.support import rows
from tests.support.database import open_database
from tests.support.engines import BUILTIN, Candidate
from tests.support.rows import Place, Rows

PAST, FUTURE = datetime(2001, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)
TENANTS: Final = 2
LEVELS: Final = (
    ResourceType.ORGANIZATION,
    ResourceType.PROJECT,
    ResourceType.DOCUMENT,
    ResourceType.API_CALL,
    ResourceType.PROJECT,
    ResourceType.DOCUMENT,
    ResourceType.API_CALL,
)
GROUPS: Final = ("g0", "g1", "g2", "g3")

# Users are called like groups, and one id is worn by three kinds of actor: only type and id together name somebody.
CALLERS: Final = (
    Actor(ActorType.USER, "u"),
    Actor(ActorType.USER, "g0"),
    Actor(ActorType.SERVICE, "u"),
    Actor(ActorType.AGENT, "u"),
)
WHOLE_KEY, NARROW_KEY = (Actor(ActorType.API_KEY, str(UUID(int=number))) for number in (1, 2))
PEPPER: Final = b"pepper"
TOKENS: Final = {key: new_token() for key in (WHOLE_KEY, NARROW_KEY)}
# What the narrow key was made for: enough to ask about others, but not on leaves alone.
NARROWED: Final = frozenset({Action.PROJECT_READ, Action.DOCUMENT_READ, Action.DOCUMENT_WRITE, Action.MEMBER_MANAGE})
MEMBERS: Final = CALLERS + tuple(Actor(ActorType.GROUP, name) for name in GROUPS)
EVERYBODY: Final = (*MEMBERS, WHOLE_KEY, NARROW_KEY)


def is_live(expires_at: datetime | None) -> bool:
    return expires_at is None or expires_at == FUTURE


def limit_of(actor: Actor) -> frozenset[Action]:
    """What an actor's credential leaves of its roles."""
    return NARROWED if actor == NARROW_KEY else frozenset(Action)


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

    @property
    def key(self) -> tuple[int, Actor, Role]:
        return self.place, self.who, self.role


@dataclass(frozen=True)
class Story:
    members: Sequence[Member]
    grants: Sequence[Grant]

    def changed(self, given: Iterable[Grant], taken: Iterable[Grant]) -> "Story":
        """The story as if grants had been taken and then others given, without an end."""
        gone = {grant.key for grant in (*taken, *given)}
        new = {grant.key: replace(grant, expires_at=None) for grant in given}
        return replace(self, grants=[*(grant for grant in self.grants if grant.key not in gone), *new.values()])


@dataclass(frozen=True)
class World:
    """The resources stay the same in every example; who holds what changes."""

    database: Database
    places: list[Place]
    rows: Rows
    candidate: Candidate = BUILTIN

    def _repr_pretty_(self, printer: Any, _is_cycle: bool) -> None:
        printer.text("the world")  # a failing example is shown with it; all rows would be too many

    async def tell(self, story: Story) -> None:
        homes = [place for place in self.places if place.ref.type is ResourceType.ORGANIZATION]
        told = [row for home in homes for name in GROUPS for row in rows.group(home, name)]
        for member in story.members:
            told += rows.member(homes[member.tenant], member.group, member.who, member.expires_at)
        for grant in story.grants:
            told += rows.grant(self.places[grant.place], grant.who, grant.role, grant.expires_at)
        await rows.write(self.database, told, instead_of=(Membership, GroupMember, Group))
        await self.candidate.catch_up(self.database)

    def work(self, identity: Identity) -> UnitOfWork:
        context = WorkContext(self.database, self.candidate.policy, DeniedAttempts())
        return UnitOfWork(context, identity, Origin(), is_read_only=True)

    def home(self, tenant: int) -> Place:
        return self.places[tenant * len(LEVELS)]

    def tenant_of(self, place: Place) -> int:
        return next(n for n in range(TENANTS) if self.home(n).organization_id == place.organization_id)

    def token_groups(self, tenant: int, *names: str) -> TokenGroups:
        return TokenGroups(self.home(tenant).organization_id, frozenset(names))

    def subjects(self, story: Story, actor: Actor, tenant: int, groups: TokenGroups | None = None) -> frozenset[Actor]:
        """An actor and every group of a tenant it is in, by walking everything again and again until nothing new is found."""
        named = groups.names if groups is not None and groups == self.token_groups(tenant, *groups.names) else frozenset()
        subjects = {actor, *(Actor(ActorType.GROUP, name) for name in named)}
        while True:
            found = {
                Actor(ActorType.GROUP, member.group)
                for member in story.members
                if member.tenant == tenant and member.who in subjects and is_live(member.expires_at)
            }
            if found <= subjects:
                return frozenset(subjects)
            subjects |= found

    def roles(self, story: Story, actor: Actor, asked: Place, groups: TokenGroups | None = None) -> frozenset[Role]:
        """What an actor holds on a resource."""
        subjects = self.subjects(story, actor, self.tenant_of(asked), groups)
        return frozenset(
            grant.role
            for grant in story.grants
            if grant.who in subjects and is_live(grant.expires_at) and self.places[grant.place].ref.id in asked.scopes.values()
        )

    def granted(self, story: Story, actor: Actor, asked: Place, groups: TokenGroups | None = None) -> frozenset[Action]:
        """What an actor may do on a resource, whoever asks."""
        return actions_of(self.roles(story, actor, asked, groups)) & limit_of(actor)

    def may(self, story: Story, identity: Identity, asked: Place) -> frozenset[Action]:
        """What a caller may do on a resource: what each of its parties may, and its credential was made for."""
        parties = [identity, *([identity.on_behalf_of] if identity.on_behalf_of is not None else [])]
        limits = identity.only_actions if identity.only_actions is not None else frozenset(Action)
        return limits.intersection(*(self.granted(story, party.actor, asked, party.groups) for party in parties))

    def row_ids(self, story: Story, identity: Identity, model: type[Base], action: Action) -> set[Any]:
        """The ids of the rows of a table on which a caller may take an action."""
        return {
            values["id"]
            for table, values in self.rows
            if table is model and action in self.may(story, identity, _place_of(self.places, model, values))
        }


def _place_of(places: list[Place], model: type[Base], values: dict[str, Any]) -> Place:
    if model in {AuditEvent, Execution, ApiKey}:  # these hang below a project or an organization, whatever they are about
        wanted = values["project_id"] or values["organization_id"]
    else:
        wanted = values["document_id"] if model is DocumentVersion else values["id"]
    return next(place for place in places if place.ref.id == wanted)


@asynccontextmanager
async def open_world(database_url: str, candidate: Candidate = BUILTIN) -> AsyncIterator[World]:
    """Two tenants of the same shape, and two API keys that anything may be granted to."""
    places: list[Place] = []
    written: Rows = []
    for name in ("one", "two"):
        home, home_rows = rows.organization(name)
        written += home_rows + rows.api_key(home)
        places.append(home)
        for project, project_rows in (rows.project(home), rows.project(home)):
            document, document_rows = rows.document(project)
            call, call_rows = rows.api_call(project)
            written += project_rows + document_rows + call_rows + rows.execution(project) + rows.api_key(project)
            places += [project, document, call]
    written += rows.api_key(places[0], id=UUID(WHOLE_KEY.id)) + rows.api_key(places[0], id=UUID(NARROW_KEY.id), actions=sorted(NARROWED))
    for key, token in TOKENS.items():
        written += rows.secret(places[0], UUID(key.id), token, PEPPER)
    for place in places:
        written += rows.event(place)
    assert [place.ref.type for place in places] == [*LEVELS] * TENANTS
    async with open_database(database_url) as database:
        await rows.write(database, written)
        yield World(database, places, written, candidate)


_EXPIRY = st.sampled_from([None, None, PAST, FUTURE])


@st.composite
def _grants(draw: st.DrawFn) -> Grant:
    place = draw(st.integers(0, TENANTS * len(LEVELS) - 1))
    fitting = [role for role in Role if role.fits(LEVELS[place % len(LEVELS)])]
    strangers = [actor for actor in EVERYBODY if actor.type is not ActorType.API_KEY]  # a key holds nothing in another tenant than its own
    holders = EVERYBODY if place < len(LEVELS) else strangers
    return Grant(place, draw(st.sampled_from(holders)), draw(st.sampled_from(fitting)), draw(_EXPIRY))


@st.composite
def _callers(draw: st.DrawFn) -> tuple[Actor, tuple[int, frozenset[str]] | None, Actor | None]:
    """Who calls, the groups its token names and the tenant they count in, and who it acts for."""
    actor = draw(st.sampled_from((*CALLERS, *CALLERS, WHOLE_KEY, NARROW_KEY)))
    named = st.tuples(st.integers(0, TENANTS - 1), st.frozensets(st.sampled_from((*GROUPS, "of nobody")), max_size=2))
    himself = st.just(actor if actor.type is not ActorType.API_KEY else None)
    return actor, draw(st.none() | named), draw(st.none() | himself | st.sampled_from(CALLERS))


def identity_of(world: World, caller: tuple[Actor, tuple[int, frozenset[str]] | None, Actor | None]) -> Identity:
    actor, named, principal = caller
    return Identity(
        actor,
        "jwt",
        only_actions=NARROWED if actor == NARROW_KEY else None,
        groups=world.token_groups(named[0], *named[1]) if named is not None and actor.type is not ActorType.API_KEY else None,
        on_behalf_of=Identity(principal, "jwt") if principal is not None else None,
    )


a_grant: Final = _grants()
a_caller: Final = _callers()
_members = st.builds(Member, st.integers(0, TENANTS - 1), st.sampled_from(GROUPS), st.sampled_from(MEMBERS), _EXPIRY)
a_story: Final = st.builds(
    Story,
    st.lists(_members, max_size=12, unique_by=lambda member: (member.tenant, member.group, member.who)),
    st.lists(a_grant, min_size=1, max_size=9, unique_by=lambda grant: grant.key),
)
PROFILE: Final = settings(
    max_examples=50,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=[Phase.generate],  # each step of shrinking writes a world: minutes. Stories are short enough to read; add Phase.shrink by hand.
)
