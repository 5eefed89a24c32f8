"""Routes of questions about authorization."""

from typing import Annotated, Final

from fastapi import Depends, Query

from app.authz.engine import Located
from app.core.actors import Actor
from app.core.permissions import Action
from app.core.resources import ResourceRef
from app.http.dependencies import Work
from app.http.routes import Routes
from app.http.schemas import ActorRef
from app.resources.authz.schemas import AuthorizationQuestion, EffectiveRole, Explanation, RolesQuery, Verdict, WhoCanQuery
from app.resources.authz.service import AuthorizationService

routes = Routes("authorization")

_ABOUT_ONESELF: Final = (
    "Everybody may ask about himself; asking about others needs MEMBER_MANAGE on the resource, which the service checks."
)


async def open_authorization(work: Work) -> AuthorizationService:
    """The answers for this request."""
    return AuthorizationService(work)


async def the_resource_in_question(query: Annotated[WhoCanQuery, Query()], work: Work) -> Located:
    """The resource that the query names."""
    return await work.locate_ref(ResourceRef(query.resource_type, query.resource_id))


Authorization = Annotated[AuthorizationService, Depends(open_authorization)]
TheResource = Annotated[Located, Depends(the_resource_in_question)]


@routes.public("POST", "/authz/check", because=_ABOUT_ONESELF, problems=(404,))
async def check_authorization(asked: AuthorizationQuestion, authorization: Authorization) -> Verdict:
    """Ask whether an actor may take an action on a resource."""
    actor, ref = Actor(asked.actor_type, asked.actor_id), ResourceRef(asked.resource_type, asked.resource_id)
    return Verdict(allowed=await authorization.check(actor, asked.action, ref))


@routes.public("POST", "/authz/explain", because=_ABOUT_ONESELF, problems=(404,))
async def explain_authorization(asked: AuthorizationQuestion, authorization: Authorization) -> Explanation:
    """Ask whether an actor may take an action on a resource, and why."""
    actor, ref = Actor(asked.actor_type, asked.actor_id), ResourceRef(asked.resource_type, asked.resource_id)
    return await authorization.explain(actor, asked.action, ref)


@routes.public("GET", "/authz/effective-roles", because=_ABOUT_ONESELF, problems=(404,))
async def list_effective_roles(query: Annotated[RolesQuery, Query()], authorization: Authorization) -> list[EffectiveRole]:
    """List the roles that count for an actor on a resource, nearest scope first."""
    actor, ref = Actor(query.actor_type, query.actor_id), ResourceRef(query.resource_type, query.resource_id)
    return await authorization.effective_roles(actor, ref)


@routes.get("/authz/who-can", allow=Action.MEMBER_MANAGE, on=the_resource_in_question, problems=(404,))
async def list_who_can(resource: TheResource, query: Annotated[WhoCanQuery, Query()], authorization: Authorization) -> list[ActorRef]:
    """List the actors who hold a role that carries the action on a resource."""
    return await authorization.who_can(resource, query.action)


@routes.get("/authz/who-can-explain", allow=Action.MEMBER_MANAGE, on=the_resource_in_question, problems=(404,))
async def explain_who_can(resource: TheResource, query: Annotated[WhoCanQuery, Query()], authorization: Authorization) -> list[Explanation]:
    """List the actors who hold a role that carries the action on a resource, and why."""
    return await authorization.who_can_explain(resource, query.action)
