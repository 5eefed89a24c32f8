"""Cursors that somebody has changed: of every list that is read with one, and of every column it is sorted by."""

import base64
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.conftest import Caller, Service
from tests.support.answers import next_link_of, pointers_of
from tests.support.keys import make_key
from tests.support.record import new_call, new_execution, new_place

pytestmark = pytest.mark.anyio

SIZED = {"size_bytes": 2**63, "version_number": 2**31}  # the first number that the column cannot hold
NO_TEXTS: tuple[Any, ...] = ("a\x00", "\ud800", "x" * 300, 5, 1.5, True, [], {})
NO_NUMBERS = (*NO_TEXTS, "", "x", "1.0", "1e3", "+1", "-0", " 1", "1_0", "0x1", "01", "\u0661", "nan", "9" * 19, "9" * 3000)
NO_TIMES = (
    *NO_TEXTS,
    *("", "not a time", "now", "infinity", "1763662316", "2024-01-01", "2024-01-01T00:00:00", "2024-01-01T00:00:00Z"),
    *("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "10000-01-01T00:00:00+00:00", "2024-13-01T00:00:00+00:00"),
)


def read_cursor(cursor: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))


def encode(content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


async def test_a_cursor_that_is_none_of_ours_is_refused(alice: Caller) -> None:
    organization = await alice.new_organization()
    for name in ("a", "b"):
        await alice.new_project(organization["id"], name=name)
    cursor = (await alice.get("/projects", params={"limit": 1})).json()["next_cursor"]
    bound, value, identifier = read_cursor(cursor)
    assert (await alice.get("/projects", params={"limit": 1, "cursor": encode([bound, value, identifier])})).status_code == 200
    bad = [
        *("", "x", "%%%", "é", "a" * 4097, cursor[1:], cursor + "x" * 8, base64.urlsafe_b64encode(b"[" * 3000).decode()),
        *map(encode, ([], {}, None, 5, [bound], [bound, value], [bound, value, identifier, 1], [bound, value, 7], [bound, value, "x"])),
        encode([None, value, identifier]),
    ]
    for tampered in bad:
        assert pointers_of(await alice.get("/projects", 422, params={"limit": 1, "cursor": tampered})) == ["query.cursor"], tampered


async def make_two_of_each(alice: Caller) -> dict[str, str]:
    """Two rows for every list; what stands in the paths of some."""
    organization, project = await new_place(alice)
    await new_place(alice)
    for slug in ("g1", "g2"):
        await alice.post(f"/organizations/{organization['id']}/groups", {"group_id": slug})
        await alice.grant("ORGANIZATION", organization["id"], f"group:{slug}", "ORG_MEMBER")
        await make_key(alice, "ORGANIZATION", organization["id"], "ORG_MEMBER")
        await alice.new_document(project["id"], slug.encode())
        call = await new_call(alice, project["id"], operation_key=slug)
        await alice.patch(f"/api-calls/{call['id']}", {"status": "COMPLETED"})
        execution = await new_execution(alice, project)
        for _ in range(2):
            await alice.post(f"/executions/{execution['id']}/events", {"name": "step"})
        await alice.post(f"/executions/{execution['id']}/complete", {}, 200)
    return {"organization_id": organization["id"], "execution_id": execution["id"]}


def sorted_lists(document: Any, places: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Every list that can be sorted, with each of its columns."""
    for path, item in document["paths"].items():
        parameters = {parameter["name"]: parameter["schema"] for parameter in item.get("get", {}).get("parameters", ())}
        if {"sort", "cursor"} <= parameters.keys():
            columns = document["components"]["schemas"][parameters["sort"]["$ref"].rsplit("/", 1)[1]]["enum"]
            yield from ((path.removeprefix("/api").format(**places), column) for column in columns)


def wrong_values(column: str) -> tuple[Any, ...]:
    if column in SIZED:
        first = SIZED[column]
        return *NO_NUMBERS, str(first), str(-first - 1), None
    return (*NO_TIMES, *([] if column in {"ended_at", "responded_at"} else [None])) if column.endswith("_at") else (*NO_TEXTS, None)


async def test_a_cursor_that_was_tampered_with_is_refused(service: Service, alice: Caller) -> None:
    places = await make_two_of_each(alice)
    lists = list(sorted_lists((await service.client.get("/openapi.json")).json(), places))
    assert len(lists) > 25
    for path, column in lists:
        query = {"limit": 1, "sort": column}
        cursor = (await alice.get(path, params=query)).json()["next_cursor"]
        bound, value, identifier = read_cursor(cursor)
        assert (await alice.get(path, params={**query, "cursor": encode([bound, value, identifier])})).json()["items"]
        for wrong in wrong_values(column):
            refused = await alice.get(path, 422, params={**query, "cursor": encode([bound, wrong, identifier])})
            assert pointers_of(refused) == ["query.cursor"], (path, column, wrong)
            assert refused.json()["errors"][0]["code"] == "invalid_cursor"


async def test_a_number_that_the_column_holds_is_a_place_in_the_list(alice: Caller) -> None:
    await make_two_of_each(alice)
    for path, column in (("/documents", "size_bytes"), ("/document-versions", "version_number")):
        query = {"limit": 1, "sort": column}
        bound, _, identifier = read_cursor((await alice.get(path, params=query)).json()["next_cursor"])
        for value, is_before_all in ((SIZED[column] - 1, False), (-SIZED[column], True), (0, True), (-1, True)):
            page = (await alice.get(path, params={**query, "cursor": encode([bound, str(value), identifier])})).json()
            assert bool(page["items"]) is is_before_all, (column, value)


async def test_the_cursor_of_an_array_is_refused_alike(alice: Caller) -> None:
    places = await make_two_of_each(alice)
    organization = {"resource_type": "ORGANIZATION", "resource_id": places["organization_id"]}
    for path, query in (("/memberships", organization), ("/api-keys", {"organization_id": places["organization_id"]})):
        link = next_link_of(await alice.get(path, params={**query, "limit": 1}))
        bound, _, identifier = read_cursor(parse_qs(urlsplit(link).query)["cursor"][0])
        for wrong in (*NO_TIMES, None):
            tampered = {**query, "limit": 1, "cursor": encode([bound, wrong, identifier])}
            assert pointers_of(await alice.get(path, 422, params=tampered)) == ["query.cursor"], (path, wrong)
