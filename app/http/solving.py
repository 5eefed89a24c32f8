"""Puts what a route depends on in order, once, when the route is made.

FastAPI walks the tree of dependencies anew for each request, and again below whatever several of them ask for: that costs more than
what they do. Here a tree becomes one function that asks FastAPI for nothing but the parameters at its leaves.
"""

from collections.abc import Awaitable, Callable, Iterator
from functools import WRAPPER_ASSIGNMENTS, update_wrapper
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, Final, get_args, get_origin

from fastapi import Request, params

SOLVED: Final = "saasbase.solved"
"""Where the scope of a request has what its guard and its handler were given. The request is among it: whoever serves it removes that."""
_REQUEST: Final = Parameter("request", Parameter.KEYWORD_ONLY, annotation=Request)

Call = Callable[..., Awaitable[Any]]
Source = Call | str
"""Where an argument comes from: the answer of another call, or the parameter of that name."""


class Solution:
    """A call and all it depends on, in the order in which they run, each once in a request. What ``after`` has solved is not solved again.

    Raises:
        TypeError: two calls mean different things by a parameter of the same name.
    """

    def __init__(self, call: Call, after: "Solution | None" = None) -> None:
        self.steps: dict[Call, tuple[tuple[str, Source], ...]] = {}
        self.parameters = {_REQUEST.name: _REQUEST}
        self._call = call
        self._after = after
        self._add(call)

    def as_dependency(self) -> Call:
        """One function for FastAPI, called like the call and asking for the leaves."""

        async def solve(request: Request, **given: Any) -> Any:
            solved = request.scope.setdefault(SOLVED, {})
            solved.update(given, request=request)
            for call, sources in self.steps.items():
                solved[call] = await call(**{name: solved[source] for name, source in sources})
            return solved[self._call]

        update_wrapper(solve, self._call, assigned=set(WRAPPER_ASSIGNMENTS) - {"__annotations__"}, updated=())
        del solve.__wrapped__  # type: ignore[attr-defined] # it would be asked for its parameters
        solve.__signature__ = Signature(  # type: ignore[attr-defined]
            list(self.parameters.values()), return_annotation=signature(self._call, eval_str=True).return_annotation
        )
        return solve

    def _add(self, call: Call) -> None:
        if call in self.steps or (self._after is not None and call in self._after.steps):
            return
        sources = tuple(self._sources_of(call))
        self.steps[call] = sources

    def _sources_of(self, call: Call) -> Iterator[tuple[str, Source]]:
        for parameter in signature(call, eval_str=True).parameters.values():
            dependency = _dependency_of(parameter)
            if dependency is not None:
                self._add(dependency)
                yield parameter.name, dependency
            else:
                self._ask_for(parameter.replace(kind=Parameter.KEYWORD_ONLY))
                yield parameter.name, parameter.name

    def _ask_for(self, parameter: Parameter) -> None:
        given = self._after.parameters.get(parameter.name) if self._after is not None else None
        known = given or self.parameters.setdefault(parameter.name, parameter)
        if (known.annotation, known.default) != (parameter.annotation, parameter.default):
            raise TypeError(f"{parameter.name} is {known.annotation} and {parameter.annotation}")


def _dependency_of(parameter: Parameter) -> Call | None:
    if get_origin(parameter.annotation) is not Annotated:
        return None
    return next((part.dependency for part in get_args(parameter.annotation)[1:] if isinstance(part, params.Depends)), None)
