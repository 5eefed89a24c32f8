"""The floor: the least that this stack can do for the same answers. FastAPI, a response model, ONE statement of asyncpg.

Neither authentication nor authorization nor an access log; the tables are ours. A check looks for the one grant that is asked about, or
with the statement of ours for all that counts: groups, what has expired, what is inherited. A file is parsed and written, neither hashed
nor synced, and a call with its event stands for its rows. Started by ``benchmarks.servers``.
"""

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, cast
from uuid import UUID, uuid4

import asyncpg
from fastapi import FastAPI, Request
from pydantic import BaseModel
from python_multipart.multipart import MultipartParser, parse_options_header
from sqlalchemy.dialects.postgresql.asyncpg import dialect

from app.authz.bulk import judge
from app.core.actors import Actor, ActorType, Asker
from app.core.clock import now
from app.core.resources import ResourceType
from app.db.engine import View
from app.db.lookups import Lookup

POSTGRESQL: Final = dialect()  # type: ignore[no-untyped-call]
POOL_SIZE: Final = 8
COLUMNS: Final = (
    "id, organization_id, project_id, name, operation_key, status, requested_at, request_payload, metadata, created_at, revision"
)
READ_PROJECT: Final = (
    "SELECT id, organization_id, name, metadata, created_at, updated_at, created_by_subject, revision FROM projects WHERE id = $1"
)
ADD_CALL: Final = f"""
WITH project AS (SELECT organization_id, id FROM projects WHERE id = $2),
call AS (
    INSERT INTO api_calls (id, organization_id, project_id, name, operation_key, request_digest, status, requested_at, request_payload,
                           response_payload, metadata, created_at, updated_at, created_by_subject, revision)
    SELECT $1, organization_id, id, $3, $4, repeat('0', 64), 'RECEIVED', now(), $5, '{{}}', '{{}}', now(), now(), 'user:alice', 1
    FROM project
    RETURNING {COLUMNS}),
event AS (
    INSERT INTO audit_events (id, occurred_at, organization_id, project_id, actor_type, actor_id, auth_method, action, outcome,
                              resource_type, resource_id, ip, user_agent, request_id, details)
    SELECT $6, now(), organization_id, project_id, 'USER', 'alice', 'header', 'API_CALL_CREATED', 'SUCCESS', 'API_CALL', id, '127.0.0.1',
           'floor', repeat('0', 32), '{{}}' FROM call)
SELECT {COLUMNS} FROM call
"""
LIST_CALLS: Final = f"SELECT {COLUMNS} FROM api_calls WHERE project_id = $1 ORDER BY requested_at, id LIMIT $2"
COUNT_CALLS: Final = f"""
WITH total AS MATERIALIZED (
    SELECT count(*) AS total_items FROM api_calls
    WHERE organization_id = (SELECT organization_id FROM projects WHERE id = $1) AND project_id = $1)
SELECT total.total_items, page.* FROM total, ({LIST_CALLS}) AS page
"""
FIND_GRANT: Final = (
    "SELECT role FROM memberships WHERE actor_type = $1 AND actor_id = $2 AND resource_type = $3 AND resource_id = $4 LIMIT 1"
)


class ProjectRead(BaseModel):
    """A project."""

    id: UUID
    organization_id: UUID
    name: str
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    created_by_subject: str
    revision: int


class CallCreate(BaseModel):
    """A call that has arrived."""

    name: str
    operation_key: str
    request_payload: dict[str, Any]


class CallRead(CallCreate):
    """A call on record."""

    id: UUID
    organization_id: UUID
    project_id: UUID
    status: str
    requested_at: datetime
    metadata: dict[str, Any]
    created_at: datetime
    revision: int


class CallPage(BaseModel):
    """The first page."""

    items: list[CallRead]
    has_more: bool
    total_items: int | None = None


class Question(BaseModel):
    """Whether somebody may do something."""

    actor_type: str
    actor_id: str
    resource_type: str
    resource_id: UUID
    action: str


