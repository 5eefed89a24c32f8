"""What stands in a reference that was used for a while: made through its own HTTP, where that works, and then left to rot by SQL."""

import asyncio
import hashlib
import json
import sqlite3
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx

from tests.support.reference import Reference

ACTOR = {"X-SaaSBase-Actor": "user:alice"}
HELLO, HELLO_AGAIN = b"Hello from Acme\n" * 100, bytes(range(256)) * 9000


@dataclass(slots=True)
class World:
    """The ids of what was made, by name; tokens; and the reference's own answers, to compare ours with."""

    database_url: str
    documents: Path
    ids: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    event_count: int = 0

    @property
    def is_sqlite(self) -> bool:
        return self.database_url.startswith("jdbc:sqlite")

    def sql(self, statement: str, *values: Any) -> list[Any]:
        """Run a statement behind the reference's back; ``?`` for each value."""
        if self.is_sqlite:
            with sqlite3.connect(self.database_url.removeprefix("jdbc:sqlite:")) as connection:
                return connection.execute(statement, values).fetchall()
        return asyncio.run(self._postgres_sql(statement, values))

    async def _postgres_sql(self, statement: str, values: tuple[Any, ...]) -> list[Any]:
        for number in range(1, len(values) + 1):
            statement = statement.replace("?", f"${number}", 1)
        connection = await asyncpg.connect(self.database_url)
        try:
            return list(await connection.fetch(statement, *values))
        finally:
            await connection.close()

    def insert(self, table: str, **values: Any) -> str:
        """Write a row; returns its id."""
        values = {"id": str(uuid4()), **values}
        marks = ", ".join("?" for _ in values)
        self.sql(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", *values.values())
        return str(values["id"])

    def storage_key(self, version_id: str) -> str:
        return str(self.sql("SELECT storage_key FROM document_versions WHERE id = ?", version_id)[0][0])


class Maker:
    """Fills a reference as its clients would."""

    def __init__(self, reference: Reference) -> None:
        self._api = f"{reference.url}/api"
        self.world = World(reference.database_url, reference.documents)

    def post(self, path: str, body: Any, name: str | None = None, expect: int = 201) -> Any:
        answer = httpx.post(self._api + path, content=json.dumps(body), headers={**ACTOR, "Content-Type": "application/json"}, timeout=30)
        assert answer.status_code == expect, answer.text
        made: Any = answer.json() if expect != 500 else None
        if name is not None:
            self.world.ids[name] = made["id"]
        return made

    def patch(self, path: str, body: Any) -> Any:
        return httpx.patch(self._api + path, json=body, headers=ACTOR, timeout=30).raise_for_status().json()

    def delete(self, path: str) -> None:
        httpx.delete(self._api + path, headers=ACTOR, timeout=30).raise_for_status()

    def get(self, path: str) -> Any:
        return httpx.get(self._api + path, headers=ACTOR, timeout=30).raise_for_status().json()

    def grant(self, kind: str, resource_id: str, actor: str, role: str) -> None:
        actor_type, _, actor_id = actor.partition(":")
        grant = {"resource_type": kind, "resource_id": resource_id, "actor_type": actor_type, "actor_id": actor_id, "role": role}
        self.post("/memberships", grant)

    def key(self, name: str, kind: str, scope_id: str, role: str, **body: Any) -> None:
        made = self.post("/api-keys", {"name": name, "scope_type": kind, "scope_id": scope_id, "role": role, **body})
        self.world.ids[name], self.world.tokens[name] = made["api_key"]["id"], made["token"]

    def upload(self, name: str, project_id: str, content: bytes, file_name: str = "hello.txt") -> None:
        """A new document; by SQL on PostgreSQL, where the reference cannot take one."""
        if self.world.is_sqlite:
            files = {"file": (file_name, content, "text/plain")}
            answer = httpx.post(f"{self._api}/projects/{project_id}/documents", files=files, headers=ACTOR, timeout=30)
            self.world.ids[name] = answer.raise_for_status().json()["id"]
            return
        ((organization_id,),) = self.world.sql("SELECT organization_id FROM projects WHERE id = ?", project_id)
        stored = {**self._store(content), "organization_id": organization_id, "project_id": project_id, "name": file_name}
        made = {"created_at": moment(), "created_by_subject": "user:alice", "metadata_json": "{}"}
        current: dict[str, Any] = {"current_version_id": str(uuid4()), "current_version_number": 1, "current_version_name": "v1"}
        document_id = self.world.insert("documents", **stored, **current, **made, updated_at=moment())
        self._insert_version(document_id, {**stored, **made}, current["current_version_id"], 1, "v1")
        self.world.ids[name] = document_id

    def add_version(self, document: str, version_name: str, content: bytes) -> None:
        document_id = self.world.ids[document]
        if self.world.is_sqlite:
            files = {"file": ("hello.txt", content, "application/pdf")}
            form = {"version_name": version_name}
            httpx.post(
                f"{self._api}/documents/{document_id}/versions", files=files, data=form, headers=ACTOR, timeout=30
            ).raise_for_status()
            return
        columns = "organization_id, project_id, name, created_at, created_by_subject, metadata_json, current_version_number"
        ((*before, number),) = self.world.sql(f"SELECT {columns} FROM documents WHERE id = ?", document_id)
        stored = {**self._store(content), "media_type": "application/pdf"}
        values = dict(zip(columns.split(", "), before, strict=False)) | stored
        version_id = self._insert_version(document_id, values, str(uuid4()), number + 1, version_name)
        current = {"current_version_id": version_id, "current_version_number": number + 1, "current_version_name": version_name}
        changed = {**current, **stored}
        columns = ", ".join(f"{column} = ?" for column in changed)
        self.world.sql(f"UPDATE documents SET {columns} WHERE id = ?", *changed.values(), document_id)

    def _store(self, content: bytes) -> dict[str, Any]:
        key = f"{uuid4()}.txt"
        path = self.world.documents / key
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        return {
            "media_type": "text/plain",
            "size_bytes": len(content),
            "checksum": digest,
            "storage_key": key,
            "storage_uri": path.as_uri(),
        }

    def _insert_version(self, document_id: str, values: dict[str, Any], version_id: str, number: int, name: str) -> str:
        named = {"document_id": document_id, "version_number": number, "version_name": name}
        return self.world.insert("document_versions", **{**values, "id": version_id}, **named)


def moment() -> str:
    """Now, as the reference writes it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def make_sound(reference: Reference) -> World:
    """Two organizations in which nothing is wrong but that one has no owner."""
    make = Maker(reference)
    ids = make.world.ids
    make.post("/organizations", {"slug": "acme", "name": "Acme", "metadata": {"plan": "pro", "city": "München"}}, "acme")
    make.patch(f"/organizations/{ids['acme']}", {"name": "Acme Ltd"})
    make.post("/organizations", {"slug": "beta"}, "beta")
    make.post("/projects", {"organization_id": ids["acme"], "name": "Website"}, "website")
    make.post("/projects", {"organization_id": ids["acme"], "name": "Website"}, "twin")
    make.upload("letter", ids["website"], HELLO)
    make.add_version("letter", "second", HELLO_AGAIN)
    make.upload("note", ids["twin"], b"note")
    call = {"name": "charge", "operation_key": "POST /charges", "idempotency_key": "once", "correlation_id": "order-7"}
    make.post(f"/projects/{ids['website']}/api-calls", {**call, "request_payload": {"amount": 1}}, "call")
    make.patch(f"/api-calls/{ids['call']}", {"status": "COMPLETED", "response_payload": {"ok": True}})
    run = {"organization_id": ids["acme"], "project_id": ids["website"], "correlation_id": "order-7"}
    make.post("/executions", {**run, "operation": "plan", "warnings": ["slow"], "confidence": 0.5}, "run")
    make.post("/executions", {**run, "operation": "step", "parent_execution_id": ids["run"]}, "step")
    target = {"target_type": "DOCUMENT", "target_id": ids["letter"]}
    make.post("/executions", {**run, "operation": "leaf", "parent_execution_id": ids["step"], **target}, "leaf")
    make.post(f"/executions/{ids['step']}/fail", {"error_code": "E1", "error_message": "no"}, expect=200)
    make.post(f"/executions/{ids['run']}/complete", {"output": {"done": 1}}, expect=200)
    make.grant("ORGANIZATION", ids["acme"], "USER:alice", "ORG_OWNER")
    make.grant("PROJECT", ids["website"], "USER:bob", "PROJECT_VIEWER")
    make.grant("DOCUMENT", ids["letter"], "AGENT:tagger", "DOCUMENT_EDITOR")
    make.grant("API_CALL", ids["call"], "GROUP:devs", "API_CALL_VIEWER")
    make.key("owner", "ORGANIZATION", ids["acme"], "ORG_OWNER", metadata={"for": "ci"})
    make.key("viewer", "PROJECT", ids["website"], "PROJECT_VIEWER", expires_at="2100-01-01T00:00:00Z")
    make.key("revoked", "PROJECT", ids["website"], "PROJECT_VIEWER")
    make.post(f"/api-keys/{ids['revoked']}/revoke", {}, expect=200)
    make.key("expired", "ORGANIZATION", ids["acme"], "ORG_ADMIN", expires_at="2020-01-01T00:00:00Z")
    make.world.answers = {name: make.get(path) for name, path in paths_of(make.world).items()}
    ((make.world.event_count,),) = make.world.sql("SELECT count(*) FROM audit_events")
    return make.world


def paths_of(world: World) -> dict[str, str]:
    """What the reference and ours have to answer alike."""
    ids = world.ids
    paths = {
        **{name: f"/organizations/{ids[name]}" for name in ("acme", "beta")},
        **{name: f"/projects/{ids[name]}" for name in ("website", "twin")},
        **{name: f"/documents/{ids[name]}" for name in ("letter", "note")},
        **{name: f"/api-calls/{ids[name]}" for name in ("call",)},
        **{name: f"/executions/{ids[name]}" for name in ("run", "step", "leaf")},
        **{name: f"/api-keys/{ids[name]}" for name in ("owner", "viewer", "revoked", "expired")},
        "versions": f"/documents/{ids['letter']}/versions",
        "children": f"/executions/{ids['run']}/children",
        "of correlation": "/executions/by-correlation/order-7",
        "grants": f"/memberships?resource_type=PROJECT&resource_id={ids['website']}",
        "trail": f"/audit-events?organization_id={ids['acme']}&size=500",
    }
    return {name: path for name, path in paths.items() if name != "beta"}
