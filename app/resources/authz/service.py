"""Answers questions about authorization from the rows that decide requests, so an answer and a request cannot disagree."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from app.authz.engine import HeldGrant, Located
from app.authz.questions import ways_up
from app.core.actors import Actor, ActorType, InvalidActorError
from app.core.errors import InvalidError, NotFoundError, UnauthenticatedError
from app.core.pagination import Cursor, InvalidCursorError, decode_cursor, encode_cursor, fingerprint
from app.core.permissions import Action
from app.core.resources import ResourceRef, ResourceType
from app.http.schemas import ActorRef, ResourceRefRead
from app.models import ApiKey
from app.observability.metrics import count_answers
from app.resources.authz.explaining import explain
from app.resources.authz.repository import AuthorizationRepository
from app.resources.authz.schemas import (
    MAX_LISTED,
    AuthorizationQuestion,
    EffectiveRole,
    Explanation,
    Me,
    MyKey,
    MyOrganization,
    ObjectsQuestion,
    ObjectsRead,
    WhoCanQuery,
)
from app.unit_of_work import UnitOfWork

Question = tuple[Actor, ResourceRef]


class AuthorizationService:
    """Who may ask: about oneself always; about others with MEMBER_MANAGE on the resource."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._answers = AuthorizationRepository(work)

    async def check(self, asked: AuthorizationQuestion) -> bool:
        """Whether the actor may take the action. False for what does not exist, or what oneself may not see.

        Raises:
            NotFoundError: asked about another without MEMBER_MANAGE on the resource.
        """
        (allowed,) = await self.batch_check([asked])
        if allowed is None:
            raise NotFoundError
        return allowed

    async def actions(self, actor: Actor, ref: ResourceRef) -> frozenset[Action]:
        """Everything the actor may do on a resource; the same rules as ``check``, one statement."""
        self.require_identity()
        (found,) = await self.judge([(actor, ref)])
        if found is None:
            raise NotFoundError
        return found

    async def batch_check(self, asked: Sequence[AuthorizationQuestion]) -> list[bool | None]:
        """The answers in order, None where the caller may not ask; one statement for each type of resource."""
        self.require_identity()
        granted = await self.judge([(question.actor, question.ref) for question in asked])
        answers = [None if found is None else question.action in found for question, found in zip(asked, granted, strict=True)]
        count_answers("authz", answers)
        return answers

    async def judge(self, asked: Sequence[Question]) -> list[frozenset[Action] | None]:
        """What each actor may do on each resource, None where the caller may not ask."""
        wanted: defaultdict[ResourceType, set[tuple[UUID, Actor]]] = defaultdict(set)
        for actor, ref in asked:
            wanted[ref.type].update((ref.id, one) for one in (actor, *self._work.parties))
        granted: dict[Question, frozenset[Action]] = {}
        for type_, pairs in wanted.items():
            for (resource_id, actor), actions in (await self._answers.judge(type_, pairs)).items():
                granted[actor, ResourceRef(type_, resource_id)] = actions

        def answer(actor: Actor, ref: ResourceRef) -> frozenset[Action] | None:
            mine = self.shared(granted, ref)
            if actor == self._work.actor:
                return mine
            return granted.get((actor, ref)) if Action.MEMBER_MANAGE in mine else None

        return [answer(actor, ref) for actor, ref in asked]

    def shared(self, granted: Mapping[Question, frozenset[Action]], ref: ResourceRef) -> frozenset[Action]:
        """What the caller may do on a resource: what every party was granted there, within what the credential was made for."""
        nothing: frozenset[Action] = frozenset()
        every = [granted.get((party, ref), nothing) for party in self._work.parties]
        limit = self._work.identity.only_actions
        return frozenset.intersection(*every, *([limit] if limit is not None else []))

    async def explain(self, asked: AuthorizationQuestion) -> Explanation:
        """The answer with its reasons; for a denial, what is held and what would do."""
        resource, grants = await self._held(asked.actor, asked.ref)
        return explain(asked.actor, asked.action, asked.ref, resource, grants)

    async def effective_roles(self, actor: Actor, ref: ResourceRef) -> list[EffectiveRole]:
        """The roles that count for the actor on the resource, nearest first, each with what is left of it."""
        _, grants = await self._held(actor, ref)
        return [EffectiveRole.of(grant, ref) for grant in grants]

    async def able(self, resource: Located, action: Action, *, expand: bool = True) -> dict[Actor, list[HeldGrant]]:
        """Every actor who may take the action on the resource, each with all he holds there; with ``expand`` the members of groups too."""
        held: defaultdict[Actor, list[HeldGrant]] = defaultdict(list)
        for grant in await self._answers.grants_on(resource):
            if expand or action in grant.actions:
                held[grant.actor].append(grant)
        if expand:
            of_groups = {actor: list(found) for actor, found in held.items() if actor.type is ActorType.GROUP}
            members = await self._answers.members_below(resource.organization_id, of_groups)
            for group, found in of_groups.items():
                for member, way in ways_up(members, group).items():
                    held[member] += [replace(grant, via=way) for grant in found]
        return {actor: found for actor, found in held.items() if any(action in grant.actions for grant in found)}

    async def explain_who_can(self, resource: Located, query: WhoCanQuery) -> tuple[list[Explanation], bool]:
        """The same as ``who_can``, with everybody's reasons."""
        able, has_more = await self.who_can(resource, query)
        return [explain(actor, query.action, resource.ref, resource, grants) for actor, grants in able.items()], has_more

    async def who_can(self, resource: Located, query: WhoCanQuery) -> tuple[dict[Actor, list[HeldGrant]], bool]:
        """Every actor who may take the action on the resource, by type and id, with his grants; and whether there are more.

        Groups stand in the list themselves, because tokens bring members that no table knows; with ``expand`` so do their members.

        Raises:
            InvalidError: the cursor names no actor.
        """
        after = _after(query.cursor)
        able = await self.able(resource, query.action, expand=query.expand)
        actors = sorted((actor for actor in able if after is None or _order(actor) > _order(after)), key=_order)
        shown, places = actors[: query.limit], resource.places
        return {actor: sorted(able[actor], key=lambda grant: grant.order(places)) for actor in shown}, len(actors) > len(shown)

    async def list_objects(self, asked: ObjectsQuestion) -> ObjectsRead:
        """The resources of a type on which the actor may take the action; about another, of those where the caller manages members.

        Raises:
            InvalidError: the cursor is of another question.
        """
        self.require_identity()
        actor = asked.actor_or(self._work.actor)
        bound_to = fingerprint({"objects": actor.subject, "action": asked.action, "type": asked.resource_type})
        try:
            after = decode_cursor(asked.cursor, bound_to).id if asked.cursor is not None else None
        except InvalidCursorError as error:
            raise InvalidError(str(error), pointer="/cursor", code="invalid_cursor") from None
        found, total = await self.objects(actor, asked.action, asked.resource_type, after, asked.limit + 1)
        shown = found[: asked.limit]
        following = encode_cursor(Cursor(None, shown[-1]), bound_to) if len(found) > len(shown) else None
        items = [ResourceRefRead(type=asked.resource_type, id=found_id) for found_id in shown]
        return ObjectsRead(items=items, total_items=total, next_cursor=following, has_more=following is not None)

    async def objects(
        self, actor: Actor, action: Action, resource_type: ResourceType, after: UUID | None, limit: int
    ) -> tuple[list[UUID], int]:
        """The ids that ``list_objects`` tells, ``limit`` after one of them in order, and how many there are in all.

        Raises:
            UnauthenticatedError: the caller is anonymous.
        """
        self.require_identity()
        if await self._reaches_nothing(actor, action):
            return [], 0
        if actor == self._work.actor:
            await self._work.admit_everywhere(action)
        else:
            self._work.admit_survey(actor, action)
        return await self._answers.objects(resource_type, after, limit)

    async def me(self) -> Me:
        """Who the caller is, and where."""
        self.require_identity()
        work, identity = self._work, self._work.identity
        organizations = await self._answers.organizations_of(MAX_LISTED)
        allowed = await self.judge([(work.actor, ResourceRef(ResourceType.ORGANIZATION, row.id)) for row, _ in organizations])
        return Me(
            actor=ActorRef.of(work.actor),
            on_behalf_of=identity.principal.subject if identity.principal is not None else None,
            auth_method=identity.method,
            only_actions=sorted(identity.only_actions) if identity.only_actions is not None else None,
            api_key=await self._my_key() if work.actor.type is ActorType.API_KEY else None,
            organizations=[
                MyOrganization(id=row.id, slug=row.slug, name=row.name, roles=roles)
                for (row, roles), actions in zip(organizations, allowed, strict=True)
                if Action.ORGANIZATION_READ in (actions or ())
            ],
        )

    async def _my_key(self) -> MyKey:
        row = (await self._work.locate(ApiKey.id, UUID(self._work.actor.id))).row
        scope = ResourceRefRead(type=row.scope_type, id=row.scope_id)
        return MyKey(
            id=row.id, name=row.name, scope=scope, role=row.role, expires_at=row.expires_at, may_act_for_others=row.may_act_for_others
        )

    def require_identity(self) -> None:
        """Anonymous callers learn nothing.

        Raises:
            UnauthenticatedError: the caller is anonymous.
        """
        if self._work.identity.is_anonymous:
            raise UnauthenticatedError("Questions about authorization need an identity.")

    async def _held(self, actor: Actor, ref: ResourceRef) -> tuple[Located | None, list[HeldGrant]]:
        """The resource and what the actor holds there; about oneself None and nothing when nothing is left of it."""
        self.require_identity()
        found = await self._work.find(ref)
        if actor != self._work.actor:
            if found is None or Action.MEMBER_MANAGE not in found.actions:
                raise NotFoundError
            return found, await self._answers.grants_of(found, actor)
        if found is None or not found.actions:
            return None, []
        return found, [replace(grant, only_actions=found.actions) for grant in await self._answers.grants_of(found, actor)]

    async def _reaches_nothing(self, actor: Actor, action: Action) -> bool:
        """Whether a credential was made for too little to find anything: the caller's, or the API key that is asked about."""
        mine = self._work.identity.only_actions
        if actor == self._work.actor:
            return mine is not None and action not in mine
        theirs = (await self._answers.limits_of_keys([actor])).get(actor)
        return (mine is not None and Action.MEMBER_MANAGE not in mine) or (theirs is not None and action not in theirs)


def _order(actor: Actor) -> tuple[str, str]:
    return actor.type.value, actor.id


def _after(cursor: str | None) -> Actor | None:
    if cursor is None:
        return None
    try:
        return Actor.from_subject(cursor)
    except InvalidActorError:
        raise InvalidError("names no actor", pointer="query.cursor", code="invalid_cursor") from None