class Verdict(BaseModel):
    """The answer."""

    allowed: bool
    role: str | None


class Stored(BaseModel):
    """A file that was written."""

    id: UUID
    size_bytes: int


def make_app() -> FastAPI:
    """The application over the database that the environment names."""
    pool: asyncpg.Pool
    folder = Path(os.environ["FLOOR_FOLDER"])

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        nonlocal pool
        pool = asyncpg.create_pool(os.environ["FLOOR_DATABASE"], min_size=POOL_SIZE, max_size=POOL_SIZE, init=_prepare, reset=_keep)
        async with pool:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/api/projects/{project_id}")
    async def read_project(project_id: UUID) -> ProjectRead:
        return ProjectRead(**await pool.fetchrow(READ_PROJECT, project_id))

    @app.post("/api/projects/{project_id}/api-calls", status_code=201)
    async def create_call(project_id: UUID, new: CallCreate) -> CallRead:
        given = (new.name, new.operation_key, new.request_payload)
        return CallRead(**await pool.fetchrow(ADD_CALL, uuid4(), project_id, *given, uuid4()))

    @app.get("/api/api-calls")
    async def list_calls(project_id: UUID, limit: int = 0, size: int = 0) -> CallPage:
        rows = await pool.fetch(LIST_CALLS if limit else COUNT_CALLS, project_id, limit + 1 if limit else size)
        items = [CallRead(**row) for row in rows[: limit or size]]
        return CallPage(items=items, has_more=len(rows) > limit, total_items=None if limit else rows[0]["total_items"])

    @app.post("/api/authz/check")
    async def check(asked: Question) -> Verdict:
        role = await pool.fetchval(FIND_GRANT, asked.actor_type, asked.actor_id, asked.resource_type, asked.resource_id)
        return Verdict(allowed=role is not None and asked.action == "PROJECT_READ", role=role)

    @app.post("/api/authz/check/with-our-statement")
    async def check_like_us(asked: Question) -> Verdict:
        return await _check_like_us(pool, asked)

    @app.post("/api/projects/{project_id}/documents", status_code=201)
    async def upload(project_id: UUID, request: Request) -> Stored:
        name, size = uuid4(), 0
        with (folder / name.hex).open("xb", buffering=0) as file:

            def take(data: bytes, start: int, end: int) -> None:
                nonlocal size
                size += file.write(memoryview(data)[start:end])

            _, options = parse_options_header(request.headers["content-type"])
            parser = MultipartParser(options[b"boundary"], {"on_part_data": take})
            async for chunk in request.stream():
                parser.write(chunk)
        await pool.fetchrow(ADD_CALL, name, project_id, "document", "upload", {"size": size}, uuid4())
        return Stored(id=name, size_bytes=size)

    return app


class _Sent:
    """What the policy engine would send, kept instead of sent."""

    lookup: Lookup
    parameters: Mapping[str, Any]

    async def look_up_all(self, lookup: Lookup, parameters: Mapping[str, Any]) -> list[Any]:
        """No rows."""
        self.lookup, self.parameters = lookup, parameters
        return []


async def _check_like_us(pool: asyncpg.Pool, asked: Question) -> Verdict:
    sent = _Sent()
    asker = Asker(Actor(ActorType(asked.actor_type), asked.actor_id))
    await judge(cast("View", sent), ResourceType(asked.resource_type), [(asked.resource_id, asker)], now())
    found = sent.lookup.compiled(POSTGRESQL, sent.parameters)
    rows = await pool.fetch(found.sql, *(argument.of(sent.parameters) for argument in found.arguments))
    roles = sorted({row["roles"] for row in rows if row["roles"]})
    return Verdict(allowed=bool(roles) and asked.action == "PROJECT_READ", role=roles[0] if roles else None)


async def _prepare(connection: asyncpg.Connection) -> None:
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)


async def _keep(_: asyncpg.Connection) -> None:
    """Nothing can leak from one request to the next, so a connection goes back to the pool without another round trip."""
