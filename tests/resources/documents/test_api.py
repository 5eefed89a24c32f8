"""Documents and versions over HTTP, in this process, on both databases."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from app.settings import Settings
from tests.conftest import Caller, Service
from tests.support.inventory import Inventory, list_files, take_inventory

pytestmark = pytest.mark.anyio


@pytest.fixture
async def project(alice: Caller) -> Any:
    organization = await alice.new_organization()
    return await alice.new_project(organization["id"])


@pytest.fixture
async def document(alice: Caller, project: Any) -> Any:
    return await alice.new_document(project["id"], b"first", name="My invoice", file_name="upload.bin")


async def inventory(settings: Settings, tmp_path: Path) -> Inventory:
    found = await take_inventory(settings.db_url.get_secret_value(), tmp_path)
    found.check()
    return found


def errors_of(response: Any) -> list[str]:
    return [error["pointer"] for error in response.json()["errors"]]


async def test_a_document_is_created_with_everything_about_its_first_version(
    alice: Caller, project: Any, settings: Settings, tmp_path: Path
) -> None:
    answer = await alice.upload(f"/projects/{project['id']}/documents", b"content", metadata='{"a": {"b": null}}')
    document = answer.json()
    assert document["name"] == "f.txt"
    assert (document["size_bytes"], document["checksum"]) == (7, hashlib.sha256(b"content").hexdigest())
    assert (document["current_version_number"], document["current_version_name"]) == (1, "v1")
    assert (document["media_type"], document["metadata"]) == ("text/plain", {"a": {"b": None}})
    assert document["created_by_subject"] == "user:alice"
    assert (await alice.get(f"/documents/{document['id']}")).json() == document
    version = (await alice.get(f"/documents/{document['id']}/versions/v1")).json()
    assert version["id"] == document["current_version_id"]
    for field in ("name", "media_type", "size_bytes", "checksum", "storage_uri", "metadata", "organization_id", "project_id"):
        assert version[field] == document[field]
    assert (await alice.get(f"/documents/{document['id']}/content")).content == b"content"
    found = await inventory(settings, tmp_path)
    assert not found.orphans
    assert [event.action for event in found.events][-1] == "DOCUMENT_CREATED"


async def test_eight_versions_at_once_get_numbers_without_gaps(alice: Caller, document: Any, settings: Settings, tmp_path: Path) -> None:
    path = f"/documents/{document['id']}/versions"
    answers = await asyncio.gather(*(alice.upload(path, b"content %d" % n, version_name=f"v{n}") for n in range(2, 10)))
    assert sorted(answer.json()["current_version_number"] for answer in answers) == list(range(2, 10))
    versions = (await alice.get(path)).json()
    assert [version["version_number"] for version in versions] == list(range(1, 10))
    assert (await alice.get(f"/documents/{document['id']}")).json()["current_version_id"] == versions[-1]["id"]
    for version in versions[1:]:
        content = (await alice.get(f"{path}/{version['version_name']}/content")).content
        assert content == b"content " + version["version_name"][1:].encode()
    assert not (await inventory(settings, tmp_path)).orphans


async def test_of_eight_versions_of_one_name_at_once_one_wins_and_seven_leave_nothing(
    alice: Caller, document: Any, settings: Settings, tmp_path: Path
) -> None:
    path = f"/documents/{document['id']}/versions"
    answers = await asyncio.gather(*(alice.upload(path, b"%d" % n, expect=None, version_name="same") for n in range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    found = await inventory(settings, tmp_path)
    assert (len(found.objects), len(found.versions), found.incoming) == (2, 2, [])


async def test_a_version_name_that_is_taken_is_a_conflict_and_leaves_no_bytes(
    alice: Caller, document: Any, settings: Settings, tmp_path: Path
) -> None:
    before = set(list_files(tmp_path))
    answer = await alice.upload(f"/documents/{document['id']}/versions", b"second", expect=409, version_name="v1")
    assert answer.json()["code"] == "version_name_taken"
    assert set(list_files(tmp_path)) == before
    assert (await alice.get(f"/documents/{document['id']}")).json() == document
    assert (await alice.upload(f"/documents/{document['id']}/versions", b"second", version_name="v2")).json()["current_version_number"] == 2
    await inventory(settings, tmp_path)


async def test_version_names_differ_by_case(alice: Caller, document: Any) -> None:
    await alice.upload(f"/documents/{document['id']}/versions", version_name="V1")
    assert (await alice.get(f"/documents/{document['id']}/versions/V1")).json()["version_number"] == 2


async def test_a_new_version_renames_the_document_only_when_asked(alice: Caller, document: Any) -> None:
    path = f"/documents/{document['id']}"
    kept = (await alice.upload(f"{path}/versions", b"2", file_name="other.bin", version_name="v2", part_type="image/png")).json()
    assert (kept["name"], kept["media_type"], kept["size_bytes"]) == ("My invoice", "image/png", 1)
    assert (await alice.get(f"{path}/versions/v2")).json()["name"] == "other.bin"
    renamed = (await alice.upload(f"{path}/versions", b"3", name="New name", version_name="v3")).json()
    assert renamed["name"] == "New name"
    assert [version["name"] for version in (await alice.get(f"{path}/versions")).json()] == ["My invoice", "other.bin", "New name"]


async def test_a_new_version_keeps_the_documents_metadata_and_has_its_own(alice: Caller, project: Any) -> None:
    document = await alice.new_document(project["id"], metadata='{"of": "document"}')
    path = f"/documents/{document['id']}"
    assert (await alice.upload(f"{path}/versions", version_name="v2", metadata='{"of": "v2"}')).json()["metadata"] == {"of": "document"}
    assert [version["metadata"] for version in (await alice.get(f"{path}/versions")).json()] == [{"of": "document"}, {"of": "v2"}]


async def test_a_version_that_could_not_be_fetched_by_its_name_is_refused(alice: Caller, document: Any, tmp_path: Path) -> None:
    before = set(list_files(tmp_path))
    for name in ("a/b", "/", ".", "..", "a\x7fb", "a\u2028b", "n" * 101, " ", ""):
        answer = await alice.upload(f"/documents/{document['id']}/versions", expect=422, version_name=name)
        assert errors_of(answer) == ["/version_name"], name
    assert set(list_files(tmp_path)) == before


async def test_a_version_is_fetched_by_whatever_name_it_was_given(alice: Caller, document: Any) -> None:
    path = f"/documents/{document['id']}/versions"
    for name in ("a b", "100%", "%2F", "a\\b", "v?x=1#y", "日本", "..a", "n" * 100, "+", "v1;x"):
        await alice.upload(path, name.encode(), version_name=name)
        assert (await alice.get(f"{path}/{quote(name, safe='')}")).json()["version_name"] == name
        assert (await alice.get(f"{path}/{quote(name, safe='')}/content")).content == name.encode()


async def test_a_version_that_is_not_there_is_not_found(alice: Caller, document: Any) -> None:
    for name in ("v2", "%00", "%0A", "%20", "v1%2Fx", "n" * 200):
        await alice.get(f"/documents/{document['id']}/versions/{name}", 404)


async def test_a_patch_renames_and_replaces_metadata_and_nothing_else(alice: Caller, document: Any) -> None:
    path = f"/documents/{document['id']}"
    renamed = (await alice.patch(path, {"name": "  Renamed  "})).json()
    assert renamed == {**document, "name": "Renamed", "updated_at": renamed["updated_at"]}
    described = (await alice.patch(path, {"metadata": {"a": {"b": None}}})).json()
    assert (described["name"], described["metadata"]) == ("Renamed", {"a": {"b": None}})
    assert (await alice.patch(path, {"metadata": {"c": 1}})).json()["metadata"] == {"c": 1}
    assert (await alice.get(f"{path}/versions/v1")).json()["name"] == "My invoice"


async def test_a_patch_without_a_change_changes_nothing(alice: Caller, document: Any) -> None:
    path = f"/documents/{document['id']}"
    before = await alice.get(path)
    for changes in ({}, {"name": None, "metadata": None}):
        answer = await alice.patch(path, changes)
        assert (answer.json(), answer.headers["etag"]) == (before.json(), before.headers["etag"])


BAD_CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "/name"),
    ({"name": "   "}, "/name"),
    ({"name": "a\nb"}, "/name"),
    ({"name": "n" * 256}, "/name"),
    ({"metadata": []}, "/metadata"),
    ({"metadata": {"a": "x" * 70_000}}, "/metadata"),
    ({"metadata": {"a": "\x00"}}, "/metadata"),
    ({"media_type": "text/html"}, "/media_type"),
    ({"checksum": "0" * 64}, "/checksum"),
    ({"storage_uri": "disk:../../etc/passwd"}, "/storage_uri"),
    ({"current_version_number": 7}, "/current_version_number"),
    ({"project_id": "0190a1b2-0000-7000-8000-000000000000"}, "/project_id"),
]


async def test_a_patch_with_a_bad_or_unknown_value_is_refused(alice: Caller, document: Any) -> None:
    for changes, pointer in BAD_CHANGES:
        assert errors_of(await alice.patch(f"/documents/{document['id']}", changes, 422)) == [pointer]
    assert (await alice.get(f"/documents/{document['id']}")).json() == document


@pytest.mark.parametrize(
    "text", ['{"metadata": {"a": "\\ud800"}}', '{"metadata": {"a": 1e400}}', '{"metadata": ' + '{"a":' * 300 + "1" + "}" * 301]
)
async def test_metadata_that_would_poison_every_list_never_comes_in(alice: Caller, document: Any, text: str) -> None:
    answer = await alice.request(
        "PATCH", f"/documents/{document['id']}", content=text.encode(), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in {400, 422}
    assert (await alice.get("/documents")).json()["items"] == [document]


async def test_a_change_of_another_revision_is_refused(alice: Caller, document: Any) -> None:
    path = f"/documents/{document['id']}"
    old = (await alice.get(path)).headers["etag"]
    new = (await alice.patch(path, {"name": "b"}, headers={"If-Match": old})).headers["etag"]
    assert new != old
    await alice.patch(path, {"name": "c"}, 412, headers={"If-Match": old})
    await alice.delete(path, 412, headers={"If-Match": old})
    await alice.get(path, 304, headers={"If-None-Match": new})
    await alice.upload(f"{path}/versions", version_name="v2")
    await alice.get(path, 200, headers={"If-None-Match": new})
    await alice.delete(path, 412, headers={"If-Match": new})


async def test_deleting_a_document_removes_its_versions_its_grants_and_its_bytes(
    service: Service, alice: Caller, project: Any, document: Any, settings: Settings, tmp_path: Path
) -> None:
    other = await alice.new_document(project["id"], b"stays")
    path = f"/documents/{document['id']}"
    await alice.upload(f"{path}/versions", b"second", version_name="v2")
    await alice.grant("DOCUMENT", document["id"], "user:reader", "DOCUMENT_VIEWER")
    reader = service.as_("user:reader")
    await reader.get(path)
    await alice.delete(path)
    for gone in ("", "/content", "/versions", "/versions/v1", "/versions/v1/content"):
        await alice.get(path + gone, 404)
    await alice.delete(path, 404)
    await reader.get(path, 404)
    assert (await reader.get("/documents")).json()["items"] == []
    assert set(list_files(tmp_path)) == {other["storage_uri"]}
    found = await inventory(settings, tmp_path)
    assert [event.action for event in found.events][-1] == "DOCUMENT_DELETED"
    assert "DOCUMENT" not in {grant.resource_type for grant in found.grants}


async def test_deletions_racing_uploads_leave_no_row_without_bytes(alice: Caller, project: Any, settings: Settings, tmp_path: Path) -> None:
    seen = set()
    for round_number in range(6):
        document = await alice.new_document(project["id"])
        path = f"/documents/{document['id']}"

        async def delete(path: str, turns: int) -> int:
            for _ in range(turns):
                await asyncio.sleep(0)
            return (await alice.delete(path, None)).status_code

        versions = [alice.upload(f"{path}/versions", b"late", expect=None, version_name=f"v{n}") for n in range(2, 6)]
        deleting = asyncio.create_task(delete(path, round_number * 15))
        answers = await asyncio.gather(*versions)
        assert await deleting == 204
        assert {answer.status_code for answer in answers} <= {201, 404}
        seen |= {answer.status_code for answer in answers}
        await alice.get(path, 404)
        found = await inventory(settings, tmp_path)
        assert (found.documents, found.versions, found.incoming) == ([], [], [])
    assert 404 in seen


async def test_a_project_deleted_under_uploads_leaves_no_row(alice: Caller, project: Any, settings: Settings, tmp_path: Path) -> None:
    uploads = [alice.upload(f"/projects/{project['id']}/documents", b"late", expect=None) for _ in range(8)]
    *answers, deleted = await asyncio.gather(*uploads, alice.delete(f"/projects/{project['id']}", None))
    assert deleted.status_code == 204
    assert {answer.status_code for answer in answers} <= {201, 404}
    found = await take_inventory(settings.db_url.get_secret_value(), tmp_path)
    assert (found.documents, found.versions) == ([], [])


async def test_the_answer_names_no_path_of_the_server(alice: Caller, document: Any, tmp_path: Path) -> None:
    for path in ("", "/versions", "/versions/v1"):
        text = (await alice.get(f"/documents/{document['id']}{path}")).text
        assert str(tmp_path) not in text
        assert "file:" not in text
    assert document["storage_uri"].startswith("disk:")
