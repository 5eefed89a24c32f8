"""What tests of the HTTP surface ask again and again: of problems, of the audit trail, of the rows behind it."""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

import httpx
from sqlalchemy import text

from app.db.engine import Database
from app.jobs import write_denials
from tests.conftest import Caller, Service
from tests.support.database import behind

MEMBERS = {"type", "title", "status", "detail", "instance", "code", "request_id"}


def read_problem(response: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """The problem a response consists of, after checking that it is one and whole."""
    assert response.status_code == status, f"{response.status_code}: {response.text[:500]}"
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert set(problem) == MEMBERS | ({"errors"} if status == 422 else set())
    assert problem["status"] == status
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["instance"] == response.request.url.path
    assert problem["title"]
    assert problem["detail"]
    if code is not None:
        assert problem["code"] == code
    return problem


def pointers_of(response: httpx.Response) -> list[str]:
    """Which values a 422 complains about."""
    return [error["pointer"] for error in read_problem(response, 422, "invalid")["errors"]]


async def events_of(caller: Caller, **filters: Any) -> list[dict[str, Any]]:
    """The audit events the caller sees, oldest first."""
    events: list[dict[str, Any]] = (await caller.get("/audit-events", params={"size": 500, **filters})).json()["items"]
    return events


async def denied_events_of(service: Service, caller: Caller, **filters: Any) -> list[dict[str, Any]]:
    """The refused attempts the caller sees, after those still in memory were written."""
    await write_denials(service.runtime.context, all_of_them=True)
    return await events_of(caller, outcome="DENIED", **filters)


async def at_once(*requests: Coroutine[Any, Any, httpx.Response]) -> list[httpx.Response]:
    """Send requests concurrently."""
    return list(await asyncio.gather(*requests))


async def run_sql(service: Service, statement: str, rows: Mapping[str, Any] | list[dict[str, Any]] | None = None) -> list[Any]:
    """Run SQL beside the service, past its fences; returns the rows of a select."""
    async with behind(service.runtime.context.database) as connection:
        result = await connection.execute(text(statement), rows)
        return list(result.all()) if result.returns_rows else []


async def count_rows(service: Service, table: str) -> int:
    """How many rows a table has, over all tenants."""
    return int((await run_sql(service, f"SELECT count(*) FROM {table}"))[0][0])


def path_of(response: httpx.Response, name: str = "location") -> str:
    """An address in a header, below the base path."""
    return response.headers[name].removeprefix("/api")


def next_link_of(response: httpx.Response) -> str:
    """The address of ``Link: <...>; rel="next"``, below the base path."""
    address, _, relation = response.headers["link"].partition(">; ")
    assert relation == 'rel="next"'
    return str(address.removeprefix("</api"))


async def run_sql_at(url: str, statement: str) -> None:
    """Run SQL on a database by its URL, from outside of any service."""
    database = Database.from_url(url)
    engine = database.writer if database.is_sqlite else database.reader  # some statements of PostgreSQL refuse a transaction
    try:
        async with engine.begin() as connection:
            await connection.execute(text(statement))
    finally:
        await database.aclose()
