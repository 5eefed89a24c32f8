"""Lists of documents and versions: filters, orders and both ways of paging."""

from typing import Any

import pytest

from tests.conftest import Caller, Service

pytestmark = pytest.mark.anyio

NAMES = ["Alpha.txt", "100%.txt", "a_b.txt", "axb.txt", "ÄPFEL.txt", "zebra.txt", "alpha 2.txt"]


class Library:
    """Two organizations of alice's with documents."""

    def __init__(self, caller: Caller, projects: list[Any], documents: list[Any]) -> None:
        self.caller = caller
        self.projects = projects
        self.documents = documents

    async def names(self, path: str = "/documents", **params: Any) -> list[str]:
        page = (await self.caller.get(path, params=params)).json()
        return [document["name"] for document in page["items"]]


@pytest.fixture
async def library(alice: Caller) -> Library:
    projects = [await alice.new_project((await alice.new_organization())["id"]) for _ in range(2)]
    projects.append(await alice.new_project(projects[0]["organization_id"]))
    documents = []
    for number, name in enumerate(NAMES):
        kind = "image/png" if number % 2 else "text/plain"
        documents.append(await alice.new_document(projects[number % 3]["id"], b"x" * (10 - number), name=name, media_type=kind))
    return Library(alice, projects, documents)


async def test_filters_narrow_the_list(library: Library) -> None:
    first, second, third = library.projects
    assert await library.names(project_id=first["id"]) == [NAMES[0], NAMES[3], NAMES[6]]
    assert await library.names(organization_id=second["organization_id"]) == [NAMES[1], NAMES[4]]
    assert await library.names(organization_id=first["organization_id"], project_id=third["id"]) == [NAMES[2], NAMES[5]]
    assert await library.names(organization_id=second["organization_id"], project_id=third["id"]) == []
    assert await library.names(media_type="image/png") == NAMES[1::2]
    assert await library.names(media_type="image/") == []
    assert await library.names(media_type="image/png", name_contains="B.TXT") == ["axb.txt"]
    assert await library.names(name_contains=" ") == NAMES


SEARCHES = [
    ("ALPHA", ["Alpha.txt", "alpha 2.txt"]),
    ("%", ["100%.txt"]),
    ("_", ["a_b.txt"]),
    ("äpfel", ["ÄPFEL.txt"]),
    ("\\", []),
    ("'", []),
    ("nothing", []),
]


async def test_a_search_is_literal_and_knows_no_case(library: Library) -> None:
    for searched, found in SEARCHES:
        assert await library.names(name_contains=searched) == found, searched


async def test_every_order_goes_both_ways_and_pages_neither_repeat_nor_miss(library: Library) -> None:
    for sort in ("created_at", "updated_at", "size_bytes", "NAME"):
        await _check_order(library, sort)


async def _check_order(library: Library, sort: str) -> None:
    key = sort.lower()
    items = (await library.caller.get("/documents", params={"sort": sort})).json()["items"]
    assert len(items) == len(NAMES)
    if key == "name":
        assert {item["name"] for item in items} == set(NAMES)  # the order of letters is the database's
    else:
        assert [item[key] for item in items] == sorted(item[key] for item in items)
    down = (await library.caller.get("/documents", params={"sort": sort, "direction": "DESC"})).json()["items"]
    assert down == items[::-1]
    by_page, by_cursor, cursor = [], [], None
    for page in range(4):
        by_page += (await library.caller.get("/documents", params={"sort": sort, "page": page, "size": 2})).json()["items"]
    while True:
        params = {"sort": sort, "limit": 2, **({"cursor": cursor} if cursor else {})}
        answer = (await library.caller.get("/documents", params=params)).json()
        by_cursor += answer["items"]
        cursor = answer["next_cursor"]
        assert answer["has_more"] == (cursor is not None)
        if cursor is None:
            break
    assert by_page == by_cursor == items


async def test_a_page_tells_where_it_stands(library: Library) -> None:
    page = (await library.caller.get("/documents", params={"page": 1, "size": 3})).json()
    assert [document["name"] for document in page.pop("items")] == NAMES[3:6]
    assert page == {"total_items": 7, "page": 1, "size": 3, "total_pages": 3, "has_next": True, "has_previous": True}
    empty = (await library.caller.get("/documents", params={"name_contains": "nothing"})).json()
    assert empty == {"items": [], "total_items": 0, "page": 0, "size": 20, "total_pages": 0, "has_next": False, "has_previous": False}
    beyond = (await library.caller.get("/documents", params={"page": 99, "size": 500})).json()
    assert (beyond["items"], beyond["total_items"]) == ([], 7)


