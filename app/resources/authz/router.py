"""Routes of questions about authorization."""

from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import Depends, Query, Response

from app.authz.engine import Located
from app.core.actors import Actor
from app.core.errors import NotFoundError
from app.core.permissions import READ_ACTIONS, ROLE_ACTIONS, SHARE_ACTIONS, Action, Role
from app.core.resources import ResourceRef, ResourceType
from app.http.dependencies import TheRuntime, Work
from app.http.problems import STATUS
from app.http.routes import Routes
from app.http.schemas import ActorRef
from app.resources.authz.schemas import (
    ActionsQuestion,
    ActionsRead,
    AuthorizationQuestion,
    BatchCheck,
    BatchVerdict,
    BatchVerdicts,
    EffectiveRole,
    Explanation,
    Me,
    ObjectsQuestion,
    ObjectsRead,
    PolicyRead,
    Refusal,
    RolePolicy,
    RolesQuery,
    Verdict,
    WhoCanQuery,
)
from app.resources.authz.service import AuthorizationService
from app.resources.authz.simulation import Simulation, SimulationRead, SimulationService

routes = Routes("authorization")

_ABOUT_ONESELF: Final = (
    "Everybody may ask about himself; asking about others needs MEMBER_MANAGE on the resource, which the service checks."
)


async def open_authorization(work: Work) -> AuthorizationService:
    """The answers for this request."""
    return AuthorizationService(work)


AboutWhoCan = Annotated[WhoCanQuery, Query()]


async def the_resource_in_question(query: AboutWhoCan, work: Work) -> Located:
    """The resource that the query names."""
    return await work.locate_ref(ResourceRef(query.resource_type, query.resource_id))


Authorization = Annotated[AuthorizationService, Depends(open_authorization)]
TheResource = Annotated[Located, Depends(the_resource_in_question)]


@routes.public("POST", "/authz/check", because=_ABOUT_ONESELF, problems=(404,))
async def check_authorization(asked: AuthorizationQuestion, authorization: Authorization) -> Verdict:
    """Ask whether an actor may take an action on a resource."""
    return Verdict(allowed=await authorization.check(asked))


@routes.public("POST", "/authz/batch-check", because=_ABOUT_ONESELF)
async def check_authorizations(asked: BatchCheck, authorization: Authorization) -> BatchVerdicts:
    """Ask up to 200 such questions at once.

    The answers come in the order of the questions. Where you may not ask, `allowed` is null and `error` says what asking alone
    would have been answered.
    """
    unknown = NotFoundError()
    refusal = Refusal(status=STATUS[NotFoundError], code=unknown.code, detail=unknown.detail)
    verdicts = await authorization.batch_check(asked.checks)
    return BatchVerdicts(results=[BatchVerdict(allowed=allowed, error=refusal if allowed is None else None) for allowed in verdicts])


@routes.public("POST", "/authz/explain", because=_ABOUT_ONESELF, problems=(404,))
async def explain_authorization(asked: AuthorizationQuestion, authorization: Authorization) -> Explanation:
    """Ask whether an actor may take an action on a resource, and why."""
    return await authorization.explain(asked)


@routes.public("GET", "/authz/effective-roles", because=_ABOUT_ONESELF, problems=(404,))
async def list_effective_roles(query: Annotated[RolesQuery, Query()], authorization: Authorization) -> list[EffectiveRole]:
    """List the roles that count for an actor on a resource, nearest scope first."""
    actor, ref = Actor(query.actor_type, query.actor_id), ResourceRef(query.resource_type, query.resource_id)
    return await authorization.effective_roles(actor, ref)


@routes.get("/authz/who-can", allow=Action.MEMBER_MANAGE, on=the_resource_in_question, is_secret=True)
async def list_who_can(
    resource: TheResource, query: AboutWhoCan, authorization: Authorization, runtime: TheRuntime, response: Response
) -> list[ActorRef]:
    """List the actors who may take the action on a resource, by type and id.

    Groups stand in the list beside their members, because tokens bring members that no list knows; `expand=false` leaves the
    members out. At most 1000; a `Link` header with `rel="next"` leads to the rest.
    """
    able, has_more = await authorization.who_can(resource, query)
    actors = [ActorRef.of(actor) for actor in able]
    if has_more:
        response.headers["Link"] = _next(f"{runtime.base_path}/authz/who-can", query, actors[-1])
    return actors


@routes.get("/authz/who-can-explain", allow=Action.MEMBER_MANAGE, on=the_resource_in_question, is_secret=True)
async def explain_who_can(
    resource: TheResource, query: AboutWhoCan, authorization: Authorization, runtime: TheRuntime, response: Response
) -> list[Explanation]:
    """List the actors who may take the action on a resource, and why; groups, members and pages as in `who-can`."""
    explanations, has_more = await authorization.explain_who_can(resource, query)
    if has_more:
        response.headers["Link"] = _next(f"{runtime.base_path}/authz/who-can-explain", query, explanations[-1].actor)
    return explanations


@routes.public("POST", "/authz/list-objects", because=_ABOUT_ONESELF)
async def list_objects(asked: ObjectsQuestion, authorization: Authorization) -> ObjectsRead:
    """List the resources of a type on which an actor may take an action: complete, counted, in pages.

    About another actor the list holds the resources whose members you manage.
    """
    return await authorization.list_objects(asked)


@routes.public("POST", "/authz/list-actions", because=_ABOUT_ONESELF, problems=(404,))
async def list_actions(asked: ActionsQuestion, authorization: Authorization, work: Work) -> ActionsRead:
    """List what an actor may do on a resource: what a user interface needs to know what to offer."""
    actions = await authorization.actions(asked.actor_or(work.actor), ResourceRef(asked.resource_type, asked.resource_id))
    return ActionsRead(actions=sorted(actions))


@routes.public(
    "POST", "/authz/simulate", because="Needs MEMBER_MANAGE on every resource it names, which the service checks.", problems=(404,)
)
async def simulate_grants(asked: Simulation, work: Work) -> SimulationRead:
    """Ask what would change if roles were given and taken. Nothing is written."""
    return await SimulationService(work).simulate(asked)


@routes.public("GET", "/authz/policy", because="The matrix is the same for everybody who has an identity.")
async def read_policy(authorization: Authorization) -> PolicyRead:
    """Read which role carries which action."""
    authorization.require_identity()
    return PolicyRead(
        matrix=[RolePolicy(role=role, level=role.level, actions=sorted(ROLE_ACTIONS[role])) for role in Role],
        resource_types=list(ResourceType),
        read_actions=dict(READ_ACTIONS),
        share_actions=dict(SHARE_ACTIONS),
    )


@routes.public("GET", "/me", because="Everybody may ask who the service takes him for.")
async def read_me(authorization: Authorization) -> Me:
    """Read who you are to the service, what your credential is narrowed to, and the organizations you hold roles on."""
    return await authorization.me()


def _next(path: str, query: WhoCanQuery, last: ActorRef) -> str:
    parameters = {**query.model_dump(mode="json", exclude={"cursor"}), "cursor": Actor(last.type, last.id).subject}
    return f'<{path}?{urlencode(parameters)}>; rel="next"'
