"""Calls and executions as a client puts them on record, and lists read page by page."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from tests.conftest import Caller


async def new_place(caller: Caller) -> tuple[Any, Any]:
    """An organization of the caller and a project in it."""
    organization = await caller.new_organization()
    return organization, await caller.new_project(organization["id"])


async def new_call(caller: Caller, project_id: str, **body: Any) -> Any:
    """An API call of a project."""
    return (await caller.post(f"/projects/{project_id}/api-calls", {"name": "call", "operation_key": "op", **body})).json()


async def new_execution(caller: Caller, project: Mapping[str, Any], **body: Any) -> Any:
    """An execution in a project."""
    place = {"organization_id": project["organization_id"], "project_id": project["id"]}
    return (await caller.post("/executions", {**place, "operation": "op", **body})).json()


async def numbered_pages(caller: Caller, path: str, size: int, **params: Any) -> list[str]:
    """The ids of a list, read in numbered pages to its end."""
    ids: list[str] = []
    number, has_next = 0, True
    while has_next:
        page = (await caller.get(path, params={**params, "page": number, "size": size})).json()
        ids += [item["id"] for item in page["items"]]
        number, has_next = number + 1, page["has_next"]
    return ids


async def keyset_pages(caller: Caller, path: str, limit: int, **params: Any) -> list[str]:
    """The ids of a list, read in keyset pages to its end."""
    ids: list[str] = []
    place: dict[str, str] = {}
    while True:
        page = (await caller.get(path, params={**params, **place, "limit": limit})).json()
        ids += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            return ids
        assert len(page["items"]) == limit
        place = {"cursor": page["next_cursor"]}


def ids_sorted(items: list[Any], column: str, *, descending: bool) -> list[str]:
    """The ids in the promised order: by the column, then by id, both in the asked direction; what has no value comes last."""

    def place(item: Any) -> tuple[Any, UUID]:
        value = item[column]
        return (datetime.fromisoformat(value) if column.endswith("_at") else value), UUID(item["id"])

    valued = sorted((item for item in items if item[column] is not None), key=place, reverse=descending)
    empty = sorted((item for item in items if item[column] is None), key=lambda item: UUID(item["id"]), reverse=descending)
    return [item["id"] for item in [*valued, *empty]]
