"""What a route depends on: put in order once, each part run once in a request, and asked of FastAPI as if nothing had been done."""

from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

import httpx
import pytest
from fastapi import Depends, FastAPI, Path, Query, Request, params
from pydantic import BaseModel

from app.http.solving import Solution

pytestmark = pytest.mark.anyio

ran: list[str] = []


class Body(BaseModel):
    name: str


async def base(request: Request) -> str:
    ran.append("base")
    return request.method


Base = Annotated[str, Depends(base)]


async def left(base: Base, number: Annotated[int, Path(description="A number.")]) -> str:
    ran.append("left")
    return f"{base} {number}"


async def right(base: Base, new: Body) -> str:
    ran.append("right")
    return f"{base} {new.name}"


async def check(left: Annotated[str, Depends(left)]) -> None:
    ran.append("check")
    if left.endswith("0"):
        raise PermissionError


async def endpoint(
    left: Annotated[str, Depends(left)], right: Annotated[str, Depends(right)], new: Body, size: Annotated[int, Query(ge=1)] = 7
) -> dict[str, Any]:
    """What it does."""
    ran.append("endpoint")
    return {"left": left, "right": right, "name": new.name, "size": size}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app, first = FastAPI(), Solution(check)
    solved = Solution(endpoint, after=first).as_dependency()
    app.post("/{number}", dependencies=[params.Depends(first.as_dependency())])(solved)
    ran.clear()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


async def test_each_part_runs_once_after_what_it_needs(client: httpx.AsyncClient) -> None:
    answer = await client.post("/4", json={"name": "x"})
    assert answer.json() == {"left": "POST 4", "right": "POST x", "name": "x", "size": 7}
    assert ran == ["base", "left", "check", "right", "endpoint"]


async def test_a_guard_speaks_before_the_body_is_judged(client: httpx.AsyncClient) -> None:
    with pytest.raises(PermissionError):
        await client.post("/0", json={"name": 5})
    assert ran == ["base", "left", "check"]


async def test_nothing_runs_that_needs_what_is_not_valid_and_every_fault_is_told(client: httpx.AsyncClient) -> None:
    answer = await client.post("/x", params={"size": 0}, json={})
    assert [error["loc"] for error in answer.json()["detail"]] == [["path", "number"], ["query", "size"], ["body", "name"]]
    assert ran == []


async def test_the_documentation_sees_what_is_asked_for(client: httpx.AsyncClient) -> None:
    operation = (await client.get("/openapi.json")).json()["paths"]["/{number}"]["post"]
    assert operation["description"] == "What it does."
    assert {parameter["name"]: parameter["in"] for parameter in operation["parameters"]} == {"number": "path", "size": "query"}
    assert operation["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Body"}


async def test_one_name_means_one_thing() -> None:
    async def of_text(number: str) -> str:
        return number

    async def of_both(number: UUID, text: Annotated[str, Depends(of_text)]) -> str:
        return f"{number} {text}"

    with pytest.raises(TypeError, match="number"):
        Solution(of_both)
