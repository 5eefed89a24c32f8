"""What a call asks of a request, read with FastAPI's fields.

FastAPI finds out what a call asks for when its route is made. How it reads that from a request it finds out anew for each one: for a list
with thirteen parameters that costs as much as the list's statement. Here what is the same for all requests is found out once.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from fastapi import params
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from app.core.errors import BadRequestError

NOTHING: Final = object()
"""Stands for a value that was not sent."""

Fault = dict[str, Any]

# What FastAPI could give a call, and nobody gives it here.
_UNREAD: Final = (
    *("header_params", "cookie_params", "http_connection_param_name"),
    *("websocket_param_name", "background_tasks_param_name", "security_scopes_param_name"),
)


class Inputs:
    """The inputs of a call: parameters of the path and the query, a JSON body, the request, the response to be.

    Raises:
        TypeError: the call asks for something else, or the parameters of its query are neither one model nor single values.
    """

    def __init__(self, dependant: Dependant) -> None:
        if any(getattr(dependant, name) for name in _UNREAD) or len(dependant.body_params) > 1:
            raise TypeError(f"{dependant.call} asks for two bodies, or for one of {', '.join(_UNREAD)}")
        if any(isinstance(field.field_info, params.Form) for field in dependant.body_params):
            raise TypeError(f"{dependant.call} asks for a form")
        models = [field for field in dependant.query_params if is_model(field)]
        if models and len(dependant.query_params) > 1:
            raise TypeError(f"{dependant.call} asks for a model of its query, and for more of it")
        self._path = [(field, ("path", field.alias)) for field in dependant.path_params]
        self._query = [(field, ("query", field.alias)) for field in dependant.query_params if not models]
        self._query_model = models[0] if models else None
        self._body = dependant.body_params[0] if dependant.body_params else None
        self._request_name = dependant.request_param_name
        self._response_name = dependant.response_param_name
        self.call: Callable[..., Awaitable[Any]] = cast("Any", dependant.call)

    @property
    def wants_response(self) -> bool:
        """Whether the call adds headers to an answer that is still to be made."""
        return self._response_name is not None

    def read(self, request: Request, body: Any, response: Response | None, faults: list[Fault]) -> dict[str, Any]:
        """The values by their names; what is wrong with the request is added to ``faults``, in pydantic's words."""
        values: dict[str, Any] = {}
        for field, place in self._path:
            _take(values, field, request.path_params[field.alias], place, faults)
        if self._query_model is not None:
            _take(values, self._query_model, dict(request.query_params.multi_items()), ("query",), faults)
        for field, place in self._query:
            _take(values, field, request.query_params.get(field.alias, NOTHING), place, faults)
        if self._body is not None:
            _take(values, self._body, body, ("body",), faults)
        if self._request_name is not None:
            values[self._request_name] = request
        if self._response_name is not None:
            values[self._response_name] = response
        return values


async def read_json(request: Request) -> Any:
    """The body, whose content type says that it is JSON; ``NOTHING`` when there is none.

    Raises:
        RequestValidationError: it is no JSON.
        BadRequestError: it is no text, or nested beyond all measure.
    """
    content = await request.body()
    if not content:
        return NOTHING
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        fault = {"type": "json_invalid", "loc": ("body", error.pos), "msg": "JSON decode error", "input": {}, "ctx": {"error": error.msg}}
        raise RequestValidationError([fault]) from None
    except (ValueError, RecursionError):
        raise BadRequestError("There was an error parsing the body") from None


def is_model(field: Any) -> bool:
    """Whether a field of FastAPI's is a model, of whose fields each is a parameter of the query."""
    annotation = field.field_info.annotation
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _take(values: dict[str, Any], field: Any, given: Any, place: tuple[str, ...], faults: list[Fault]) -> None:
    if given is NOTHING:
        if field.field_info.is_required():
            faults.append({"type": "missing", "loc": place, "msg": "Field required", "input": None})
        else:
            values[field.name] = field.get_default()
        return
    value, found = field.validate(given, loc=place)
    if found:
        for fault in found:
            # An error of ours, which knows the frames that hold the fault: they and the body would stay until the collector comes.
            fault.pop("ctx", None)
        faults.extend(found)
    else:
        values[field.name] = value
