"""The application as it is built, for what can be read off it without a request."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from app.http.routing import RouteIndex
from app.main import create_app
from app.settings import Settings

ROOT = Path(__file__).parents[2]
OPS = {"/livez", "/readyz", "/version", "/.well-known/authzen-configuration"}
METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}


class Operation(NamedTuple):
    """One operation of the OpenAPI document."""

    method: str
    path: str
    body: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.body["operationId"])

    @property
    def is_of_the_api(self) -> bool:
        return self.path not in OPS


def make_app(folder: Path) -> FastAPI:
    """The service on a database that nobody opens."""
    return create_app(Settings.model_validate({"db_url": f"sqlite:///{folder}/never-opened.db"}))


def api_routes(app: FastAPI) -> list[APIRoute]:
    """Every route of the API; they hang in one index below the application's router."""
    return [route for index in app.router.routes if isinstance(index, RouteIndex) for route in index.routes]


def other_paths(app: FastAPI) -> set[str]:
    """What the application serves beside the API. ``app.routes`` alone would not show what was included."""
    routes = [context.original_route for context in iter_route_contexts(app.routes)]
    return {str(getattr(route, "path", route)) for route in routes if not isinstance(route, RouteIndex)}


def operations(app: FastAPI) -> Iterator[Operation]:
    for path, item in app.openapi()["paths"].items():
        for method, body in item.items():
            if method in METHODS:
                yield Operation(method, path, body)


def python_files(*folders: str) -> list[Path]:
    """The modules below these folders of the project, in order."""
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(ROOT).parts))
