"""Routes of the AuthZEN Authorization API 1.0."""

from typing import Annotated, Final

from fastapi import Depends

from app.http.dependencies import Work
from app.http.routes import Routes
from app.resources.authz.authzen.schemas import (
    ActionSearch,
    ActionsFound,
    Decision,
    Decisions,
    Evaluation,
    Evaluations,
    ResourceSearch,
    ResourcesFound,
    SubjectSearch,
    SubjectsFound,
)
from app.resources.authz.authzen.service import AccessService

routes = Routes("authzen", malformed_is_400=True)

_ABOUT_ONESELF: Final = (
    "Everybody may ask about himself; asking about others needs MEMBER_MANAGE on the resource, which the service checks."
)


async def open_access(work: Work) -> AccessService:
    """The answers for this request."""
    return AccessService(work)


Access = Annotated[AccessService, Depends(open_access)]


@routes.public("POST", "/access/v1/evaluation", because=_ABOUT_ONESELF, response_model_exclude_none=True)
async def evaluate_access(asked: Evaluation, access: Access) -> Decision:
    """Decide whether a subject may take an action on a resource.

    The AuthZEN form of `/authz/check`: the same decision. Where you may not ask about another, it is denied as where nothing is,
    with `context.error.status` 404; a type, name or id that nothing here can have is denied with 400 there.
    """
    return await access.evaluate(asked)


@routes.public("POST", "/access/v1/evaluations", because=_ABOUT_ONESELF, response_model_exclude_none=True)
async def evaluate_accesses(asked: Evaluations, access: Access) -> Decisions | Decision:
    """Decide up to 200 such questions at once.

    The decisions come in the order of the questions. Without `evaluations` it is one question, answered like `evaluation`.
    """
    return await access.evaluate_all(asked)


@routes.public(
    "POST",
    "/access/v1/search/subject",
    because="Needs MEMBER_MANAGE on the resource, which the service checks.",
    response_model_exclude_none=True,
)
async def search_subjects(asked: SubjectSearch, access: Access) -> SubjectsFound:
    """List the subjects of a type who may take an action on a resource, with the members of groups.

    On a resource that is absent, or whose members you do not manage, nobody is found.
    """
    return await access.search_subjects(asked)


@routes.public("POST", "/access/v1/search/resource", because=_ABOUT_ONESELF, response_model_exclude_none=True)
async def search_resources(asked: ResourceSearch, access: Access) -> ResourcesFound:
    """List the resources of a type on which a subject may take an action.

    About another subject the list holds the resources whose members you manage.
    """
    return await access.search_resources(asked)


@routes.public("POST", "/access/v1/search/action", because=_ABOUT_ONESELF, response_model_exclude_none=True)
async def search_actions(asked: ActionSearch, access: Access) -> ActionsFound:
    """List the actions a subject may take on a resource, by their full names."""
    return await access.search_actions(asked)