UNASKABLE: list[dict[str, Any]] = [
    {"size": 0},
    {"size": 501},
    {"page": -1},
    {"page": "1" * 30},
    {"sort": "storage_uri"},
    {"direction": "up"},
    {"limit": 0},
    {"limit": 5, "page": 1},
    {"cursor": "rubbish"},
    {"project_id": "no-id"},
    {"name_contains": "a\x00b"},
    {"name_contains": "n" * 256},
]


@pytest.mark.parametrize("path", ["/documents", "/document-versions"])
async def test_a_list_that_cannot_be_asked_for_is_refused(alice: Caller, path: str) -> None:
    for params in UNASKABLE:
        answer = await alice.get(path, 422, params=params)
        assert answer.json()["errors"][0]["pointer"].startswith("query."), params


async def test_a_cursor_belongs_to_its_list(library: Library) -> None:
    cursor = (await library.caller.get("/documents", params={"limit": 2})).json()["next_cursor"]
    for params in ({"sort": "name"}, {"direction": "desc"}, {"media_type": "image/png"}):
        await library.caller.get("/documents", 422, params={"cursor": cursor, **params})
    await library.caller.get("/document-versions", 422, params={"cursor": cursor})


async def test_the_list_of_a_project_is_an_array_oldest_first(library: Library) -> None:
    documents = (await library.caller.get(f"/projects/{library.projects[0]['id']}/documents")).json()
    assert [document["name"] for document in documents] == [NAMES[0], NAMES[3], NAMES[6]]
    assert documents[0] == library.documents[0]
    empty = await library.caller.new_project(library.projects[0]["organization_id"])
    assert (await library.caller.get(f"/projects/{empty['id']}/documents")).json() == []


async def test_lists_below_something_invisible_are_not_found(library: Library, mallory: Caller) -> None:
    await mallory.get(f"/projects/{library.projects[0]['id']}/documents", 404)
    await mallory.get(f"/documents/{library.documents[0]['id']}/versions", 404)
    for path in ("/documents", "/document-versions"):
        page = (await mallory.get(path)).json()
        assert (page["items"], page["total_items"]) == ([], 0)


async def test_a_reader_of_one_document_lists_it_and_its_versions_alone(service: Service, library: Library) -> None:
    reader, document = service.as_("user:reader"), library.documents[1]
    await library.caller.grant("DOCUMENT", document["id"], "user:reader", "DOCUMENT_VIEWER")
    page = (await reader.get("/documents", params={"size": 1})).json()
    assert (page["items"], page["total_items"], page["has_next"]) == ([document], 1, False)
    versions = (await reader.get("/document-versions")).json()
    assert [(version["document_id"], versions["total_items"]) for version in versions["items"]] == [(document["id"], 1)]


async def test_versions_are_listed_by_every_filter(library: Library) -> None:
    alice, document = library.caller, library.documents[0]
    for number in (2, 3):
        await alice.upload(f"/documents/{document['id']}/versions", file_name=f"upload {number}.bin", version_name=f"v{number}")

    async def found(**params: Any) -> list[tuple[str, str]]:
        page = (await alice.get("/document-versions", params={"size": 100, **params})).json()
        return [(version["name"], version["version_name"]) for version in page["items"]]

    of_document = [("Alpha.txt", "v1"), ("upload 2.bin", "v2"), ("upload 3.bin", "v3")]
    assert await found(document_id=document["id"]) == of_document
    assert await found(document_id=document["id"], direction="desc", sort="version_number") == of_document[::-1]
    assert await found(version_name="v2") == [of_document[1]]
    assert await found(name_contains="UPLOAD", version_name="v3") == [of_document[2]]
    assert await found(project_id=library.projects[1]["id"]) == [(NAMES[1], "v1"), (NAMES[4], "v1")]
    assert len(await found(organization_id=library.projects[0]["organization_id"])) == 7
    assert len(await found()) == len(NAMES) + 2
    numbers = [version["version_number"] for version in (await alice.get(f"/documents/{document['id']}/versions")).json()]
    assert numbers == [1, 2, 3]
