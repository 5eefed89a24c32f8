"""What the reference let rot is told and costs nothing else: every row in this file was damaged on purpose."""

from typing import Any
from uuid import uuid4

import pytest

from app.settings import Settings
from tests.conftest import open_service
from tests.reference.conftest import Import, numbers
from tests.support.reference_world import HELLO, World, moment

MADE = {"created_at": moment(), "updated_at": moment(), "created_by_subject": "user:alice"}


def nested(depth: int) -> str:
    """JSON that hardly anybody can read."""
    return '{"a": ' * depth + "1" + "}" * depth


class Rot:
    """Damages a world, and says what the report should tell of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.expected: dict[tuple[str, str, str], str] = {}
        if not world.is_sqlite:  # SQLite checks none
            for table in ("projects", "api_calls", "executions", "api_keys", "documents"):
                world.sql(f"ALTER TABLE {table} DROP CONSTRAINT fk_{table}_organization")
            for table in ("api_calls", "executions", "documents"):
                world.sql(f"ALTER TABLE {table} DROP CONSTRAINT fk_{table}_project")

    def expect(self, what: str, table: str, row_id: str, words: str) -> None:
        self.expected[what, table, row_id] = words

    def set(self, table: str, row_id: str, **values: Any) -> None:
        for column, value in values.items():
            self.world.sql(f"UPDATE {table} SET {column} = ? WHERE id = ?", value, row_id)

    def project(self, words: str, what: str = "left out", **values: Any) -> str:
        wanted = {"organization_id": self.world.ids["acme"], "name": "p", "metadata_json": "{}", **MADE, **values}
        made = self.world.insert("projects", **wanted)
        self.expect(what, "projects", made, words)
        return made

    def call(self, words: str, what: str = "left out", **values: Any) -> str:
        places = {"organization_id": self.world.ids["acme"], "project_id": self.world.ids["website"]}
        wanted = {**places, "name": "c", "operation_key": "k", "status": "RECEIVED", "requested_at": moment(), **MADE, **values}
        made = self.world.insert("api_calls", **wanted)
        self.expect(what, "api_calls", made, words)
        return made

    def execution(self, words: str, what: str = "left out", **values: Any) -> str:
        places = {"organization_id": self.world.ids["acme"], "project_id": self.world.ids["website"]}
        actor = {"actor_type": "USER", "actor_id": "alice"}
        made = self.world.insert(
            "executions", **{**places, **actor, "operation": "o", "status": "RUNNING", "started_at": moment(), **values}
        )
        self.expect(what, "executions", made, words)
        return made

    def grant(self, words: str, **values: Any) -> None:
        on = {"resource_type": "PROJECT", "resource_id": self.world.ids["website"], "inherited": 0, "granted_at": moment()}
        made = self.world.insert("memberships", **{**on, "actor_type": "USER", "actor_id": "eve", "role": "PROJECT_VIEWER", **values})
        self.expect("left out", "memberships", made, words)

    def event(self, words: str, **values: Any) -> None:
        about = {"resource_type": "PROJECT", "resource_id": self.world.ids["website"], "organization_id": self.world.ids["acme"]}
        actor = {"actor_type": "USER", "actor_id": "alice", "occurred_at": moment()}
        made = self.world.insert("audit_events", **{**about, **actor, "action": "PROJECT_UPDATED", **values})
        if words:
            self.expect("left out", "audit_events", made, words)


@pytest.fixture
def rot(own_world: World) -> Rot:
    return Rot(own_world)


async def look(rot: Rot, run_import: Import) -> list[str]:
    """Import, and see that each damaged row is told of, with its reason, and no other."""
    report = await run_import(rot.world)
    told = {tuple(line.split(": ", 2)[:2]): line.split(": ", 2)[2] for line in report[10:-1] if not line.startswith("no owner")}
    assert told.keys() == {(what, f"{table} {row_id}") for what, table, row_id in rot.expected}
    for (what, table, row_id), words in rot.expected.items():
        assert words in told[what, f"{table} {row_id}"], told[what, f"{table} {row_id}"]
    left_out = [what for what, _, _ in rot.expected].count("left out")
    assert report[-1] == f"{left_out} rows left out, {len(rot.expected) - left_out} changed"
    for read, imported, there, out in numbers(report).values():
        assert read == imported + there + out
    return report


@pytest.fixture
def orphans(rot: Rot) -> Rot:
    gone, acme = str(uuid4()), rot.world.ids["acme"]
    project = rot.project("its organization is gone", organization_id=gone)
    rot.call("its organization is gone", organization_id=gone, project_id=project)
    rot.call(f"its project {project} is not in its organization", project_id=project)
    rot.execution("is not in its organization", project_id=str(uuid4()))
    rot.execution("now without one", "changed", parent_execution_id=str(uuid4()))
    rot.grant("what it is on is gone", resource_id=str(uuid4()))
    rot.grant("what it is on is gone", resource_type="ORGANIZATION", resource_id=gone)
    rot.grant("its role ORG_OWNER cannot be held", role="ORG_OWNER")
    rot.grant("the key is gone", actor_type="API_KEY", actor_id=str(uuid4()))
    rot.grant("holds the role it was made with", actor_type="API_KEY", actor_id=rot.world.ids["viewer"], role="PROJECT_OWNER")
    rot.grant("actor_id is longer than 256", actor_id="x" * 3000)
    rot.event("its organization is gone", organization_id=None)
    rot.event("action is none of", action="SOMETHING_ELSE")
    rot.event("", organization_id=gone)
    beta = rot.world.ids["beta"]
    other = rot.project("", organization_id=beta)
    rot.expected.popitem()
    rot.call("is not in its organization", organization_id=acme, project_id=other)
    return rot


async def test_orphans_are_left_out(orphans: Rot, run_import: Import, settings: Settings) -> None:
    await look(orphans, run_import)
    async with open_service(settings) as service:
        await service.as_("user:eve").get(f"/projects/{orphans.world.ids['website']}", 404)
        await service.as_("user:bob").get(f"/projects/{orphans.world.ids['website']}")


@pytest.fixture
def poisoned(rot: Rot) -> Rot:
    ids = rot.world.ids
    rot.set("organizations", ids["acme"], metadata_json=nested(300))
    rot.expect("changed", "organizations", ids["acme"], "metadata_json is nested deeper than 32: left empty")
    rot.call("request_payload_json is no JSON object", "changed", request_payload_json="[1]")
    rot.call("request_payload_json is not JSON", "changed", request_payload_json=nested(3000))
    rot.call("name has a control character: now 'a  b'", "changed", name="a\r\nb")
    rot.call("status is none of", status="LOST")
    rot.call("requested_at is no time", requested_at="yesterday")
    rot.call("", "changed", idempotency_key="twice")
    rot.expected.popitem()
    rot.call("idempotency_key is that of an earlier call", "changed", idempotency_key="twice", created_at="2099-01-01T00:00:00Z")
    rot.project("id is no id", id="not-an-id")
    rot.set("api_keys", ids["revoked"], role="ORG_OWNER")
    rot.expect("left out", "api_keys", ids["revoked"], "its role ORG_OWNER cannot be held on a scope of type PROJECT")
    rot.set("api_keys", ids["expired"], secret_hash="short")
    rot.expect("left out", "api_keys", ids["expired"], "secret_hash has another form")
    ((grant,),) = rot.world.sql("SELECT id FROM memberships WHERE actor_id = ?", ids["expired"])
    rot.expect("left out", "memberships", grant, "or was left out")
    if rot.world.is_sqlite:
        rot.call("metadata_json is not JSON", "changed", metadata_json='{"a":')
        rot.call("metadata_json is not valid Unicode", "changed", metadata_json='{"a": "\\ud800"}')
        rot.call("metadata_json has a number that is not finite", "changed", metadata_json='{"a": NaN}')
        rot.call("name is not valid Unicode", "changed", name=b"caf\xe9")
        rot.world.sql("UPDATE api_calls SET name = CAST(name AS TEXT)")
    return rot


async def test_poisoned_values_are_left_empty_and_the_rest_of_the_row_comes(poisoned: Rot, run_import: Import, settings: Settings) -> None:
    await look(poisoned, run_import)
    async with open_service(settings) as service:
        alice = service.as_("user:alice")
        assert (await alice.get(f"/organizations/{poisoned.world.ids['acme']}")).json()["metadata"] == {}
        calls = (await alice.get(f"/api-calls?project_id={poisoned.world.ids['website']}&size=500")).json()["items"]
        assert [call["idempotency_key"] for call in calls].count("twice") == 1


@pytest.fixture
def without_bytes(rot: Rot) -> Rot:
    """Of the letter the second version is lost, of the note all; and both are said to lie where they should not."""
    world, ids = rot.world, rot.world.ids
    ((second,),) = world.sql("SELECT id FROM document_versions WHERE document_id = ? AND version_number = 2", ids["letter"])
    ((note,),) = world.sql("SELECT id FROM document_versions WHERE document_id = ?", ids["note"])
    (world.documents / world.storage_key(second)).unlink()
    rot.expect("left out", "document_versions", second, "its bytes are missing")
    rot.expect("changed", "documents", ids["letter"], "its newest version is number 1: now its current one")
    (world.documents / world.storage_key(note)).write_bytes(b"evil")
    rot.expect("left out", "document_versions", note, "its bytes are not those that were uploaded")
    rot.expect("left out", "documents", ids["note"], "it has no version whose bytes can be had")
    return rot


async def test_no_document_comes_without_its_true_bytes(without_bytes: Rot, run_import: Import, settings: Settings) -> None:
    await look(without_bytes, run_import)
    ids = without_bytes.world.ids
    async with open_service(settings) as service:
        alice = service.as_("user:alice")
        await alice.get(f"/documents/{ids['note']}", 404)
        assert (await alice.get(f"/documents/{ids['letter']}/content")).content == HELLO
        versions = (await alice.get(f"/documents/{ids['letter']}/versions")).json()
        assert [version["version_name"] for version in versions] == ["v1"]
        await alice.upload(f"/documents/{ids['letter']}/versions", b"new", version_name="third")
        assert len(list((settings.storage.local.base_path / "objects").rglob("?" * 32))) == 2, "nothing is kept of what was not true"


@pytest.fixture
def leading_elsewhere(rot: Rot) -> Rot:
    """A key that names a file beside the storage, and one that reaches it by a link."""
    world, ids = rot.world, rot.world.ids
    secret = world.documents.parent / "secret.txt"
    secret.write_bytes(b"note")
    (world.documents / "link").symlink_to(secret)
    ((note,),) = world.sql("SELECT id FROM document_versions WHERE document_id = ?", ids["note"])
    rot.set("document_versions", note, storage_key="../secret.txt")
    ((first,),) = world.sql("SELECT id FROM document_versions WHERE document_id = ? AND version_number = 1", ids["letter"])
    rot.set("document_versions", first, storage_key="link")
    for version in (note, first):
        rot.expect("left out", "document_versions", version, "its bytes are said to lie outside the storage")
    rot.expect("left out", "documents", ids["note"], "it has no version whose bytes can be had")
    return rot


async def test_nothing_outside_the_storage_is_read(leading_elsewhere: Rot, run_import: Import) -> None:
    await look(leading_elsewhere, run_import)


@pytest.fixture
def misnamed(rot: Rot) -> Rot:
    ids = rot.world.ids
    rot.set("organizations", ids["beta"], slug="a/b ?")
    rot.expect("changed", "organizations", ids["beta"], "slug could not be part of a path")
    ((note,),) = rot.world.sql("SELECT id FROM document_versions WHERE document_id = ?", ids["note"])
    rot.set("document_versions", note, version_name="2026/11", media_type="text/日本")
    rot.expect("changed", "document_versions", note, "media_type is none: now application/octet-stream")
    return rot


async def test_what_no_path_can_name_gets_another_name(misnamed: Rot, run_import: Import, settings: Settings) -> None:
    await look(misnamed, run_import)
    note = f"/documents/{misnamed.world.ids['note']}"
    async with open_service(settings) as service:
        alice = service.as_("user:alice")
        name = (await alice.get(note)).json()["current_version_name"]
        assert name.startswith("version-1-")
        content = await alice.get(f"{note}/versions/{name}/content")
        assert (content.content, content.headers["content-type"]) == (b"note", "application/octet-stream")


async def test_an_organization_whose_slug_is_taken_is_left_out_whole(world: World, run_import: Import, settings: Settings) -> None:
    async with open_service(settings) as service:
        await service.as_("user:carol").new_organization(slug="acme")
    report = await run_import(world)
    assert f"left out: organizations {world.ids['acme']}: another organization has its slug" in report
    found = numbers(report)
    assert found["organizations"] == (2, 1, 0, 1)
    assert found["memberships"] == (7, 0, 0, 7)
    async with open_service(settings) as service:
        await service.as_("user:alice").get(f"/projects/{world.ids['website']}", 404)
