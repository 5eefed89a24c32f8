"""The OpenAPI document: FastAPI's, plus who may call what and how a caller shows who it is."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from app.http.described import describe_parameters
from app.http.examples import Examples
from app.http.inputs import is_model
from app.http.problems import MALFORMED_IS_400, Problem
from app.http.routes import ACTIONS, OPEN_BECAUSE
from app.http.routing import UNLIMITED

DESCRIPTION: Final = """The multi-tenant back end of a SaaS product as one service: organizations, projects, documents with named
versions, roles and an audit trail.

**Who is calling.** Behind a trusted proxy (and on your own machine with `make run`) the header shown under *Authorize* names the
actor: `user:alice`, `service:billing`, `agent:tagger`. A bearer credential is an API key, or a token (JWT) of an issuer this service
was told to believe. Every operation names the action it needs; roles on an organization reach
into everything below it.

**Limits.** Where requests are limited, every answer says in `RateLimit` and `RateLimit-Policy` what is left; one too many is answered 429
with `Retry-After`.

**Errors** are `application/problem+json` with a stable `code`. What you may not see answers like what does not exist: 404.
"""
_METHODS: Final = frozenset({"get", "post", "put", "patch", "delete"})


def make_openapi(app: FastAPI, routes: list[APIRoute], actor_header: str) -> dict[str, Any]:
    """The document, made once."""
    for route in routes:
        _describe_query(route)
    document = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=[*routes, *app.routes])
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs"))
    schemas[Problem.__name__] = problem
    components["securitySchemes"] = {
        "actor": {
            "type": "apiKey",
            "in": "header",
            "name": actor_header,
            "description": "Names the actor, as `type:id`: `user:alice`. Believed only from trusted proxies.",
        },
        "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a token (JWT) of a configured issuer."},
    }
    examples = Examples(components)
    for path in document["paths"].values():
        for method, operation in path.items():
            if method in _METHODS:
                _finish(operation)
                examples.add_to(operation)
    return document


def _describe_query(route: APIRoute) -> None:
    for dependant in (route.dependant, *route.dependant.dependencies):
        for field in filter(is_model, dependant.query_params):
            describe_parameters(field.field_info.annotation)


def _finish(operation: dict[str, Any]) -> None:
    actions = operation.get(ACTIONS)
    for flag in (UNLIMITED, MALFORMED_IS_400):
        operation.pop(flag, None)
    for parameter in operation.get("parameters", ()):
        _drop_null(parameter["schema"])
    if actions is None and OPEN_BECAUSE not in operation:
        return
    operation["security"] = [{"actor": []}, {"bearer": []}]
    needs = f"Needs {' or '.join(f'`{action}`' for action in actions)}." if actions else operation[OPEN_BECAUSE]
    operation["description"] = f"{operation.get('description', '')}\n\n{needs}".strip()


def _drop_null(schema: dict[str, Any]) -> None:
    """A parameter is absent or has a value; only FastAPI's way of writing optional ones calls that null."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        del schema["anyOf"]
        schema.update(kinds[0])
