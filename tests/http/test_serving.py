"""How a request is read for a route: what is wrong with it told at once, and a route that asks for what nobody reads not made."""

from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Body, Depends, Form, Header, Query
from pydantic import BaseModel

from app.http.serving import WorkRoute
from tests.conftest import Caller
from tests.support.answers import pointers_of, read_problem

pytestmark = pytest.mark.anyio

UNKNOWN = "00000000-0000-4000-8000-000000000000"


class Filters(BaseModel):
    name: str | None = None


async def of_a_header(key: Annotated[str, Header()]) -> None:
    """Asks for a header."""


async def of_two_bodies(one: Annotated[str, Body()], other: Annotated[str, Body()]) -> None:
    """Asks for two members of a body."""


async def of_filters_and_more(filters: Annotated[Filters, Query()], size: int = 1) -> None:
    """Asks for a model of the query, and for more of it."""


async def of_work_for_later(tasks: BackgroundTasks) -> None:
    """Asks for tasks that run after the answer."""


async def of_a_form(name: Annotated[str, Form()]) -> None:
    """Asks for a field of a form."""


async def of_another_call(name: Annotated[str, Depends(of_a_form)]) -> None:
    """Depends on what nobody has put in order."""


@pytest.mark.parametrize("endpoint", [of_a_header, of_two_bodies, of_filters_and_more, of_work_for_later, of_a_form, of_another_call])
def test_a_route_that_asks_for_what_is_not_read_is_not_made(endpoint: Any) -> None:
    with pytest.raises((TypeError, AssertionError)):  # FastAPI itself refuses some
        WorkRoute("/", endpoint)


async def test_all_that_is_wrong_is_told_at_once(alice: Caller) -> None:
    answer = await alice.patch("/projects/nonsense", {"name": 5, "unknown": 1}, 422)
    assert sorted(pointers_of(answer)) == ["/name", "/unknown", "path.project_id"]
    answer = await alice.get("/authz/who-can?action=NONE&resource_type=ANY&limit=0", 422)
    assert sorted(pointers_of(answer)) == ["query.action", "query.limit", "query.resource_id", "query.resource_type"]


async def test_single_values_of_a_query_are_asked_for_by_name(alice: Caller) -> None:
    answer = await alice.get("/audit-events/by-resource?resource_type=NONE", 422)
    assert sorted(pointers_of(answer)) == ["query.resource_id", "query.resource_type"]


async def test_of_what_is_given_twice_the_last_counts(alice: Caller) -> None:
    organization = await alice.new_organization()
    for name in ("one", "two", "three"):
        await alice.new_project(organization["id"], name=name)
    assert len((await alice.get("/projects?size=1&size=2")).json()["items"]) == 2
    assert "query.size" in pointers_of(await alice.get("/projects?size=2&size=x", 422))


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 422, "invalid"),
        (b'{"name": ', 422, "invalid"),
        (b'{"name": "\xff"}', 400, "bad_request"),
        (b'{"a":' * 100_000, 400, "bad_request"),
    ],
)
async def test_a_body_that_is_no_json_is_the_callers_fault(alice: Caller, content: bytes, status: int, code: str) -> None:
    project = await alice.new_project((await alice.new_organization())["id"])
    headers = {"Content-Type": "application/json"}
    answer = await alice.request("PATCH", f"/projects/{project['id']}", content=content, headers=headers)
    assert read_problem(answer, status, code)


async def test_who_may_not_is_told_so_before_what_is_wrong_with_the_body(alice: Caller, bob: Caller) -> None:
    project = await alice.new_project((await alice.new_organization())["id"])
    await bob.patch(f"/projects/{project['id']}", {"name": 5}, 404)
    await alice.patch(f"/projects/{UNKNOWN}", {"name": 5}, 404)
