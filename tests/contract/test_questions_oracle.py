"""Every question about authorization against the oracle: check = batch = explain = roles = actions = objects = who-can = what-if."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.actors import Actor, ActorType, Identity
from app.core.errors import NotFoundError
from app.core.permissions import Action, Role
from app.core.resources import ResourceRef, ResourceType
from app.resources.authz.schemas import AuthorizationQuestion, ContainsStep, Explanation, GroupStep, ObjectsQuestion, RoleStep, WhoCanQuery
from app.resources.authz.service import AuthorizationService
from app.resources.authz.simulation import SimulatedGrant, Simulation, SimulationService
from app.unit_of_work import UnitOfWork
from tests.support.oracle import (
    EVERYBODY,
    LEVELS,
    NARROW_KEY,
    NARROWED,
    PAST,
    PROFILE,
    Grant,
    Member,
    Story,
    World,
    a_caller,
    a_grant,
    a_story,
    identity_of,
    is_live,
    open_world,
)
from tests.support.rows import Place

pytestmark = pytest.mark.anyio

ROOT: Final = Actor(ActorType.USER, "root")
USER, AGENT, GROUP = Actor(ActorType.USER, "u"), Actor(ActorType.AGENT, "u"), Actor(ActorType.GROUP, "g0")
HELD: Final = (None, Role.PROJECT_VIEWER, Role.ORG_ADMIN)
an_action = st.sampled_from((Action.PROJECT_READ, Action.DOCUMENT_READ, Action.MEMBER_MANAGE, *Action))
a_place = st.integers(0, 2 * len(LEVELS) - 1)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


def denser(story: Story, role: Role | None) -> Story:
    """The story, with an agent who manages a tenant where the user it acts for holds a role, and so do a group and the narrow key.

    In few random stories could anybody ask about others, or would one party hold less than the other.
    """
    if role is None:
        return story
    held = ((AGENT, Role.ORG_ADMIN), (USER, role), (NARROW_KEY, Role.ORG_MEMBER), (GROUP, Role.ORG_ADMIN))
    return story.changed([Grant(0, actor, held_role, None) for actor, held_role in held], [])


def askers(world: World, drawn: Any) -> list[Identity]:
    """A drawn caller, and some who act for a user: an agent, a narrow key, and the user himself, whose token names a group."""
    for_user = Identity(USER, "jwt")
    return [
        identity_of(world, drawn),
        Identity(AGENT, "jwt", on_behalf_of=for_user),
        Identity(NARROW_KEY, "api_key", NARROWED, on_behalf_of=for_user),
        Identity(USER, "jwt", groups=world.token_groups(0, GROUP.id), on_behalf_of=for_user),
    ]


def question(actor: Actor, action: Action, place: Place) -> AuthorizationQuestion:
    ref = place.ref
    return AuthorizationQuestion(actor_type=actor.type, actor_id=actor.id, action=action, resource_type=ref.type, resource_id=ref.id)


def expected_of(world: World, story: Story, identity: Identity, actor: Actor, place: Place) -> frozenset[Action] | None:
    """What a caller is told that an actor may do; None where it may not ask."""
    mine = world.may(story, identity, place)
    if actor == identity.actor:
        return mine
    if Action.MEMBER_MANAGE not in mine:
        return None
    principal = identity.on_behalf_of
    groups = principal.groups if principal is not None and actor == principal.actor else None
    return world.granted(story, actor, place, groups)


@PROFILE
@given(story=a_story, caller=a_caller, role=st.sampled_from(HELD), where=a_place, action=an_action)
async def test_questions_about_one_actor_agree(
    world: World, story: Story, caller: Any, role: Role | None, where: int, action: Action
) -> None:
    story = denser(story, role)
    await world.tell(story)
    for identity in askers(world, caller):
        work = world.work(identity)
        await compare_verdicts(world, story, work, action)
        for actor in EVERYBODY:
            await compare_reasons(world, story, work, question(actor, action, world.places[where]), world.places[where])
        await work.rollback()


async def compare_verdicts(world: World, story: Story, work: UnitOfWork, action: Action) -> None:
    """All actors on all resources, at once."""
    service, asked = AuthorizationService(work), [(actor, place) for actor in EVERYBODY for place in world.places]
    answers = await service.judge([(actor, place.ref) for actor, place in asked])
    verdicts = await service.batch_check([question(actor, action, place) for actor, place in asked])
    for (actor, place), answer, verdict in zip(asked, answers, verdicts, strict=True):
        expected = expected_of(world, story, work.identity, actor, place)
        assert answer == expected, (actor, place)
        assert verdict == (None if expected is None else action in expected), (actor, place)


async def compare_reasons(world: World, story: Story, work: UnitOfWork, asking: AuthorizationQuestion, place: Place) -> None:
    """One actor on one resource, by every question there is."""
    service, expected = AuthorizationService(work), expected_of(world, story, work.identity, asking.actor, place)
    if expected is None:
        for ask in (service.check(asking), service.explain(asking), service.effective_roles(asking.actor, place.ref)):
            with pytest.raises(NotFoundError):
                await ask
        return
    assert await service.check(asking) is (asking.action in expected)
    roles, explained = await service.effective_roles(asking.actor, place.ref), await service.explain(asking)
    assert {one for role in roles for one in role.actions} == expected
    assert explained.effective_roles == roles
    assert explained.allowed is (asking.action in expected)
    check_reasons(world, story, work.identity, place, explained)


def check_reasons(world: World, story: Story, identity: Identity | None, asked: Place, told: Explanation) -> None:
    """The path of an explanation exists: each group holds the one before, the last one was given the role, and so down to the resource."""
    assert [role for role in told.effective_roles if told.action in role.actions] == told.matching_roles
    if not told.allowed:
        assert told.path == []
        return
    assert told.sufficient_roles == []
    tenant = world.tenant_of(asked)
    actor = Actor(told.actor.type, told.actor.id)
    groups = identity.groups if identity is not None and actor == identity.actor else None
    steps = {(member.who, member.group) for member in story.members if member.tenant == tenant and is_live(member.expires_at)}
    if groups is not None and groups == world.token_groups(tenant, *groups.names):
        steps |= {(actor, name) for name in groups.names}
    for step in told.path[1:]:
        match step:
            case GroupStep(group=name):
                assert (actor, name) in steps
                actor = Actor(ActorType.GROUP, name)
            case RoleStep(role=role, on=on):
                (place,) = (number for number, place in enumerate(world.places) if named(place.ref) == on)
                assert any(grant.key == (place, actor, role) and is_live(grant.expires_at) for grant in story.grants)
                reached = world.places[place]
            case ContainsStep(contains=inner):
                below = next(place for place in world.places if named(place.ref) == inner)
                assert below.scopes.items() > reached.scopes.items()
                reached = below
    assert reached.ref == asked.ref


def named(ref: ResourceRef) -> str:
    return f"{ref.type.value.lower()}:{ref.id}"


@PROFILE
@given(story=a_story, caller=a_caller, role=st.sampled_from(HELD), actor=st.sampled_from(EVERYBODY), action=an_action)
async def test_objects_are_those_the_checks_allow(
    world: World, story: Story, caller: Any, role: Role | None, actor: Actor, action: Action
) -> None:
    story = denser(story, role)
    await world.tell(story)
    for identity in askers(world, caller):
        for asked, kind in product({identity.actor, actor, NARROW_KEY}, ResourceType):
            expected = {
                place.ref.id
                for place in world.places
                if place.ref.type is kind and action in (expected_of(world, story, identity, asked, place) or ())
            }
            assert await objects_of(world, identity, asked, action, kind) == sorted(expected), (asked, kind)


async def objects_of(world: World, identity: Identity, actor: Actor, action: Action, kind: ResourceType) -> Sequence[Any]:
    """Every page of a list of objects, two objects each; the count is that of all."""
    found, cursor = [], None
    while True:
        work = world.work(identity)
        asked = ObjectsQuestion(actor_type=actor.type, actor_id=actor.id, action=action, resource_type=kind, limit=2, cursor=cursor)
        page = await AuthorizationService(work).list_objects(asked)
        await work.rollback()
        found += [item.id for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            assert page.total_items == len(found)
            return found


@PROFILE
@given(story=a_story, where=a_place, action=an_action, expand=st.booleans())
async def test_who_can_names_everybody_who_can_and_nobody_else(
    world: World, story: Story, where: int, action: Action, expand: bool
) -> None:
    holders = ((ROOT, Role.ORG_OWNER), (GROUP, Role.ORG_ADMIN), (NARROW_KEY, Role.ORG_MEMBER))
    story = story.changed(
        [Grant(n * len(LEVELS), actor, role, None) for n in (0, 1) for actor, role in holders if actor != NARROW_KEY or n == 0], []
    )
    story = replace(story, members=[*story.members, *(Member(n, GROUP.id, Actor(ActorType.USER, "gone"), PAST) for n in (0, 1))])
    await world.tell(story)
    place, work = world.places[where], world.work(Identity(ROOT, "header"))
    service, resource = AuthorizationService(work), await work.locate_ref(place.ref)
    asked = WhoCanQuery(action=action, resource_type=place.ref.type, resource_id=place.ref.id, expand=expand)
    able, has_more = await service.who_can(resource, asked)
    everybody = (*EVERYBODY, ROOT)
    if expand:
        expected = {actor for actor in everybody if action in world.granted(story, actor, place)}
    else:
        alone = Story([], story.grants)
        expected = {actor for actor in everybody if action in world.granted(alone, actor, place)}
    assert (set(able), has_more) == (expected, False)
    assert list(able) == sorted(able, key=lambda actor: (actor.type.value, actor.id))
    explanations, _ = await service.explain_who_can(resource, asked)
    assert [(told.actor.type, told.actor.id) for told in explanations] == [(actor.type, actor.id) for actor in able]
    for told in explanations:
        check_reasons(world, story, None, place, told)
        if expand:
            alone_told = await service.explain(question(Actor(told.actor.type, told.actor.id), action, place))
            assert told.effective_roles == alone_told.effective_roles
            assert len(told.path) == len(alone_told.path)
    paged: list[Actor] = []
    for _ in range(len(able)):
        cursor = paged[-1].subject if paged else None
        page, has_more = await service.who_can(resource, asked.model_copy(update={"limit": 1, "cursor": cursor}))
        paged += page
        assert has_more is (len(paged) < len(able))
    assert paged == list(able)
    await work.rollback()


@PROFILE
@given(
    story=a_story,
    given_=st.lists(a_grant, max_size=4),
    others=st.lists(a_grant, max_size=2),
    held=st.sets(st.integers(0, 8), max_size=4),
    where=st.sets(a_place, max_size=5),
    action=an_action,
)
async def test_what_if_answers_as_if_it_were_written(
    world: World, story: Story, given_: list[Grant], others: list[Grant], held: set[int], where: set[int], action: Action
) -> None:
    taken = [*others, *(grant for number, grant in enumerate(story.grants) if number in held)]
    story = story.changed([Grant(n * len(LEVELS), ROOT, Role.ORG_OWNER, None) for n in (0, 1)], [])
    await world.tell(story)
    then = story.changed(given_, taken)
    checks = [(actor, place) for actor in EVERYBODY for place in (world.places[number] for number in sorted(where))]
    work = world.work(Identity(ROOT, "header"))
    asked = Simulation(
        grants=[simulated(world, grant) for grant in given_],
        revocations=[simulated(world, grant) for grant in taken],
        checks=[question(actor, action, place) for actor, place in checks],
    )
    told = await SimulationService(work).simulate(asked)
    assert told.is_complete
    for (actor, place), check in zip(checks, told.checks, strict=True):
        expected = tuple(action in world.granted(one, actor, place) for one in (story, then))
        assert (check.before, check.after) == expected, (actor, place)
    effects = {
        (effect.resource.id, effect.actor.type, effect.actor.id): (frozenset(effect.gained), frozenset(effect.lost))
        for effect in told.effects
    }
    assert effects == effects_of(world, story, then, [*given_, *taken])
    await work.rollback()


def simulated(world: World, grant: Grant) -> SimulatedGrant:
    ref = world.places[grant.place].ref
    return SimulatedGrant(resource_type=ref.type, resource_id=ref.id, actor_type=grant.who.type, actor_id=grant.who.id, role=grant.role)


def effects_of(world: World, story: Story, then: Story, changes: Sequence[Grant]) -> dict[Any, tuple[frozenset[Action], frozenset[Action]]]:
    """Who gains and loses what on the resources that changes name: their grantees, and whoever is in one that is a group."""
    found = {}
    for change in changes:
        place = world.places[change.place]
        for actor in EVERYBODY:
            before, after = (world.granted(one, actor, place) for one in (story, then))
            if change.who in world.subjects(story, actor, world.tenant_of(place)) and before != after:
                found[place.ref.id, actor.type, actor.id] = (after - before, before - after)
    return found
