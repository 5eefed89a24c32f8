"""Serves a route: begins its unit of work, reads what it asks for, lets its guard and then its handler run, and makes the answer.

Routes are declared to FastAPI, which describes them and says what each asks for. Between the application and the handler its own way of
serving them opens three stacks for what might have to be closed, and looks in each request for all that a route might ask for; that
costs twice what identity, authorization and statement cost together.
"""

from collections.abc import Callable, Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.db.wanted import Wanted
from app.http.dependencies import WORK, begin_work
from app.http.inputs import Fault, Inputs, read_json
from app.http.requests import request_info
from app.http.solving import SOLVED

WantedBy = Callable[[Mapping[str, str]], Wanted | None]


class WorkRoute(APIRoute):
    """A route whose requests are units of work: begun before the body is read, committed before the first byte of the answer leaves.

    ``wanted_by`` tells from the parameters in a path which row is wanted, where that can be told. What goes wrong is raised: the
    edge answers it.

    Raises:
        TypeError: the handler or its guard asks for what is not read here, or depends on something by itself.
    """

    def __init__(self, *args: Any, wanted_by: WantedBy | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        if any(guard.name is not None or guard.dependencies for guard in self.dependant.dependencies):
            raise TypeError(f"{self.path}: what a call depends on has to be put in order before, see Solution")
        self._wanted_by = wanted_by
        self._calls = [Inputs(dependant) for dependant in (*self.dependant.dependencies, self.dependant)]  # the guard's, the handler's
        self._shows_response = any(inputs.wants_response for inputs in self._calls)
        self.app = self.serve

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that is for this route."""
        request = Request(scope, receive, send)
        wanted = self._wanted_by(request.path_params) if self._wanted_by is not None else None
        info = request_info(scope)
        work = await begin_work(request, info, wanted)
        try:
            async with work:
                response = await self._answer(request)
        finally:
            # Else request and scope hold each other; and a connection, which its parser holds, keeps the scope of its last request.
            for made in (SOLVED, WORK):
                scope.pop(made, None)
            info.organization_id = str(work.organization_id) if work.organization_id is not None else None
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        """What the guard, if there is one, and then the handler make of a request.

        Raises:
            RequestValidationError: something of what either asks for is missing or not valid. Nothing has run then that needs it.
        """
        body = await read_json(request) if self.body_field is not None else None
        template = _template(self.status_code) if self._shows_response else None
        faults: list[Fault] = []
        result: Any = None
        for inputs in self._calls:
            values = inputs.read(request, body, template, faults)
            if not faults:
                result = await inputs.call(**values)
        if faults:
            raise RequestValidationError(faults)
        return result if isinstance(result, Response) else self._written(result, template)

    def _written(self, result: Any, template: Response | None) -> Response:
        if isinstance(result, BaseModel):  # a list is one of two shapes: it knows itself which
            content = result.__pydantic_serializer__.to_json(result, exclude_none=self.response_model_exclude_none)
        else:
            content = self.response_field.serialize_json(result) if self.response_field is not None else b""
        response = Response(content, self.status_code or 200, media_type="application/json" if content else None)
        if template is not None:
            response.status_code = template.status_code
            response.raw_headers.extend(template.raw_headers)
        return response


def _template(status_code: int | None) -> Response:
    template = Response(status_code=status_code or 200)
    del template.headers["content-length"]
    return template
