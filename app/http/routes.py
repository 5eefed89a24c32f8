"""How a resource declares its routes: an action and a target on each, or a reason why none is needed."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import wraps
from inspect import cleandoc, getdoc
from typing import Any, Final, TypeVar

from fastapi import params
from fastapi.routing import APIRoute

from app.http.guards import Allowance, Target, actions_named, guard
from app.http.problems import MALFORMED_IS_400, MEDIA_TYPE, Problem
from app.http.responses import ResourceResponse
from app.http.routing import UNLIMITED
from app.http.schemas import Resource
from app.http.serving import WorkRoute
from app.http.solving import Call, Solution
from app.http.targets import InPath

Endpoint = TypeVar("Endpoint", bound=Callable[..., Awaitable[Any]])

ACTIONS: Final = "x-actions"
OPEN_BECAUSE: Final = "x-open-because"

_PROBLEMS: Final = {
    400: "The request cannot be understood",
    401: "No valid identity, or an anonymous caller without the right",
    403: "The caller can see the resource but may not do this",
    404: "There is no such resource, or the caller may not see it",
    408: "The body did not come in time",
    409: "The state of the resource does not allow this",
    412: "`If-Match` names another revision",
    413: "The body is too large",
    415: "The body has the wrong content type",
    416: "The range cannot be satisfied",
    422: "A value cannot be accepted; `errors` says which",
    429: "Too many requests, or too many attempts to prove an identity have failed; `Retry-After` says how many seconds to wait",
    503: "The service is busy or something it depends on does not answer; try again",
    507: "The store has no room for the content",
}
_ALWAYS: Final = (400, 401, 422, 429, 503)


class UnguardedRouteError(RuntimeError):
    """A route names neither an action nor a reason to be open."""


class Routes:
    """The routes of one resource. Every one names an action and what it is asked on, or ``public`` and a reason.

    With ``malformed_is_400`` they answer 400 to whatever is not of their schema: for protocols that say so.
    """

    def __init__(self, tag: str, *, malformed_is_400: bool = False) -> None:
        self.tag = tag
        self._malformed_is_400 = malformed_is_400
        self._declared: list[Callable[[str], APIRoute]] = []

    def build(self, base_path: str) -> list[APIRoute]:
        """The routes below a base path."""
        return [make(base_path) for make in self._declared]

    def get(self, path: str, *, allow: Allowance, on: Target, **options: Any) -> Callable[[Endpoint], Endpoint]:
        """Read something."""
        return self._guarded("GET", path, allow, on, **options)

    def post(self, path: str, *, allow: Allowance, on: Target, **options: Any) -> Callable[[Endpoint], Endpoint]:
        """Create or do something."""
        return self._guarded("POST", path, allow, on, **{"status_code": 201, **options})

    def patch(self, path: str, *, allow: Allowance, on: Target, **options: Any) -> Callable[[Endpoint], Endpoint]:
        """Change something."""
        return self._guarded("PATCH", path, allow, on, **options)

    def delete(self, path: str, *, allow: Allowance, on: Target, **options: Any) -> Callable[[Endpoint], Endpoint]:
        """Remove something."""
        return self._guarded("DELETE", path, allow, on, **{"status_code": 204, **options})

    def public(self, method: str, path: str, *, because: str, **options: Any) -> Callable[[Endpoint], Endpoint]:
        """A route without a guard; the reason stands in the documentation."""
        return self._declare(method, path, None, {OPEN_BECAUSE: because}, **options)

    def _guarded(  # noqa: PLR0913 - the parts of a guarded route
        self, method: str, path: str, allow: Allowance, on: Target, *, is_secret: bool = False, problems: Sequence[int] = (), **options: Any
    ) -> Callable[[Endpoint], Endpoint]:
        guarding, extra = Solution(guard(allow, on, is_secret=is_secret)), {ACTIONS: actions_named(allow)}
        wanted_by = next((step.wanted_by for step in guarding.steps if isinstance(step, InPath)), None)
        return self._declare(method, path, guarding, extra, problems=(*problems, 404 if is_secret else 403), wanted_by=wanted_by, **options)

    def _declare(  # noqa: PLR0913 - the parts of a route
        self,
        method: str,
        path: str,
        guarding: Solution | None,
        extra: dict[str, Any],
        *,
        status_code: int = 200,
        problems: Sequence[int] = (),
        responses: dict[int | str, dict[str, Any]] | None = None,
        openapi_extra: dict[str, Any] | None = None,
        unlimited_body: bool = False,
        **options: Any,
    ) -> Callable[[Endpoint], Endpoint]:
        answers = {*_ALWAYS, *problems, *((404,) if "{" in path else ())}
        answers |= {408, 409, 413, 415} if method in {"POST", "PATCH"} else set()
        answers |= {412} if method in {"PATCH", "DELETE"} and "{" in path else set()
        answers -= {415} if self._malformed_is_400 else set()
        flags = {UNLIMITED: True} if unlimited_body else {}
        flags |= {MALFORMED_IS_400: True} if self._malformed_is_400 else {}
        documented = {status: _problem(status) for status in sorted(answers)} | (responses or {})

        def declare(endpoint: Endpoint) -> Endpoint:
            summary, _, description = cleandoc(getdoc(endpoint) or "").partition("\n\n")

            solution = Solution(endpoint, after=guarding)

            def make(base_path: str) -> APIRoute:
                return WorkRoute(
                    base_path + path,
                    _represented(solution.as_dependency(), status_code, base_path),
                    methods=[method],
                    status_code=status_code,
                    tags=[self.tag],
                    name=endpoint.__name__,
                    operation_id=endpoint.__name__,
                    summary=summary.rstrip("."),
                    description=description or summary,
                    dependencies=[params.Depends(guarding.as_dependency())] if guarding is not None else [],
                    responses=documented,
                    openapi_extra={**(openapi_extra or {}), **extra, **flags},
                    **options,
                )

            self._declared.append(make)
            return endpoint

        return declare


def require_guards(routes: Iterable[APIRoute]) -> None:
    """Refuse routes that could be reached by who may not.

    Raises:
        UnguardedRouteError: there is one.
    """
    for route in routes:
        declared = route.openapi_extra or {}
        is_guarded = bool(declared.get(ACTIONS)) and bool(route.dependencies)
        if not is_guarded and not declared.get(OPEN_BECAUSE, "").strip():
            raise UnguardedRouteError(f"{route.methods} {route.path}")


def _represented(endpoint: Call, status_code: int, base_path: str) -> Call:
    """Give single resources their entity tag and address; everything else is FastAPI's to serialise."""

    @wraps(endpoint)
    async def represented(*args: Any, **kwargs: Any) -> Any:
        result = await endpoint(*args, **kwargs)
        return ResourceResponse(result, status_code, base_path) if isinstance(result, Resource) else result

    return represented


def _problem(status: int) -> dict[str, Any]:
    return {"description": _PROBLEMS[status], "content": {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}}}
