"""May the caller? Asked before the handler runs, of the same target the handler gets."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final

from fastapi import Depends, Request

from app.authz.engine import Located
from app.core.errors import PreconditionFailedError
from app.core.permissions import Action
from app.core.resources import ResourceType
from app.http.conditional import etag_of, matches_strongly
from app.http.dependencies import Work
from app.http.solving import Call
from app.http.targets import Everything

# One action; or one for each type the target can have; several in a tuple: any of them is enough.
Allowance = Action | tuple[Action, ...] | Mapping[ResourceType, Action | tuple[Action, ...]]
Target = Callable[..., Awaitable[Located]] | Everything

_CONDITIONAL: Final = frozenset({"PATCH", "PUT", "DELETE"})


def guard(allow: Allowance, on: Target, *, is_secret: bool = False) -> Call:
    """What ends the request with 401, 404 or 403 unless the caller may, and with 412 if ``If-Match`` does not match.

    What is secret is answered 404 to whoever may not, even if he may see the target.
    """
    if isinstance(on, Everything):
        if not isinstance(allow, Action):
            raise TypeError("a list over everything needs exactly one action")
        action = allow

        async def admit_everywhere(work: Work) -> None:
            await work.admit_everywhere(action)

        return admit_everywhere

    async def admit(request: Request, work: Work, target: Annotated[Located, Depends(on)]) -> None:
        await work.admit(target, *actions_for(allow, target.ref.type), is_secret=is_secret)
        if request.method in _CONDITIONAL and (wanted := request.headers.getlist("if-match")):
            if not matches_strongly(",".join(wanted), etag_of(target.row)):
                raise PreconditionFailedError
            work.expected_revision = target.row.revision

    return admit


def actions_for(allow: Allowance, resource_type: ResourceType) -> tuple[Action, ...]:
    """The actions of which one is needed on a target of that type."""
    needed = allow[resource_type] if isinstance(allow, Mapping) else allow
    return needed if isinstance(needed, tuple) else (needed,)


def actions_named(allow: Allowance) -> list[str]:
    """Every action an allowance speaks of, for the documentation."""
    types: list[Any] = list(allow) if isinstance(allow, Mapping) else [ResourceType.ORGANIZATION]
    return sorted({action.value for resource_type in types for action in actions_for(allow, resource_type)})
